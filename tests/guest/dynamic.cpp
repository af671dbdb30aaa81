// A dynamically linked, position-independent program: the interpreter, relocations, libraries,
// thread-local storage of libraries, dlopen(3). Makes no files, so that its root may be read-only.
#include <dlfcn.h>
#include <link.h>
#include <math.h>
#include <pthread.h>
#include <sys/auxv.h>

#include "tap.hpp"

namespace {

TEST(interpreter_was_used) {
  CHECK(getauxval(AT_BASE) != 0);
  CHECK(getauxval(AT_ENTRY) > 0x100000);  // position-independent: not at its link address
}

TEST(libraries_are_loaded) {
  static int count;
  dl_iterate_phdr(
      [](dl_phdr_info *info, size_t, void *) {
        count += strstr(info->dlpi_name, "libc.so") != nullptr;
        return 0;
      },
      nullptr);
  CHECK_EQ(count, 1);
}

TEST(library_opened_at_run_time) {
  void *library = dlopen("libm.so.6", RTLD_NOW);
  if (library == nullptr) note("%s", dlerror());
  REQUIRE(library != nullptr);
  const auto power = reinterpret_cast<double (*)(double, double)>(dlsym(library, "pow"));
  REQUIRE(power != nullptr);
  CHECK(power(2, 10) == 1024);
  CHECK(dlopen("libno-such-library.so.7", RTLD_NOW) == nullptr);
}

TEST(threads_have_their_own_errno) {
  errno = 5;
  pthread_t thread;
  REQUIRE(pthread_create(
              &thread, nullptr,
              [](void *) -> void * {
                errno = 6;
                return nullptr;
              },
              nullptr) == 0);
  pthread_join(thread, nullptr);
  CHECK_EQ(errno, 5);
}

TEST(dynamic_programs_can_be_started) {
  const int status = run_child([] { execl("/bin/sh", "sh", "-c", "exit 37", nullptr); });
  CHECK_EQ(WEXITSTATUS(status), 37);
}

TEST(data_is_relocated) {
  static int value = 3;
  static int *const pointer = &value;
  int *volatile again = pointer;
  *again = 4;
  CHECK_EQ(value, 4);
}

}  // namespace

TAP_MAIN()
