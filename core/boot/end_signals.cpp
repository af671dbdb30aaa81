#include "boot/end_signals.hpp"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <thread>

#include "base/end_signal_set.hpp"
#include "base/errno.hpp"
#include "base/host_thread.hpp"
#include "boot/panic.hpp"

namespace cowbird::boot {

namespace {

// A guest that writes to a closed pipe of the host, or beyond the size that the host allows a file,
// gets EPIPE or EFBIG.
constexpr int kIgnoredSignals[] = {SIGPIPE, SIGXFSZ};

// The thread that waits; 0: not yet.
std::atomic<pid_t> waiting_thread{0};

void wait_for_end_signal() {
  const sigset_t set = end_signal_set();
  ::pthread_setname_np(::pthread_self(), "end-signals");
  waiting_thread = static_cast<pid_t>(::syscall(SYS_gettid));
  waiting_thread.notify_all();
  int signal = 0;
  if (::sigwait(&set, &signal) != 0) return;
  run_emergencies();
  ::signal(signal, SIG_DFL);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  ::raise(signal);
  ::_exit(128 + signal);
}

void on_stray_look_signal(int signal) { pass_on_end_signal(signal); }

}  // namespace

bool watch_end_signals(std::string &error) {
  const sigset_t set = end_signal_set();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  for (const int s : kIgnoredSignals) ::signal(s, SIG_IGN);
  // The kernel's threads take it, whoever sends it.
  struct sigaction action {};
  action.sa_handler = on_stray_look_signal;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  ::sigaction(kLookSignal, &action, nullptr);
  try {
    std::thread(wait_for_end_signal).detach();
  } catch (const std::system_error &refused) {
    error = fmt::format("The thread that waits for signals cannot be started: {}.",
                        errno_text(errno_from_host(refused.code().value())));
    return false;
  }
  waiting_thread.wait(0);
  return true;
}

void pass_on_end_signal(int signal) {
  const int saved = errno;
  ::syscall(SYS_tgkill, ::getpid(), waiting_thread.load(), signal);
  errno = saved;
}

void restore_end_signals() {
  for (const int s : kIgnoredSignals) ::signal(s, SIG_DFL);
  sigset_t nothing;
  ::sigemptyset(&nothing);
  ::pthread_sigmask(SIG_SETMASK, &nothing, nullptr);
}

}  // namespace cowbird::boot
