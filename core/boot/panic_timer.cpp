#include "boot/panic_timer.hpp"

#include <linux/time_types.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <ctime>

#include "boot/end_signals.hpp"

namespace cowbird::boot {

namespace {

constexpr int kSeconds = 2;

// The host's own numbers of timers, which are ints: the C library's functions allocate.
int timer = -1;
void (*on_time)() = nullptr;

bool set_timer(int seconds) {
  itimerspec value{};
  value.it_value.tv_sec = seconds;
  return ::syscall(SYS_timer_settime, timer, 0, &value, nullptr) == 0;
}

void on_alarm(int signal, siginfo_t *info, void *) {
  // SI_KERNEL is the timer of the whole process.
  if (info->si_code != SI_TIMER && info->si_code != SI_KERNEL) return pass_on_end_signal(signal);
  on_time();
}

}  // namespace

void start_panic_timer(void (*hangs)()) {
  on_time = hangs;
  struct sigaction action {};
  action.sa_sigaction = on_alarm;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigaction(SIGALRM, &action, nullptr);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGALRM);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  // To this thread: a signal to the process may be taken by the thread that waits for those of
  // others.
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGALRM;
  event._sigev_un._tid = static_cast<pid_t>(::syscall(SYS_gettid));
  if (::syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) == 0 && set_timer(kSeconds)) {
    return;
  }
  // The user has too many timers. Whichever thread takes this signal, it ends the process.
  timer = -1;
  const itimerval value{{0, 0}, {kSeconds, 0}};
  ::setitimer(ITIMER_REAL, &value, nullptr);
}

void stop_panic_timer() {
  if (timer >= 0) set_timer(0);
  const itimerval never{};
  ::setitimer(ITIMER_REAL, &never, nullptr);
}

}  // namespace cowbird::boot
