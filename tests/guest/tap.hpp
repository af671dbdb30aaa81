// What the guest programs in this folder are written with: named checks that print TAP.
//
//   TEST(pipe_gives_end_of_file) { int ends[2]; SYS(pipe(ends)); ... CHECK_EQ(read(...), 0); }
//   TAP_MAIN()
//
// Every test runs in a process of its own, in an empty directory of its own and under a time limit,
// so that a crash or a hang is that test's "not ok" and the others still run. The program exits
// with 0 when no test failed. `program --list` prints the names, `program NAME...` runs tests whose
// name contains NAME, `program --no-fork NAME` runs them in the first process (for a debugger).
//
// The same binary runs on the host's Linux first and then in the guest, with the same expectations.
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <initializer_list>
#include <new>

namespace tap {

struct Test {
  const char *name;
  void (*run)();
  int seconds;  // time limit
  Test *next;
};

inline Test *first_test;
inline Test **last_link = &first_test;
inline bool failed;                    // in the process of this test
inline const char *current = "";       // name of the running test
inline pid_t test_process;             // the process that may end the test with a skip
inline char work_root[4096] = "/tmp";  // the tests' directories are made here

struct Register {
  explicit Register(Test *test) {
    *last_link = test;
    last_link = &test->next;
  }
};

[[gnu::format(printf, 1, 2)]] inline void note(const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(text, sizeof text - 2, format, arguments);
  va_end(arguments);
  // One write, so that lines of several processes do not mix.
  char line[1100];
  const int total = snprintf(line, sizeof line, "# %.*s\n", length < 0 ? 0 : length, text);
  if (write(STDOUT_FILENO, line, static_cast<size_t>(total)) < 0) failed = true;
}

inline void fail(const char *file, int line, const char *what, const char *detail) {
  failed = true;
  const char *base = strrchr(file, '/');
  note("%s:%d: %s: %s%s%s", base ? base + 1 : file, line, current, what, *detail ? ": " : "",
       detail);
}

// Ends this process: the test's own, or a child that a test made.
[[noreturn]] inline void finish() { _exit(failed ? 1 : 0); }

inline bool check(bool good, const char *file, int line, const char *what) {
  const int error = errno;
  if (good) return true;
  char detail[96];
  snprintf(detail, sizeof detail, "errno was %d (%s)", error, strerror(error));
  fail(file, line, what, detail);
  errno = error;
  return false;
}

inline bool check_equal(long long got, long long wanted, const char *file, int line,
                        const char *what) {
  if (got == wanted) return true;
  const int error = errno;
  char detail[192];
  snprintf(detail, sizeof detail, "got %lld (%#llx), wanted %lld (%#llx); errno %d (%s)", got,
           static_cast<unsigned long long>(got), wanted, static_cast<unsigned long long>(wanted),
           error, strerror(error));
  fail(file, line, what, detail);
  return false;
}

inline bool check_text(const char *got, const char *wanted, const char *file, int line,
                       const char *what) {
  if (strcmp(got, wanted) == 0) return true;
  char detail[512];
  snprintf(detail, sizeof detail, "got \"%.200s\", wanted \"%.200s\"", got, wanted);
  fail(file, line, what, detail);
  return false;
}

// A call that must fail with exactly this errno.
inline bool check_errno(long result, int wanted, const char *file, int line, const char *what) {
  const int error = errno;
  if (result == -1 && error == wanted) return true;
  char detail[192];
  if (result == -1)
    snprintf(detail, sizeof detail, "failed with %d (%s), wanted %d (%s)", error, strerror(error),
             wanted, strerror(wanted));
  else
    snprintf(detail, sizeof detail, "gave %ld, wanted the error %d (%s)", result, wanted,
             strerror(wanted));
  fail(file, line, what, detail);
  return false;
}

// A call that must succeed; without it the rest of the test makes no sense.
inline long must(long result, const char *file, int line, const char *what) {
  if (result != -1) return result;
  check(false, file, line, what);
  finish();
}

inline void *must_map(void *result, const char *file, int line, const char *what) {
  if (result != MAP_FAILED) return result;
  check(false, file, line, what);
  finish();
}

[[noreturn]] inline void skip(const char *reason) {
  printf("# skip: %s\n", reason);
  fflush(stdout);
  _exit(77);
}

#define CHECK(...) tap::check(static_cast<bool>(__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)
#define CHECK_EQ(got, wanted)                                                             \
  tap::check_equal(static_cast<long long>(got), static_cast<long long>(wanted), __FILE__, \
                   __LINE__, #got " == " #wanted)
#define CHECK_STR(got, wanted) \
  tap::check_text((got), (wanted), __FILE__, __LINE__, #got " is " #wanted)
#define CHECK_ERRNO(call, wanted) \
  tap::check_errno(static_cast<long>(call), (wanted), __FILE__, __LINE__, #call)
#define SYS(...) tap::must(static_cast<long>(__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)
#define MAP(...) static_cast<char *>(tap::must_map((__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__))
#define REQUIRE(...)                                                                   \
  do {                                                                                 \
    if (!tap::check(static_cast<bool>(__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)) \
      tap::finish();                                                                   \
  } while (0)
#define SKIP(reason) tap::skip(reason)
// A call that a kernel may not offer: ENOSYS skips the test, with the call as reason.
#define OPTIONAL(call)                                                           \
  ({                                                                             \
    const long optional_result = static_cast<long>(call);                        \
    if (optional_result == -1 && errno == ENOSYS) SKIP("optional call: " #call); \
    tap::must(optional_result, __FILE__, __LINE__, #call);                       \
  })

#define TEST_LIMIT(test_name, limit)                                               \
  static void test_##test_name();                                                  \
  static tap::Test info_##test_name{#test_name, test_##test_name, limit, nullptr}; \
  static const tap::Register register_##test_name{&info_##test_name};              \
  static void test_##test_name()
#define TEST(test_name) TEST_LIMIT(test_name, 30)

#define TAP_MAIN() \
  int main(int argc, char **argv) { return tap::run(argc, argv); }

// --- helpers that most tests need ---------------------------------------------------------------

inline bool is_root() { return geteuid() == 0; }

inline void need_root() {
  if (!is_root()) skip("needs root");
}

// Runs `body` in a child that ends with it; checks inside count for the child's exit status.
template <typename Body>
pid_t start_child(Body body) {
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    failed = false;
    body();
    finish();
  }
  if (child < 0) check(false, __FILE__, __LINE__, "fork()");
  return child;
}

// The wait status of a child; -1 when waiting failed.
inline int wait_for(pid_t child) {
  int status = -1;
  pid_t got;
  do {
    got = waitpid(child, &status, 0);
  } while (got < 0 && errno == EINTR);
  return got == child ? status : -1;
}

template <typename Body>
int run_child(Body body) {
  return wait_for(start_child(body));
}

// A body in a child whose checks must all hold.
#define IN_CHILD(...) CHECK_EQ(tap::run_child(__VA_ARGS__), 0)

// The signal that ends a child that runs `body`; 0 when it exited.
template <typename Body>
int death_of(Body body) {
  const int status = run_child(body);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

inline uint64_t now_ns(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_nsec);
}

inline void sleep_ms(long ms) {
  timespec time{ms / 1000, ms % 1000 * 1'000'000};
  while (nanosleep(&time, &time) != 0 && errno == EINTR) {
  }
}

// Waits until `condition` holds, for at most five seconds.
template <typename Condition>
bool eventually(Condition condition) {
  for (int tries = 0; tries < 1000; tries++) {
    if (condition()) return true;
    sleep_ms(5);
  }
  return condition();
}

inline int make_file(const char *path, const char *text = "", mode_t mode = 0644) {
  const int fd = static_cast<int>(SYS(open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, mode)));
  const auto length = static_cast<ssize_t>(strlen(text));
  CHECK_EQ(write(fd, text, static_cast<size_t>(length)), length);
  return fd;
}

inline void put_file(const char *path, const char *text = "", mode_t mode = 0644) {
  close(make_file(path, text, mode));
}

// A whole small file as text; "" and a failed check when it cannot be read.
template <size_t Size>
size_t read_text(const char *path, char (&buffer)[Size]) {
  buffer[0] = '\0';
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (!check(fd >= 0, __FILE__, __LINE__, path)) return 0;
  size_t length = 0;
  for (ssize_t got; (got = read(fd, buffer + length, Size - 1 - length)) > 0;)
    length += static_cast<size_t>(got);
  buffer[length] = '\0';
  close(fd);
  return length;
}

// Memory that children share with their parent: flags, counters, results.
template <typename Shared>
Shared *share() {
  return new (MAP(mmap(nullptr, (sizeof(Shared) + 4095) & ~4095ul, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0))) Shared();
}

inline void on_signal(int number, void (*handler)(int), int flags = 0) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  SYS(sigaction(number, &action, nullptr));
}

// --- the runner ---------------------------------------------------------------------------------

inline volatile sig_atomic_t time_is_up;

inline void make_directory(const Test *test, int number) {
  if (work_root[0] == '\0') return;
  char path[5000];
  snprintf(path, sizeof path, "%s/%d-%.60s", work_root, number, test->name);
  if (mkdir(path, 0755) != 0 || chdir(path) != 0)
    note("%s: no directory of its own, %s: %s", test->name, path, strerror(errno));
}

inline void remove_tree(const char *path) {
  nftw(
      path, [](const char *name, const struct stat *, int, FTW *) { return remove(name), 0; }, 16,
      FTW_DEPTH | FTW_PHYS);
}

// The wait status of the test's process, which is killed when its time is up.
inline int run_in_child(const Test *test, int number) {
  fflush(stdout);
  const pid_t child = fork();
  if (child < 0) return -1;
  if (child == 0) {
    setpgid(0, 0);  // what it leaves behind is killed with it
    struct sigaction normal = {};
    normal.sa_handler = SIG_DFL;
    sigaction(SIGALRM, &normal, nullptr);
    test_process = getpid();
    umask(022);
    make_directory(test, number);
    test->run();
    finish();
  }
  setpgid(child, child);
  time_is_up = 0;
  struct sigaction action = {};
  action.sa_handler = [](int) { time_is_up = 1; };
  sigaction(SIGALRM, &action, nullptr);
  alarm(static_cast<unsigned>(test->seconds));
  int status = -1;
  for (;;) {
    const pid_t got = waitpid(child, &status, 0);
    if (got == child || (got < 0 && errno != EINTR)) break;
    if (time_is_up) {
      kill(-child, SIGKILL);
      kill(child, SIGKILL);
    }
  }
  alarm(0);
  kill(-child, SIGKILL);
  return status;
}

// Prints the test's TAP line; false when it failed.
inline bool report(const Test *test, int number, int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    printf("ok %d - %s\n", number, test->name);
  } else if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    printf("ok %d - %s # SKIP for the reason above\n", number, test->name);
  } else {
    printf("not ok %d - %s\n", number, test->name);
    if (time_is_up)
      printf("# %s: not done after %d s\n", test->name, test->seconds);
    else if (WIFSIGNALED(status))
      printf("# %s: killed by signal %d (%s)\n", test->name, WTERMSIG(status),
             strsignal(WTERMSIG(status)));
    else if (!WIFEXITED(status))
      printf("# %s: could not be run, wait status %#x\n", test->name,
             static_cast<unsigned>(status));
    return false;
  }
  return true;
}

inline bool selected(const Test *test, int count, char **names) {
  for (int i = 0; i < count; i++)
    if (strstr(test->name, names[i]) != nullptr) return true;
  return count == 0;
}

inline int run(int argc, char **argv) {
  // Whoever started us may ignore or block signals (nohup, a shell's background job).
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  bool forking = true;
  int first_name = 1;
  for (; first_name < argc && argv[first_name][0] == '-'; first_name++) {
    if (strcmp(argv[first_name], "--list") == 0) {
      for (Test *test = first_test; test; test = test->next) puts(test->name);
      return 0;
    }
    if (strcmp(argv[first_name], "--no-fork") != 0) {
      fprintf(stderr, "usage: %s [--list] [--no-fork] [NAME...]\n", argv[0]);
      return 2;
    }
    forking = false;
  }
  const char *temporary = getenv("TMPDIR");
  snprintf(work_root, sizeof work_root, "%s/guest-test-%d", temporary ? temporary : "/tmp",
           static_cast<int>(getpid()));
  // Where nothing can be made, as on a read-only root, the tests run where they are.
  if (mkdir(work_root, 0755) != 0) {
    note("no directories for the tests: mkdir %s: %s", work_root, strerror(errno));
    work_root[0] = '\0';
  }
  int number = 0;
  int failures = 0;
  for (Test *test = first_test; test; test = test->next) {
    if (!selected(test, argc - first_name, argv + first_name)) continue;
    current = test->name;
    number++;
    if (forking) {
      if (!report(test, number, run_in_child(test, number))) failures++;
    } else {
      test_process = getpid();
      make_directory(test, number);
      test->run();
      printf("%sok %d - %s\n", failed ? "not " : "", number, test->name);
      failures += failed;
      failed = false;
    }
  }
  printf("1..%d\n", number);
  if (work_root[0] != '\0' && chdir("/") == 0) remove_tree(work_root);
  if (failures != 0) printf("# %d of %d failed\n", failures, number);
  return failures == 0 ? 0 : 1;
}

}  // namespace tap

using tap::death_of;
using tap::eventually;
using tap::is_root;
using tap::make_file;
using tap::need_root;
using tap::note;
using tap::now_ns;
using tap::on_signal;
using tap::put_file;
using tap::read_text;
using tap::run_child;
using tap::share;
using tap::sleep_ms;
using tap::start_child;
using tap::wait_for;
