// Terminals that are hung up: pty(7), vhangup(2), "Controlling terminal" of credentials(7) and
// setsid(2). The terminals are pseudoterminals that the tests make.
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <string>

#include "tap.hpp"

namespace {

int report_fd = -1;

void say(char letter) { CHECK_EQ(write(report_fd, &letter, 1), 1); }
volatile sig_atomic_t signals_seen;

void on_leader_hangup(int) {
  say('H');
  signals_seen = signals_seen + 1;
}
void on_leader_continue(int) {
  say('C');
  signals_seen = signals_seen + 1;
}
void on_job_hangup(int) { say('h'); }

// A pseudoterminal, and a pipe by which its session tells what happens.
struct Terminal {
  Terminal() {
    SYS(openpty(&master, &slave, name, nullptr, nullptr));
    SYS(pipe(pipe_ends));
  }
  // In a child: the leader of a session on the terminal.
  void lead_session() {
    SYS(close(master));
    SYS(close(pipe_ends[0]));
    report_fd = pipe_ends[1];
    SYS(setsid());
    SYS(ioctl(slave, TIOCSCTTY, 0));
    on_signal(SIGHUP, on_leader_hangup);
    on_signal(SIGCONT, on_leader_continue);
  }
  void parent() {
    SYS(close(slave));
    SYS(close(pipe_ends[1]));
  }
  // The next report; '.' at the end.
  char next() const {
    pollfd poller{pipe_ends[0], POLLIN, 0};
    if (!CHECK_EQ(poll(&poller, 1, 20000), 1)) return '?';
    char letter = '.';
    SYS(read(pipe_ends[0], &letter, 1));
    return letter;
  }
  std::string next(int count) const {
    std::string letters;
    for (int i = 0; i < count; i++) letters += next();
    return letters;
  }

  int master = -1, slave = -1;
  int pipe_ends[2] = {-1, -1};
  char name[64];
};

// A job in the foreground that tells of its SIGHUP and ends.
pid_t start_job(int terminal) {
  const pid_t job = start_child([] {
    SYS(setpgid(0, 0));
    on_signal(SIGHUP, on_job_hangup);
    on_signal(SIGCONT, SIG_DFL);
    say('j');
    pause();
  });
  setpgid(job, job);
  on_signal(SIGTTOU, SIG_IGN);
  SYS(tcsetpgrp(terminal, job));
  return job;
}

void check_dead(int fd) {
  char byte;
  CHECK_EQ(read(fd, &byte, 1), 0);
  CHECK_ERRNO(write(fd, "x", 1), EIO);
  termios modes;
  CHECK_ERRNO(tcgetattr(fd, &modes), EIO);
  CHECK_ERRNO(tcsetpgrp(fd, getpgrp()), ENOTTY);
  pollfd poller{fd, POLLIN | POLLOUT, 0};
  CHECK_EQ(poll(&poller, 1, 0), 1);
  CHECK_EQ(poller.revents, POLLIN | POLLOUT | POLLERR | POLLHUP);
  CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
}

void check_child(pid_t child) { CHECK_EQ(wait_for(child), 0); }

TEST(closed_master_hangs_the_session_up) {
  Terminal terminal;
  const pid_t leader = start_child([&] {
    terminal.lead_session();
    start_job(terminal.slave);
    say('r');
    CHECK(eventually([] { return signals_seen == 2; }));
    check_dead(terminal.slave);
    // The job hears of it when the leader ends, as it is the leader that has lost its terminal.
    sleep_ms(200);
    say('x');
  });
  terminal.parent();
  std::string ready = terminal.next(2);
  CHECK(ready == "jr" || ready == "rj");
  SYS(close(terminal.master));
  const std::string told = terminal.next(2);
  CHECK(told == "HC" || told == "CH");
  CHECK_EQ(terminal.next(), 'x');
  CHECK_EQ(terminal.next(), 'h');
  CHECK_EQ(terminal.next(), '.');
  check_child(leader);
}

TEST(end_of_the_leader_is_told_to_the_foreground) {
  Terminal terminal;
  int go[2];
  SYS(pipe(go));
  const pid_t leader = start_child([&] {
    SYS(close(go[1]));
    terminal.lead_session();
    start_job(terminal.slave);
    char byte;
    CHECK_EQ(read(go[0], &byte, 1), 0);
  });
  terminal.parent();
  CHECK_EQ(terminal.next(), 'j');
  SYS(close(go[1]));
  CHECK_EQ(terminal.next(), 'h');
  check_child(leader);
  SYS(close(terminal.master));
}

TEST(vhangup_kills_descriptors_and_the_terminal_goes_on) {
  need_root();
  Terminal terminal;
  const pid_t leader = start_child([&] {
    terminal.lead_session();
    const int other = SYS(open("/dev/tty", O_RDWR));
    CHECK_EQ(syscall(SYS_vhangup), 0);
    check_dead(terminal.slave);
    check_dead(other);
    // As login and getty do: the terminal is opened anew, and is the session's again.
    const int fd = SYS(open(terminal.name, O_RDWR));
    SYS(close(SYS(open("/dev/tty", O_RDWR))));
    CHECK_EQ(tcgetsid(fd), getpid());
    SYS(write(fd, "again\n", 6));
    char line[16]{};
    CHECK_EQ(read(fd, line, sizeof line), 6);
    CHECK_STR(line, "typed\n");
    say('x');
  });
  SYS(close(terminal.pipe_ends[1]));
  const std::string told = terminal.next(2);
  CHECK(told == "HC" || told == "CH");
  std::string seen;
  while (seen.find("again\r\n") == std::string::npos) {
    pollfd poller{terminal.master, POLLIN, 0};
    REQUIRE(poll(&poller, 1, 20000) == 1);
    char bytes[100];
    const ssize_t got = read(terminal.master, bytes, sizeof bytes);
    REQUIRE(got > 0);
    seen.append(bytes, static_cast<size_t>(got));
  }
  SYS(write(terminal.master, "typed\n", 6));
  CHECK_EQ(terminal.next(), 'x');
  check_child(leader);
  // The parent's descriptor of it was of before.
  CHECK_ERRNO(write(terminal.slave, "x", 1), EIO);
}

TEST(vhangup_without_a_terminal_is_nothing) {
  need_root();
  check_child(start_child([] {
    SYS(setsid());
    CHECK_EQ(syscall(SYS_vhangup), 0);
  }));
}

TEST(vhangup_needs_the_right) {
  need_root();
  check_child(start_child([] {
    SYS(setsid());
    SYS(setresuid(65534, 65534, 65534));
    CHECK_ERRNO(syscall(SYS_vhangup), EPERM);
  }));
}

TEST(blocked_reader_and_writer_are_released) {
  for (const bool writes : {false, true}) {
    Terminal terminal;
    const pid_t child = start_child([&] {
      terminal.lead_session();
      on_signal(SIGHUP, SIG_IGN);
      on_signal(SIGCONT, SIG_IGN);
      say('r');
      if (writes) {
        char block[4096] = {};
        ssize_t wrote;
        while ((wrote = write(terminal.slave, block, sizeof block)) > 0) continue;
        CHECK_EQ(wrote, -1);
        CHECK_EQ(errno, EIO);
      } else {
        char byte;
        const ssize_t got = read(terminal.slave, &byte, 1);
        CHECK(got == 0 || (got == -1 && errno == EIO));
      }
    });
    terminal.parent();
    CHECK_EQ(terminal.next(), 'r');
    sleep_ms(100);
    SYS(close(terminal.master));
    check_child(child);
  }
}

}  // namespace

TAP_MAIN()
