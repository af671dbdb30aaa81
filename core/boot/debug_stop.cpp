#include "boot/debug_stop.hpp"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "base/own_program.hpp"
#include "sched/bkl.hpp"

extern "C" {
constinit volatile int cowbird_debug_hold = 0;

__attribute__((noinline)) void cowbird_panic_stop(const char *message) {
  // Not empty, so that no call of it goes away.
  asm volatile("" : : "r"(message) : "memory");
}

__attribute__((noinline)) void cowbird_debug_wait_for_gdb() {
  constexpr timespec kPause{0, 10'000'000};
  // In one step: between two, gdb could let it go.
  int wanted = 1;
  const auto self = static_cast<int>(::syscall(SYS_gettid));
  __atomic_compare_exchange_n(&cowbird_debug_hold, &wanted, self, false, __ATOMIC_SEQ_CST,
                              __ATOMIC_SEQ_CST);
  while (cowbird_debug_hold != 0) ::nanosleep(&kPause, nullptr);
}
}

namespace cowbird::boot {
namespace {

constexpr timespec kPause{0, 20'000'000};
constexpr unsigned kSecondsForCore = 5 * 60;
constexpr int kPausesForLock = 10;

// Made beforehand, because a panic may not allocate.
struct Prepared {
  bool stand_still = false;
  bool core = false;
  char name[128] = "";
  char core_file[4096] = "";
  char pid[16] = "";
  const char *guest_memory = nullptr;
};
Prepared prepared;
std::atomic<bool> core_done{false};

void print_error(const char *text) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, std::strlen(text));
}

// The process that was asked to write gets the memory of this one for the moment before its exec.
pid_t start_writer(const char *message) {
  char thread[16];
  std::snprintf(thread, sizeof thread, "%d", static_cast<int>(::syscall(SYS_gettid)));
  // argv wants no const; execve(2) does not change it.
  char *const argv[] = {const_cast<char *>("cowbird"),
                        const_cast<char *>("gdbserver"),
                        const_cast<char *>("--pid"),
                        prepared.pid,
                        const_cast<char *>("--write-core"),
                        prepared.core_file,
                        const_cast<char *>("--panic"),
                        const_cast<char *>(message),
                        const_cast<char *>("--thread"),
                        thread,
                        const_cast<char *>(prepared.guest_memory),
                        nullptr};
  const pid_t child = ::vfork();
  if (child == 0) {
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    // It has so long, and is ended by the host: both survive the exec (alarm(2), signal(7)).
    ::signal(SIGALRM, SIG_DFL);
    ::alarm(kSecondsForCore);
    ::execve(own_program(), argv, environ);
    ::_exit(127);
  }
  return child;
}

}  // namespace

void set_panic_policy(const PanicPolicy &policy) {
  prepared.stand_still = policy.stand_still;
  prepared.core = !policy.core_directory.empty();
  prepared.guest_memory = policy.core_guest_memory ? "--guest-memory" : nullptr;
  std::snprintf(prepared.name, sizeof prepared.name, "%s", policy.guest_name.c_str());
  std::snprintf(prepared.pid, sizeof prepared.pid, "%d", static_cast<int>(::getpid()));
  const int length = std::snprintf(prepared.core_file, sizeof prepared.core_file, "%s/%s.%s.core",
                                   policy.core_directory.c_str(), prepared.name, prepared.pid);
  if (length < 0 || static_cast<std::size_t>(length) >= sizeof prepared.core_file) {
    prepared.core = false;
  }
}

bool panic_stands_still() { return prepared.stand_still; }

void write_panic_core(const char *message) {
  if (!prepared.core || core_done.exchange(true)) return;
  // The writer is no ancestor of ours, which Yama's default demands.
  ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  const pid_t writer = start_writer(message);
  if (writer < 0) {
    print_error("cowbird: no core file: the host refuses another process\n");
    return;
  }
  // In one call for as long as it takes: the core file shows this thread there.
  int status = 0;
  while (::waitpid(writer, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
    print_error("cowbird: writing the core file took too long; it is not complete\n");
  } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    print_error("cowbird: the core file was not written\n");
  }
}

// It takes the lock if it can, for good.
void stand_still_after_panic() NO_THREAD_SAFETY_ANALYSIS {
  ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  char line[512];
  std::snprintf(line, sizeof line,
                "cowbird: the guest stands still, as [debug] on_panic wants it. Look at it with\n"
                "  cowbird gdb %s\nand end it with\n  kill %s\n",
                prepared.name, prepared.pid);
  print_error(line);
  // Nothing else of the kernel goes on. When the lock is not to be had, it is ours already, or its
  // holder stands still too.
  for (int i = 0; i < kPausesForLock && !big_kernel_lock.try_lock(); ++i) {
    ::nanosleep(&kPause, nullptr);
  }
  for (;;) ::pause();
}

}  // namespace cowbird::boot
