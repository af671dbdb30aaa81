// Running out of memory in a small guest: the eater is killed by SIGKILL, everybody else lives.
// On a machine with much memory it would hurt, so that it is skipped there.
#include <sys/sysinfo.h>

#include "tap.hpp"

namespace {

constexpr unsigned long kSmall = 512ul << 20;

void need_a_small_machine() {
  struct sysinfo info {};
  SYS(sysinfo(&info));
  if (info.totalram * info.mem_unit > kSmall) SKIP("the machine has more than 512 MiB of memory");
}

// Takes memory page by page until the end.
[[noreturn]] void eat_everything() {
  for (;;) {
    constexpr size_t kChunk = 4 << 20;
    void *memory = mmap(nullptr, kChunk, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) _exit(50);  // refusing is an answer, too
    for (size_t at = 0; at < kChunk; at += 4096) static_cast<char *>(memory)[at] = 1;
  }
}

TEST_LIMIT(eater_is_killed_and_the_parent_lives, 60) {
  need_a_small_machine();
  static char own[1 << 20];
  memset(own, 'm', sizeof own);
  for (int round = 0; round < 3; round++) {
    const int status = run_child([] { eat_everything(); });
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
          (WIFEXITED(status) && WEXITSTATUS(status) == 50));
    for (const char byte : own) REQUIRE(byte == 'm');
  }
  CHECK_EQ(run_child([] { put_file("after", "alive"); }), 0);
}

// The kernel may be the one who touches the memory first: no call fails for it.
TEST_LIMIT(eater_by_system_calls_is_killed_too, 60) {
  need_a_small_machine();
  const int status = run_child([] {
    const int zero = static_cast<int>(SYS(open("/dev/zero", O_RDONLY)));
    for (;;) {
      constexpr size_t kChunk = 1 << 20;
      void *memory = mmap(nullptr, kChunk, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) _exit(50);
      if (read(zero, memory, kChunk) != static_cast<ssize_t>(kChunk)) _exit(51);
    }
  });
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
        (WIFEXITED(status) && WEXITSTATUS(status) == 50));
  CHECK_EQ(run_child([] { put_file("after", "alive"); }), 0);
}

TEST_LIMIT(a_bystander_is_spared, 60) {
  need_a_small_machine();
  const pid_t bystander = start_child([] {
    for (int i = 0; i < 100; i++) sleep_ms(20);
  });
  run_child([] { eat_everything(); });
  int status = 0;
  CHECK_EQ(waitpid(bystander, &status, WNOHANG), 0);
  CHECK_EQ(wait_for(bystander), 0);
}

TEST_LIMIT(filling_a_file_system_ends_with_enospc, 60) {
  need_a_small_machine();
  const int fd = make_file("big");
  static char block[1 << 20];
  memset(block, 'f', sizeof block);
  ssize_t got = 0;
  for (int i = 0; i < 2048 && (got = write(fd, block, sizeof block)) > 0; i++) {
  }
  CHECK_EQ(got, -1);
  CHECK(errno == ENOSPC || errno == ENOMEM);
  close(fd);
  SYS(unlink("big"));
  CHECK_EQ(run_child([] { put_file("after", "alive"); }), 0);
}

}  // namespace

TAP_MAIN()
