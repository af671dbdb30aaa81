// Signals: signal(7), sigaction(2), sigprocmask(2), sigsuspend(2), sigwait, sigqueue(3),
// signalfd(2), sigaltstack(2), interrupted calls, timers that send signals.
#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/time.h>

#include <utility>

#include "tap.hpp"

namespace {

volatile sig_atomic_t seen;
volatile sig_atomic_t order[64];
volatile siginfo_t last_info;
volatile bool on_alternate_stack;
char alternate_stack[65536];

void count_signal(int) { seen = seen + 1; }

sigset_t set_of(std::initializer_list<int> numbers) {
  sigset_t set;
  sigemptyset(&set);
  for (int number : numbers) sigaddset(&set, number);
  return set;
}

void block(std::initializer_list<int> numbers) {
  const sigset_t set = set_of(numbers);
  SYS(sigprocmask(SIG_BLOCK, &set, nullptr));
}

void unblock(std::initializer_list<int> numbers) {
  const sigset_t set = set_of(numbers);
  SYS(sigprocmask(SIG_UNBLOCK, &set, nullptr));
}

void install(int number, void (*handler)(int, siginfo_t *, void *), int flags = 0,
             std::initializer_list<int> mask = {}) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  action.sa_mask = set_of(mask);
  SYS(sigaction(number, &action, nullptr));
}

void remember(int, siginfo_t *info, void *) {
  memcpy(const_cast<siginfo_t *>(&last_info), info, sizeof *info);
  seen = seen + 1;
}

siginfo_t last() {
  siginfo_t copy;
  memcpy(&copy, const_cast<siginfo_t *>(&last_info), sizeof copy);
  return copy;
}

void use_alternate_stack() {
  const stack_t stack = {alternate_stack, 0, sizeof alternate_stack};
  SYS(sigaltstack(&stack, nullptr));
}

bool pending(int number) {
  sigset_t set;
  sigpending(&set);
  return sigismember(&set, number) == 1;
}

TEST(handler_runs_and_returns) {
  on_signal(SIGUSR1, count_signal);
  for (int i = 1; i <= 100; i++) {
    SYS(raise(SIGUSR1));
    REQUIRE(seen == i);
  }
}

TEST(sigaction_tells_what_was_set) {
  struct sigaction action = {}, old = {};
  action.sa_handler = count_signal;
  action.sa_flags = SA_RESTART | SA_NODEFER;
  action.sa_mask = set_of({SIGHUP});
  SYS(sigaction(SIGUSR1, &action, nullptr));
  SYS(sigaction(SIGUSR1, nullptr, &old));
  CHECK(old.sa_handler == count_signal);
  CHECK_EQ(old.sa_flags & (SA_RESTART | SA_NODEFER | SA_SIGINFO), SA_RESTART | SA_NODEFER);
  CHECK_EQ(sigismember(&old.sa_mask, SIGHUP), 1);
  CHECK_ERRNO(sigaction(SIGKILL, &action, nullptr), EINVAL);
  CHECK_ERRNO(sigaction(SIGSTOP, &action, nullptr), EINVAL);
  CHECK_ERRNO(syscall(SYS_rt_sigaction, 65, nullptr, nullptr, 8), EINVAL);
  CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, nullptr, nullptr, 7), EINVAL);
  CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, 16, nullptr, 8), EFAULT);
}

TEST(default_actions) {
  for (int number :
       {SIGHUP, SIGINT, SIGPIPE, SIGALRM, SIGTERM, SIGUSR2, SIGVTALRM, SIGPROF, SIGIO, SIGSYS})
    CHECK_EQ(death_of([=] { raise(number); }), number);
  for (int number : {SIGCHLD, SIGURG, SIGWINCH, SIGCONT})
    CHECK_EQ(run_child([=] { raise(number); }), 0);
}

TEST(ignored_signals_are_dropped) {
  on_signal(SIGUSR1, SIG_IGN);
  SYS(raise(SIGUSR1));
  block({SIGUSR1});
  SYS(raise(SIGUSR1));
  unblock({SIGUSR1});
  on_signal(SIGUSR1, SIG_DFL);
}

TEST(blocked_signals_wait_and_come_once) {
  on_signal(SIGUSR1, count_signal);
  block({SIGUSR1});
  for (int i = 0; i < 5; i++) SYS(raise(SIGUSR1));
  CHECK_EQ(seen, 0);
  CHECK(pending(SIGUSR1));
  unblock({SIGUSR1});
  CHECK_EQ(seen, 1);
  CHECK(!pending(SIGUSR1));
}

TEST(kill_and_stop_cannot_be_blocked) {
  block({SIGKILL, SIGSTOP});
  sigset_t set;
  SYS(sigprocmask(SIG_BLOCK, nullptr, &set));
  CHECK_EQ(sigismember(&set, SIGKILL), 0);
  CHECK_EQ(sigismember(&set, SIGSTOP), 0);
  CHECK_ERRNO(syscall(SYS_rt_sigprocmask, 99, &set, nullptr, 8), EINVAL);
}

TEST(handler_blocks_itself_and_its_mask) {
  static volatile bool own, masked, other;
  install(SIGUSR1,
          [](int, siginfo_t *, void *) {
            sigset_t set;
            sigprocmask(SIG_BLOCK, nullptr, &set);
            own = sigismember(&set, SIGUSR1);
            masked = sigismember(&set, SIGUSR2);
            other = sigismember(&set, SIGHUP);
          },
          0, {SIGUSR2});
  SYS(raise(SIGUSR1));
  CHECK(own && masked && !other);
  sigset_t after;
  SYS(sigprocmask(SIG_BLOCK, nullptr, &after));
  CHECK_EQ(sigismember(&after, SIGUSR1), 0);
}

TEST(nodefer_allows_nesting) {
  static volatile int depth, deepest;
  on_signal(
      SIGUSR1,
      [](int) {
        depth = depth + 1;
        if (depth > deepest) deepest = depth;
        if (depth < 5) raise(SIGUSR1);
        depth = depth - 1;
      },
      SA_NODEFER);
  SYS(raise(SIGUSR1));
  CHECK_EQ(deepest, 5);
  CHECK_EQ(depth, 0);
}

TEST(resethand_works_once) {
  CHECK_EQ(death_of([] {
             on_signal(SIGUSR1, count_signal, SA_RESETHAND);
             raise(SIGUSR1);
             CHECK_EQ(seen, 1);
             struct sigaction now = {};
             sigaction(SIGUSR1, nullptr, &now);
             CHECK(now.sa_handler == SIG_DFL);
             if (!tap::failed) raise(SIGUSR1);
           }),
           SIGUSR1);
}

volatile int steps;

void step(int number) {
  order[steps] = number;
  steps = steps + 1;
}

TEST(nested_handlers_return_in_order) {
  on_signal(SIGUSR1, [](int) {
    step(1);
    raise(SIGUSR2);
    step(3);
  });
  on_signal(SIGUSR2, [](int) { step(2); });
  SYS(raise(SIGUSR1));
  CHECK_EQ(steps, 3);
  for (int i = 0; i < 3; i++) CHECK_EQ(order[i], i + 1);
}

TEST(siginfo_of_kill) {
  install(SIGUSR1, remember);
  SYS(kill(getpid(), SIGUSR1));
  CHECK_EQ(last().si_signo, SIGUSR1);
  CHECK_EQ(last().si_code, SI_USER);
  CHECK_EQ(last().si_pid, getpid());
  CHECK_EQ(last().si_uid, getuid());
  SYS(syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1));
  CHECK_EQ(last().si_code, SI_TKILL);
}

TEST(queued_realtime_signals_keep_order_and_value) {
  static volatile int count;
  const auto handler = [](int number, siginfo_t *info, void *) {
    order[count] = number * 100 + info->si_value.sival_int;
    count = count + 1;
  };
  const int low = SIGRTMIN + 1, high = SIGRTMIN + 3;
  install(low, handler, 0, {low, high});
  install(high, handler, 0, {low, high});
  block({low, high});
  for (int i = 0; i < 3; i++) {
    SYS(sigqueue(getpid(), high, sigval{.sival_int = i}));
    SYS(sigqueue(getpid(), low, sigval{.sival_int = i + 10}));
  }
  unblock({low, high});
  CHECK_EQ(count, 6);
  const int wanted[] = {low * 100 + 10, low * 100 + 11, low * 100 + 12,
                        high * 100,     high * 100 + 1, high * 100 + 2};
  for (int i = 0; i < 6; i++) CHECK_EQ(order[i], wanted[i]);
}

TEST(queued_realtime_signals_have_a_limit_whatever_their_code) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGRTMIN);
  SYS(sigprocmask(SIG_BLOCK, &blocked, nullptr));
  const rlimit few{100, 100};
  SYS(setrlimit(RLIMIT_SIGPENDING, &few));
  for (const int code : {SI_QUEUE, SI_KERNEL}) {
    siginfo_t info{};
    info.si_signo = SIGRTMIN;
    info.si_code = code;
    int queued = 0;
    while (queued < 1000 && syscall(SYS_rt_sigqueueinfo, getpid(), SIGRTMIN, &info) == 0) ++queued;
    CHECK(queued <= 100);
    CHECK_EQ(errno, EAGAIN);
  }
}

TEST(a_signalfd_brings_no_signals) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGRTMIN);
  SYS(sigprocmask(SIG_BLOCK, &blocked, nullptr));
  const int fd = SYS(signalfd(-1, &blocked, SFD_NONBLOCK));
  SYS(fcntl(fd, F_SETOWN, getpid()));
  SYS(fcntl(fd, F_SETSIG, SIGRTMIN));
  SYS(fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
  SYS(kill(getpid(), SIGRTMIN));
  signalfd_siginfo info;
  CHECK_EQ(read(fd, &info, sizeof info), sizeof info);
  CHECK_ERRNO(read(fd, &info, sizeof info), EAGAIN);
}

TEST(owner_of_a_descriptor_must_exist) {
  int ends[2];
  SYS(pipe(ends));
  CHECK_ERRNO(fcntl(ends[0], F_SETOWN, 999'999), ESRCH);
  CHECK_ERRNO(fcntl(ends[0], F_SETOWN, -999'999), ESRCH);
  f_owner_ex owner = {F_OWNER_PGRP, 999'999};
  CHECK_ERRNO(fcntl(ends[0], F_SETOWN_EX, &owner), ESRCH);
  CHECK_EQ(fcntl(ends[0], F_GETOWN), 0);
  SYS(fcntl(ends[0], F_SETOWN, -getpgrp()));
  owner = {F_OWNER_PID, 0};
  SYS(fcntl(ends[0], F_GETOWN_EX, &owner));
  CHECK(owner.type == F_OWNER_PGRP && owner.pid == getpgrp());
  SYS(fcntl(ends[0], F_SETOWN, getpid()));
  CHECK_EQ(fcntl(ends[0], F_GETOWN), getpid());
  SYS(fcntl(ends[0], F_SETOWN, 0));
}

TEST(sigqueue_tells_the_sender) {
  install(SIGUSR1, remember);
  SYS(sigqueue(getpid(), SIGUSR1, sigval{.sival_int = 4711}));
  CHECK_EQ(last().si_code, SI_QUEUE);
  CHECK_EQ(last().si_value.sival_int, 4711);
  CHECK_EQ(last().si_pid, getpid());
}

TEST(sigsuspend_waits_with_another_mask) {
  on_signal(SIGUSR1, count_signal);
  block({SIGUSR1});
  SYS(raise(SIGUSR1));
  const sigset_t none = set_of({});
  CHECK_ERRNO(sigsuspend(&none), EINTR);
  CHECK_EQ(seen, 1);
  sigset_t now;
  SYS(sigprocmask(SIG_BLOCK, nullptr, &now));
  CHECK_EQ(sigismember(&now, SIGUSR1), 1);
}

TEST(sigtimedwait_takes_without_handler) {
  block({SIGUSR1, SIGUSR2});
  const sigset_t set = set_of({SIGUSR1, SIGUSR2});
  SYS(sigqueue(getpid(), SIGUSR2, sigval{.sival_int = 5}));
  siginfo_t info = {};
  CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR2);
  CHECK_EQ(info.si_value.sival_int, 5);
  const timespec shortly{0, 20'000'000}, none{0, 0};
  const uint64_t start = now_ns();
  CHECK_ERRNO(sigtimedwait(&set, &info, &shortly), EAGAIN);
  CHECK(now_ns() - start >= 20'000'000);
  CHECK_ERRNO(sigtimedwait(&set, &info, &none), EAGAIN);
}

TEST(sigtimedwait_is_woken) {
  block({SIGUSR1});
  const pid_t parent = getpid();
  const pid_t child = start_child([=] {
    sleep_ms(50);
    SYS(kill(parent, SIGUSR1));
  });
  const sigset_t set = set_of({SIGUSR1});
  siginfo_t info = {};
  CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
  CHECK_EQ(info.si_pid, child);
  wait_for(child);
}

TEST(signalfd_reads_signals) {
  block({SIGUSR1, SIGRTMIN + 2});
  const sigset_t set = set_of({SIGUSR1, SIGRTMIN + 2});
  const int fd = static_cast<int>(OPTIONAL(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)));
  signalfd_siginfo info[4] = {};
  CHECK_ERRNO(read(fd, info, sizeof info), EAGAIN);
  pollfd poller = {fd, POLLIN, 0};
  CHECK_EQ(poll(&poller, 1, 0), 0);
  SYS(kill(getpid(), SIGUSR1));
  SYS(sigqueue(getpid(), SIGRTMIN + 2, sigval{.sival_int = 9}));
  CHECK_EQ(poll(&poller, 1, 1000), 1);
  CHECK_EQ(read(fd, info, sizeof info), 2 * sizeof info[0]);
  CHECK_EQ(info[0].ssi_signo, SIGUSR1);
  CHECK_EQ(info[0].ssi_pid, getpid());
  CHECK_EQ(info[1].ssi_int, 9);
  CHECK_ERRNO(read(fd, info, 10), EINVAL);
}

TEST(read_is_interrupted_without_restart) {
  int ends[2];
  SYS(pipe(ends));
  on_signal(SIGALRM, count_signal);
  const itimerval soon{{0, 0}, {0, 50'000}};
  SYS(setitimer(ITIMER_REAL, &soon, nullptr));
  char byte;
  CHECK_ERRNO(read(ends[0], &byte, 1), EINTR);
  CHECK_EQ(seen, 1);
}

TEST(read_goes_on_with_restart) {
  static int ends[2];
  SYS(pipe(ends));
  on_signal(
      SIGALRM,
      [](int) {
        seen = seen + 1;
        if (seen == 3 && write(ends[1], "x", 1) != 1) seen = 100;
      },
      SA_RESTART);
  const itimerval often{{0, 30'000}, {0, 30'000}};
  SYS(setitimer(ITIMER_REAL, &often, nullptr));
  char byte = 0;
  CHECK_EQ(read(ends[0], &byte, 1), 1);
  CHECK_EQ(byte, 'x');
  CHECK(seen >= 3 && seen < 100);
}

TEST(wait_goes_on_with_restart) {
  on_signal(SIGALRM, count_signal, SA_RESTART);
  const itimerval often{{0, 20'000}, {0, 20'000}};
  SYS(setitimer(ITIMER_REAL, &often, nullptr));
  const pid_t child = start_child([] {
    sleep_ms(120);
    _exit(4);
  });
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(WEXITSTATUS(status), 4);
  CHECK(seen >= 1);
}

TEST(nanosleep_gives_the_rest) {
  on_signal(SIGALRM, count_signal, SA_RESTART);  // never restarted after a handler
  const itimerval soon{{0, 0}, {0, 300'000}};
  SYS(setitimer(ITIMER_REAL, &soon, nullptr));
  const timespec wanted{100, 0};
  timespec rest{};
  CHECK_ERRNO(nanosleep(&wanted, &rest), EINTR);
  // Less than was asked for; how much depends on when the sleep began, and ended.
  CHECK(rest.tv_sec >= 1 && rest.tv_sec < 100);
}

TEST(pause_poll_and_select_are_interrupted) {
  on_signal(SIGALRM, count_signal, SA_RESTART);
  const itimerval often{{0, 30'000}, {0, 30'000}};
  SYS(setitimer(ITIMER_REAL, &often, nullptr));
  CHECK_ERRNO(pause(), EINTR);
  CHECK_ERRNO(poll(nullptr, 0, 5000), EINTR);
  timeval long_time{5, 0};
  CHECK_ERRNO(select(0, nullptr, nullptr, nullptr, &long_time), EINTR);
}

TEST(write_to_a_closed_pipe_is_sigpipe) {
  int ends[2];
  SYS(pipe(ends));
  close(ends[0]);
  CHECK_EQ(death_of([&] {
             if (write(ends[1], "x", 1) == 1) _exit(1);
           }),
           SIGPIPE);
  on_signal(SIGPIPE, SIG_IGN);
  CHECK_ERRNO(write(ends[1], "x", 1), EPIPE);
}

TEST(sigchld_tells_of_the_child) {
  install(SIGCHLD, remember);
  block({SIGCHLD});
  const sigset_t none = set_of({});
  pid_t child = start_child([] { _exit(12); });
  sigsuspend(&none);
  CHECK_EQ(last().si_signo, SIGCHLD);
  CHECK_EQ(last().si_code, CLD_EXITED);
  CHECK_EQ(last().si_pid, child);
  CHECK_EQ(last().si_status, 12);
  wait_for(child);
  child = start_child([] { pause(); });
  SYS(kill(child, SIGSTOP));
  sigsuspend(&none);
  CHECK_EQ(last().si_code, CLD_STOPPED);
  SYS(kill(child, SIGCONT));
  sigsuspend(&none);
  CHECK_EQ(last().si_code, CLD_CONTINUED);
  SYS(kill(child, SIGKILL));
  sigsuspend(&none);
  CHECK_EQ(last().si_code, CLD_KILLED);
  CHECK_EQ(last().si_status, SIGKILL);
  wait_for(child);
}

TEST(nocldstop_and_nocldwait) {
  install(SIGCHLD, remember, SA_NOCLDSTOP | SA_NOCLDWAIT);
  const pid_t child = start_child([] { pause(); });
  SYS(kill(child, SIGSTOP));
  int status;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  sleep_ms(30);
  CHECK_EQ(seen, 0);
  SYS(kill(child, SIGKILL));
  CHECK_ERRNO(waitpid(child, &status, 0), ECHILD);
}

TEST(stop_and_continue) {
  auto *counter = share<volatile long>();
  const pid_t child = start_child([&] {
    for (;;) *counter = *counter + 1;
  });
  CHECK(eventually([&] { return *counter > 1000; }));
  SYS(kill(child, SIGSTOP));
  int status;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  const long stopped = *counter;
  sleep_ms(60);
  CHECK_EQ(*counter, stopped);
  SYS(kill(child, SIGTERM));  // waits for the continue
  sleep_ms(30);
  CHECK_EQ(waitpid(child, &status, WNOHANG), 0);
  SYS(kill(child, SIGCONT));
  status = wait_for(child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

TEST(continue_discards_stops_and_runs_its_handler) {
  on_signal(SIGCONT, count_signal);
  block({SIGTSTP});
  SYS(raise(SIGTSTP));
  CHECK(pending(SIGTSTP));
  SYS(raise(SIGCONT));
  CHECK(!pending(SIGTSTP));
  CHECK_EQ(seen, 1);
}

TEST(alarm_counts_down) {
  on_signal(SIGALRM, count_signal);
  CHECK_EQ(alarm(100), 0);
  const unsigned rest = alarm(1);
  CHECK(rest == 100 || rest == 99);
  const uint64_t start = now_ns();
  pause();
  CHECK_EQ(seen, 1);
  CHECK(now_ns() - start >= 990'000'000);
  CHECK_EQ(alarm(0), 0);
}

TEST(real_interval_timer_repeats) {
  on_signal(SIGALRM, count_signal);
  const itimerval often{{0, 20'000}, {0, 20'000}};
  SYS(setitimer(ITIMER_REAL, &often, nullptr));
  itimerval now{};
  SYS(getitimer(ITIMER_REAL, &now));
  CHECK_EQ(now.it_interval.tv_usec, 20'000);
  CHECK(eventually([] { return seen >= 5; }));
  const itimerval off{};
  SYS(setitimer(ITIMER_REAL, &off, &now));
  const int after = seen;
  sleep_ms(60);
  CHECK_EQ(seen, after);
  const itimerval wrong{{0, 0}, {0, 1'000'000}};
  CHECK_ERRNO(setitimer(ITIMER_REAL, &wrong, nullptr), EINVAL);
}

TEST(virtual_and_profiling_timers_count_work) {
  for (const auto &[which, number] :
       {std::pair{ITIMER_VIRTUAL, SIGVTALRM}, std::pair{ITIMER_PROF, SIGPROF}}) {
    seen = 0;
    on_signal(number, count_signal);
    const itimerval soon{{0, 0}, {0, 50'000}};
    SYS(setitimer(which, &soon, nullptr));
    sleep_ms(120);  // sleeping is no work
    CHECK_EQ(seen, 0);
    const uint64_t start = now_ns();
    while (seen == 0 && now_ns(CLOCK_MONOTONIC) - start < 5'000'000'000)
      for (volatile int i = 0; i < 100'000;) i = i + 1;
    CHECK_EQ(seen, 1);
  }
}

TEST(posix_timer_sends_its_signal) {
  install(SIGUSR1, remember);
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  event.sigev_value.sival_int = 77;
  timer_t timer{};
  OPTIONAL(timer_create(CLOCK_MONOTONIC, &event, &timer));
  const itimerspec soon{{0, 0}, {0, 30'000'000}};
  SYS(timer_settime(timer, 0, &soon, nullptr));
  CHECK(eventually([] { return seen == 1; }));
  CHECK_EQ(last().si_code, SI_TIMER);
  CHECK_EQ(last().si_value.sival_int, 77);
  SYS(timer_delete(timer));
}

TEST(alternate_stack_is_used) {
  use_alternate_stack();
  const auto handler = [](int) {
    const char here = 0;
    on_alternate_stack =
        &here >= alternate_stack && &here < alternate_stack + sizeof alternate_stack;
    stack_t now = {};
    sigaltstack(nullptr, &now);
    order[0] = now.ss_flags;
    const stack_t off = {nullptr, SS_DISABLE, 0};
    order[1] = sigaltstack(&off, nullptr) == -1 ? errno : 0;
  };
  on_signal(SIGUSR1, handler, SA_ONSTACK);
  SYS(raise(SIGUSR1));
  CHECK(on_alternate_stack);
  CHECK_EQ(order[0], SS_ONSTACK);
  CHECK_EQ(order[1], EPERM);
  on_signal(SIGUSR1, handler);
  SYS(raise(SIGUSR1));
  CHECK(!on_alternate_stack);
  const stack_t small = {alternate_stack, 0, 100};
  CHECK_ERRNO(sigaltstack(&small, nullptr), ENOMEM);
}

[[gnu::noinline]] int overflow(int depth) {
  volatile char room[4096];
  room[0] = static_cast<char>(depth);
  return depth < 0 ? 0 : overflow(depth + 1) + room[0];
}

TEST(stack_overflow_is_caught_on_the_alternate_stack) {
  IN_CHILD([] {
    const rlimit limit{1 << 20, 1 << 20};
    SYS(setrlimit(RLIMIT_STACK, &limit));
    use_alternate_stack();
    install(
        SIGSEGV, [](int, siginfo_t *info, void *) { _exit(info->si_addr != nullptr ? 0 : 2); },
        SA_ONSTACK);
    overflow(0);
    _exit(3);
  });
  CHECK_EQ(death_of([] {
             const rlimit limit{1 << 20, 1 << 20};
             SYS(setrlimit(RLIMIT_STACK, &limit));
             install(SIGSEGV, [](int, siginfo_t *, void *) { _exit(0); });  // no room for its frame
             overflow(0);
           }),
           SIGSEGV);
}

TEST(signals_arrive_while_computing) {
  on_signal(SIGALRM, count_signal);
  const itimerval often{{0, 1000}, {0, 1000}};
  SYS(setitimer(ITIMER_REAL, &often, nullptr));
  unsigned long sum = 0, check = 0;
  const uint64_t start = now_ns();
  while (seen < 100 && now_ns() - start < 10'000'000'000ul)
    for (unsigned long i = 0; i < 1000; i++) {
      sum += i * 3;
      check += i;
    }
  CHECK(seen >= 100);
  CHECK_EQ(sum, check * 3);
}

TEST(flood_of_signals_between_processes) {
  on_signal(SIGUSR1, count_signal);
  const pid_t parent = getpid();
  const pid_t child = start_child([=] {
    for (int i = 0; i < 2000; i++) kill(parent, SIGUSR1);
  });
  CHECK_EQ(wait_for(child), 0);
  CHECK(seen >= 1 && seen <= 2000);
}

}  // namespace

TAP_MAIN()
