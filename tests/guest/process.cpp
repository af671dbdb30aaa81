// Processes: fork(2), vfork(2), clone(2), wait(2), exit codes, sessions and groups, orphans,
// resource calls, prctl(2), sched(7) basics, uname(2), sysinfo(2).
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>

#include <algorithm>

#include "tap.hpp"

namespace {

// Burns processor time, for clocks that count it.
void burn_ms(long ms) {
  const uint64_t until = now_ns() + static_cast<uint64_t>(ms) * 1'000'000;
  volatile unsigned long sum = 0;
  while (now_ns() < until)
    for (int i = 0; i < 10'000; i++) sum = sum + static_cast<unsigned long>(i);
}

TEST(fork_returns_twice) {
  const pid_t parent = getpid();
  const pid_t child = start_child([&] {
    CHECK(getpid() != parent);
    CHECK_EQ(getppid(), parent);
    _exit(tap::failed ? 1 : 42);
  });
  REQUIRE(child > 0);
  CHECK(child != parent);
  const int status = wait_for(child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 42);
}

TEST(fork_copies_memory_and_shares_files) {
  volatile int value = 1;
  const int fd = make_file("file", "0123456789");
  SYS(lseek(fd, 0, SEEK_SET));
  IN_CHILD([&] {
    value = 2;
    char byte;
    CHECK_EQ(read(fd, &byte, 1), 1);
  });
  CHECK_EQ(value, 1);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 1);
}

TEST(exit_status_is_one_byte) {
  for (int code : {0, 1, 127, 128, 255}) {
    const int status = run_child([=] { _exit(code); });
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), code);
  }
  CHECK_EQ(WEXITSTATUS(run_child([] { _exit(256 + 7); })), 7);
}

TEST(death_by_signal_is_told) {
  for (int number : {SIGTERM, SIGKILL, SIGUSR1, SIGSEGV, SIGRTMIN}) {
    const int status = run_child([=] {
      raise(number);
      _exit(0);
    });
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), number);
  }
}

TEST(vfork_parent_waits_for_the_child) {
  auto *done = share<volatile int>();
  volatile int on_stack = 0;
  const pid_t child = vfork();
  if (child == 0) {
    timespec time{0, 50'000'000};
    syscall(SYS_nanosleep, &time, nullptr);
    *done = 1;
    on_stack = 5;
    _exit(3);
  }
  CHECK_EQ(*done, 1);
  CHECK_EQ(on_stack, 5);  // memory is shared until then
  CHECK_EQ(WEXITSTATUS(wait_for(child)), 3);
}

TEST(wait_without_children_is_echild) {
  int status;
  CHECK_ERRNO(waitpid(-1, &status, 0), ECHILD);
  CHECK_ERRNO(waitpid(getppid(), &status, 0), ECHILD);
  CHECK_ERRNO(waitpid(-1, &status, 0x12340000), EINVAL);
}

TEST(wait_nohang_does_not_wait) {
  int ends[2];
  SYS(pipe(ends));
  const pid_t child = start_child([&] {
    close(ends[1]);
    char byte;
    CHECK_EQ(read(ends[0], &byte, 1), 0);
  });
  int status = 77;
  CHECK_EQ(waitpid(child, &status, WNOHANG), 0);
  close(ends[1]);
  CHECK_EQ(wait_for(child), 0);
}

TEST(wait_selects_by_group) {
  const pid_t mine = start_child([] { _exit(1); });
  const pid_t other = start_child([] {
    setpgid(0, 0);
    _exit(2);
  });
  setpgid(other, other);
  int status = 0;
  const pid_t by_group = waitpid(-other, &status, 0);
  if (by_group == -1)  // it ended before it had its group
    CHECK_EQ(waitpid(other, &status, 0), other);
  CHECK_EQ(WEXITSTATUS(status), 2);
  CHECK_EQ(waitpid(0, &status, 0), mine);
  CHECK_EQ(WEXITSTATUS(status), 1);
}

TEST(waitid_fills_the_information) {
  const pid_t child = start_child([] { _exit(9); });
  siginfo_t info = {};
  SYS(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
  CHECK_EQ(info.si_pid, child);
  CHECK_EQ(info.si_signo, SIGCHLD);
  CHECK_EQ(info.si_code, CLD_EXITED);
  CHECK_EQ(info.si_status, 9);
  CHECK_EQ(info.si_uid, getuid());
  info = {};
  SYS(waitid(P_PID, child, &info, WEXITED));  // WNOWAIT left it there
  CHECK_EQ(info.si_status, 9);
  CHECK_ERRNO(waitid(P_PID, child, &info, WEXITED), ECHILD);
  CHECK_ERRNO(waitid(P_ALL, 0, &info, 0), EINVAL);
  const pid_t killed = start_child([] { raise(SIGTERM); });
  SYS(waitid(P_ALL, 0, &info, WEXITED));
  CHECK_EQ(info.si_pid, killed);
  CHECK_EQ(info.si_code, CLD_KILLED);
  CHECK_EQ(info.si_status, SIGTERM);
}

TEST(wait_sees_stop_and_continue) {
  const pid_t child = start_child([] {
    raise(SIGSTOP);
    pause();
  });
  int status = 0;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  CHECK(WIFSTOPPED(status));
  CHECK_EQ(WSTOPSIG(status), SIGSTOP);
  CHECK_EQ(waitpid(child, &status, WUNTRACED | WNOHANG), 0);  // told once
  SYS(kill(child, SIGCONT));
  CHECK_EQ(waitpid(child, &status, WCONTINUED), child);
  CHECK(WIFCONTINUED(status));
  siginfo_t info = {};
  SYS(kill(child, SIGTSTP));
  SYS(waitid(P_PID, child, &info, WSTOPPED));
  CHECK_EQ(info.si_code, CLD_STOPPED);
  CHECK_EQ(info.si_status, SIGTSTP);
  SYS(kill(child, SIGKILL));  // works on a stopped process, too
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(zombie_stays_until_waited_for) {
  const pid_t child = start_child([] { _exit(0); });
  siginfo_t info = {};
  SYS(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
  CHECK_EQ(kill(child, 0), 0);
  CHECK_EQ(wait_for(child), 0);
  CHECK_ERRNO(kill(child, 0), ESRCH);
}

TEST(ignored_sigchld_reaps_by_itself) {
  IN_CHILD([] {
    on_signal(SIGCHLD, SIG_IGN);
    const pid_t child = start_child([] { _exit(0); });
    int status;
    CHECK_ERRNO(waitpid(child, &status, 0), ECHILD);
    CHECK_ERRNO(kill(child, 0), ESRCH);
  });
}

TEST(orphan_goes_to_the_subreaper) {
  IN_CHILD([] {
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return note("no PR_SET_CHILD_SUBREAPER");
    const pid_t reaper = getpid();
    auto *orphan = share<volatile pid_t>();
    const pid_t middle = start_child([&] {
      *orphan = start_child([&] {
        CHECK(eventually([&] { return getppid() == reaper; }));
        _exit(tap::failed ? 1 : 23);
      });
      _exit(0);
    });
    CHECK_EQ(wait_for(middle), 0);
    CHECK_EQ(WEXITSTATUS(wait_for(*orphan)), 23);
  });
}

// POSIX, _exit(): SIGHUP and SIGCONT go to a group that the exit has made an orphaned one, not to
// one that was so before.
TEST(an_exit_in_an_orphaned_group_wakes_nobody) {
  const pid_t leader = start_child([] {
    SYS(setsid());
    const pid_t stopped = start_child([] { raise(SIGSTOP); });
    int status = 0;
    CHECK_EQ(waitpid(stopped, &status, WUNTRACED), stopped);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(WEXITSTATUS(wait_for(start_child([] { _exit(3); }))), 3);
    usleep(20'000);
    CHECK_EQ(waitpid(stopped, &status, WNOHANG | WCONTINUED), 0);
    kill(stopped, SIGKILL);
    wait_for(stopped);
    _exit(tap::failed ? 1 : 42);
  });
  const int status = wait_for(leader);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 42);
}

TEST(orphan_goes_to_process_one) {
  auto *parent = share<volatile pid_t>();
  auto *middle_id = share<volatile pid_t>();
  IN_CHILD([&] {
    *middle_id = getpid();
    start_child([&] {
      eventually([&] { return getppid() != *middle_id; });
      *parent = getppid();
    });
  });
  CHECK(eventually([&] { return *parent != 0; }));
  CHECK(*parent != *middle_id);
  CHECK(*parent >= 1);
}

TEST(process_groups_and_sessions) {
  const pid_t group = getpgid(0);
  IN_CHILD([=] {
    CHECK_EQ(getpgrp(), group);
    CHECK_EQ(getsid(0), getsid(getppid()));
    SYS(setpgid(0, 0));
    CHECK_EQ(getpgrp(), getpid());
    CHECK_ERRNO(setsid(), EPERM);  // a group leader cannot
    CHECK_ERRNO(setpgid(0, -5), EINVAL);
    CHECK_ERRNO(setpgid(1, 0), ESRCH);
    CHECK_ERRNO(setpgid(0, 999'999), EPERM);
  });
  IN_CHILD([] {
    CHECK_EQ(SYS(setsid()), getpid());
    CHECK_EQ(getsid(0), getpid());
    CHECK_EQ(getpgrp(), getpid());
    CHECK_ERRNO(setpgid(0, 0), EPERM);  // a session leader stays
    CHECK_EQ(open("/dev/tty", O_RDWR), -1);
    CHECK_EQ(errno, ENXIO);
  });
  CHECK_ERRNO(getpgid(999'999), ESRCH);
}

TEST(signal_to_a_group_reaches_all) {
  auto *ready = share<volatile int>();
  const pid_t leader = start_child([&] {
    setpgid(0, 0);
    const pid_t second = start_child([&] {
      __atomic_fetch_add(ready, 1, __ATOMIC_SEQ_CST);
      pause();
    });
    __atomic_fetch_add(ready, 1, __ATOMIC_SEQ_CST);
    on_signal(SIGTERM, [](int) {});
    pause();
    const int status = wait_for(second);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  });
  CHECK(eventually([&] { return *ready == 2; }));
  sleep_ms(50);
  SYS(kill(-leader, SIGTERM));
  CHECK_EQ(wait_for(leader), 0);
  CHECK_ERRNO(kill(-leader, SIGTERM), ESRCH);
}

TEST(many_children_at_once) {
  constexpr int kChildren = 50;
  pid_t children[kChildren];
  for (int i = 0; i < kChildren; i++) {
    children[i] = start_child([i] { _exit(i); });
    REQUIRE(children[i] > 0);
  }
  int seen = 0;
  for (int i = 0; i < kChildren; i++) {
    int status;
    const pid_t got = waitpid(-1, &status, 0);
    for (int k = 0; k < kChildren; k++)
      if (children[k] == got) {
        CHECK_EQ(WEXITSTATUS(status), k);
        seen++;
      }
  }
  CHECK_EQ(seen, kChildren);
}

TEST(process_ids_are_reused_late) {
  pid_t before = 0;
  for (int i = 0; i < 10; i++) {
    const pid_t child = start_child([] { _exit(0); });
    CHECK(child != before);
    before = child;
    wait_for(child);
  }
}

TEST(clone_shares_what_it_is_told) {
  static char stack[65536];
  static volatile int value;
  value = 0;
  const int fd = make_file("file", "x");
  static int descriptor;
  descriptor = fd;
  const auto body = [](void *) {
    value = 7;
    close(descriptor);
    return 5;
  };
  const pid_t child =
      SYS(clone(body, stack + sizeof stack, CLONE_VM | CLONE_FILES | SIGCHLD, nullptr));
  CHECK_EQ(WEXITSTATUS(wait_for(child)), 5);
  CHECK_EQ(value, 7);
  CHECK_ERRNO(fcntl(fd, F_GETFD), EBADF);
}

TEST(clone_fs_shares_the_current_directory) {
  static char stack[65536];
  SYS(mkdir("dir", 0755));
  const auto body = [](void *) { return chdir("dir") == 0 ? 0 : 1; };
  pid_t child = SYS(clone(body, stack + sizeof stack, CLONE_FS | SIGCHLD, nullptr));
  CHECK_EQ(wait_for(child), 0);
  CHECK_EQ(access("../dir", F_OK), 0);
}

TEST(clone_sets_and_clears_thread_ids) {
  static char stack[65536];
  static pid_t in_parent, in_child;
  in_parent = in_child = 0;
  const auto body = [](void *) { return in_child == getpid() ? 0 : 1; };
  const pid_t child =
      SYS(clone(body, stack + sizeof stack, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD,
                nullptr, &in_parent, nullptr, &in_child));
  CHECK_EQ(in_parent, child);
  CHECK_EQ(in_child, 0);  // written in the child's memory only
  CHECK_EQ(wait_for(child), 0);
}

TEST(clone_rejects_impossible_flags) {
  CHECK_ERRNO(syscall(SYS_clone, CLONE_SIGHAND, nullptr, nullptr, nullptr, nullptr), EINVAL);
  CHECK_ERRNO(syscall(SYS_clone, CLONE_THREAD, nullptr, nullptr, nullptr, nullptr), EINVAL);
}

TEST(clone3_forks) {
  clone_args arguments = {};
  arguments.exit_signal = SIGCHLD;
  const pid_t child =
      static_cast<pid_t>(OPTIONAL(syscall(SYS_clone3, &arguments, sizeof arguments)));
  if (child == 0) _exit(6);
  CHECK_EQ(WEXITSTATUS(wait_for(child)), 6);
}

TEST(set_tid_address_gives_the_thread_id) {
  static int word;
  CHECK_EQ(syscall(SYS_set_tid_address, &word), getpid());
  CHECK_EQ(syscall(SYS_gettid), getpid());
}

TEST(children_time_is_counted) {
  IN_CHILD([] {
    rusage before{}, own{}, after{};
    SYS(getrusage(RUSAGE_CHILDREN, &before));
    run_child([] { burn_ms(120); });
    SYS(getrusage(RUSAGE_CHILDREN, &after));
    SYS(getrusage(RUSAGE_SELF, &own));
    const auto us = [](const rusage &usage) {
      return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000L + usage.ru_utime.tv_usec +
             usage.ru_stime.tv_usec;
    };
    CHECK(us(after) - us(before) > 20'000);
    CHECK(after.ru_maxrss > 0);
  });
  struct tms ticks {};
  CHECK(times(&ticks) != -1);
  CHECK(ticks.tms_cutime >= 0);
  rusage usage{};
  CHECK_ERRNO(getrusage(static_cast<__rusage_who>(55), &usage), EINVAL);
}

TEST(wait4_gives_usage) {
  const pid_t child = start_child([] { burn_ms(60); });
  rusage usage{};
  int status;
  CHECK_EQ(wait4(child, &status, 0, &usage), child);
  CHECK((usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000L + usage.ru_utime.tv_usec +
            usage.ru_stime.tv_usec >
        5'000);
}

TEST(resource_limits) {
  IN_CHILD([] {
    rlimit limit{};
    SYS(getrlimit(RLIMIT_NOFILE, &limit));
    CHECK(limit.rlim_cur >= 64 && limit.rlim_cur <= limit.rlim_max);
    limit.rlim_cur = 20;
    SYS(setrlimit(RLIMIT_NOFILE, &limit));
    CHECK_ERRNO(fcntl(0, F_DUPFD, 20), EINVAL);
    const int fd = open("/dev/null", O_RDONLY);
    CHECK(fd >= 0 && fd < 20);
    CHECK_ERRNO(dup2(fd, 20), EBADF);
    rlimit seen{};
    SYS(prlimit(0, RLIMIT_NOFILE, nullptr, &seen));
    CHECK_EQ(seen.rlim_cur, 20);
    limit.rlim_cur = limit.rlim_max + 1;
    if (limit.rlim_max != RLIM_INFINITY) CHECK_ERRNO(setrlimit(RLIMIT_NOFILE, &limit), EINVAL);
    CHECK_ERRNO(getrlimit(static_cast<__rlimit_resource>(99), &limit), EINVAL);
  });
  rlimit stack{};
  SYS(getrlimit(RLIMIT_STACK, &stack));
  CHECK(stack.rlim_cur >= 1 << 20);
}

TEST(file_size_limit_is_sigxfsz) {
  IN_CHILD([] {
    const rlimit limit{4096, 4096};
    SYS(setrlimit(RLIMIT_FSIZE, &limit));
    static char block[8192];
    const int fd = SYS(open("file", O_CREAT | O_WRONLY, 0600));
    CHECK_EQ(write(fd, block, sizeof block), 4096);
    on_signal(SIGXFSZ, SIG_IGN);
    CHECK_ERRNO(write(fd, block, 1), EFBIG);
    CHECK_EQ(death_of([&] {
               on_signal(SIGXFSZ, SIG_DFL);
               if (write(fd, block, 1) < 0) _exit(2);
             }),
             SIGXFSZ);
  });
}

TEST(prctl_name) {
  SYS(prctl(PR_SET_NAME, "a-name-that-is-too-long"));
  char name[32] = {};
  SYS(prctl(PR_GET_NAME, name));
  CHECK_STR(name, "a-name-that-is-");
  char text[64];
  read_text("/proc/self/comm", text);
  CHECK_STR(text, "a-name-that-is-\n");
}

TEST(prctl_parent_death_signal) {
  auto *got = share<volatile int>();
  IN_CHILD([&] {
    const pid_t middle = start_child([&] {
      start_child([&] {
        static volatile int *flag;
        flag = got;
        on_signal(SIGUSR1, [](int) { *flag = 1; });
        SYS(prctl(PR_SET_PDEATHSIG, SIGUSR1));
        int wanted = 0;
        SYS(prctl(PR_GET_PDEATHSIG, &wanted));
        CHECK_EQ(wanted, SIGUSR1);
        *got = -1;
        pause();
      });
      CHECK(eventually([&] { return *got == -1; }));
    });
    CHECK_EQ(wait_for(middle), 0);
  });
  CHECK(eventually([&] { return *got == 1; }));
}

TEST(prctl_flags) {
  IN_CHILD([] {
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    CHECK_ERRNO(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    CHECK_EQ(run_child([] { CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1); }), 0);
    SYS(prctl(PR_SET_DUMPABLE, 0));
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
    CHECK_ERRNO(prctl(PR_SET_DUMPABLE, 77), EINVAL);
    CHECK_ERRNO(prctl(987654, 0, 0, 0, 0), EINVAL);
  });
}

TEST(personality_can_be_read) {
  const int now = personality(0xffffffff);
  CHECK(now >= 0);
  CHECK_EQ(personality(0xffffffff), now);
}

TEST(scheduling_basics) {
  CHECK_EQ(sched_yield(), 0);
  CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
  sched_param parameter = {};
  SYS(sched_getparam(0, &parameter));
  CHECK_EQ(parameter.sched_priority, 0);
  CHECK_ERRNO(sched_getscheduler(999'999), ESRCH);
  CHECK(sched_get_priority_max(SCHED_FIFO) > sched_get_priority_min(SCHED_FIFO));
  cpu_set_t set;
  CPU_ZERO(&set);
  SYS(sched_getaffinity(0, sizeof set, &set));
  CHECK(CPU_COUNT(&set) >= 1);
  SYS(sched_setaffinity(0, sizeof set, &set));
  cpu_set_t none;
  CPU_ZERO(&none);
  CHECK_ERRNO(sched_setaffinity(0, sizeof none, &none), EINVAL);
  CHECK_ERRNO(sched_getaffinity(-1, sizeof set, &set), ESRCH);
  CHECK_ERRNO(sched_setaffinity(-1, sizeof set, &set), ESRCH);
  CHECK_ERRNO(sched_getaffinity(-1, 1, &set), EINVAL);
  unsigned cpu = 9999;
  SYS(syscall(SYS_getcpu, &cpu, nullptr, nullptr));
  CHECK(cpu < CPU_SETSIZE && CPU_ISSET(cpu, &set));
}

TEST(priorities) {
  IN_CHILD([] {
    errno = 0;
    const int before = getpriority(PRIO_PROCESS, 0);
    CHECK_EQ(errno, 0);
    SYS(setpriority(PRIO_PROCESS, 0, std::min(before + 5, 19)));
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), std::min(before + 5, 19));
    SYS(nice(3));
    CHECK_EQ(run_child([=] { CHECK_EQ(getpriority(PRIO_PROCESS, 0), std::min(before + 8, 19)); }),
             0);
    SYS(setpriority(PRIO_PROCESS, 0, 100));
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 19);
    CHECK_ERRNO(getpriority(static_cast<__priority_which>(9), 0), EINVAL);
    CHECK_ERRNO(getpriority(PRIO_PROCESS, 999'999), ESRCH);
  });
}

TEST(uname_and_hostname) {
  utsname names{};
  SYS(uname(&names));
  CHECK_STR(names.sysname, "Linux");
  CHECK_STR(names.machine, "x86_64");
  CHECK(names.nodename[0] != '\0');
  int major = 0, minor = 0;
  CHECK_EQ(sscanf(names.release, "%d.%d", &major, &minor), 2);
  CHECK(major >= 3);
}

TEST(sysinfo_is_plausible) {
  struct sysinfo info {};
  SYS(sysinfo(&info));
  CHECK(info.uptime >= 0);
  CHECK(info.totalram > 0 && info.freeram <= info.totalram);
  CHECK(info.mem_unit >= 1);
  CHECK(info.procs >= 1);
}

TEST(kill_checks_its_arguments) {
  CHECK_ERRNO(kill(getpid(), 65), EINVAL);
  CHECK_ERRNO(kill(getpid(), -1), EINVAL);
  CHECK_ERRNO(kill(999'999, SIGTERM), ESRCH);
  CHECK_EQ(kill(getpid(), 0), 0);
  CHECK_ERRNO(syscall(SYS_tgkill, getpid(), 999'999, SIGTERM), ESRCH);
  CHECK_ERRNO(syscall(SYS_tgkill, -1, getpid(), SIGTERM), EINVAL);
}

// A child that waits to be ended by a signal.
pid_t start_sleeper() {
  return start_child([] {
    for (;;) pause();
  });
}

TEST(pidfd_sends_signals_and_tells_of_the_end) {
  const pid_t child = start_sleeper();
  const int fd = static_cast<int>(OPTIONAL(syscall(SYS_pidfd_open, child, 0)));
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  pollfd poller = {fd, POLLIN, 0};
  CHECK_EQ(poll(&poller, 1, 0), 0);
  CHECK_EQ(syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0), 0);
  CHECK_ERRNO(syscall(SYS_pidfd_send_signal, fd, 65, nullptr, 0), EINVAL);
  CHECK_EQ(syscall(SYS_pidfd_send_signal, fd, SIGTERM, nullptr, 0), 0);
  CHECK_EQ(poll(&poller, 1, -1), 1);
  const int status = wait_for(child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  CHECK_ERRNO(syscall(SYS_pidfd_send_signal, fd, SIGTERM, nullptr, 0), ESRCH);
}

TEST(pidfd_send_signal_takes_a_directory_of_proc) {
  const pid_t child = start_sleeper();
  char path[64];
  snprintf(path, sizeof path, "/proc/%d", child);
  const int fd = static_cast<int>(SYS(open(path, O_RDONLY | O_DIRECTORY)));
  snprintf(path, sizeof path, "/proc/%d/task/%d", child, child);
  const int thread_fd = static_cast<int>(SYS(open(path, O_RDONLY | O_DIRECTORY)));
  CHECK_ERRNO(syscall(SYS_pidfd_send_signal, thread_fd, SIGTERM, nullptr, 0), EBADF);
  CHECK_ERRNO(syscall(SYS_pidfd_send_signal, open("/dev/null", O_RDONLY), SIGTERM, nullptr, 0),
              EBADF);
  CHECK_EQ(syscall(SYS_pidfd_send_signal, fd, SIGTERM, nullptr, 0), 0);
  const int status = wait_for(child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  CHECK_ERRNO(syscall(SYS_pidfd_send_signal, fd, SIGTERM, nullptr, 0), ESRCH);
}

TEST(unknown_calls_are_enosys) {
  CHECK_ERRNO(syscall(999), ENOSYS);
  CHECK_ERRNO(syscall(-1), ENOSYS);
  CHECK_ERRNO(syscall(0x7fffffff), ENOSYS);
}

TEST_LIMIT(fork_loop, 60) {
  for (int i = 0; i < 300; i++) {
    const int status = run_child([i] { _exit(i & 127); });
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == (i & 127));
  }
}

}  // namespace

TAP_MAIN()
