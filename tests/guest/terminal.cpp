// Terminals: termios(3), tty_ioctl(4), job control. Needs a terminal with somebody at the keyboard:
//   tests/support/on_terminal t-terminal
// which types what `type` asks for and says whether the text came that `shown` asks for.
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <string>
#include <utility>

#include "tap.hpp"

namespace {

volatile sig_atomic_t seen;
volatile sig_atomic_t last_signal;

void remember(int number) {
  seen = seen + 1;
  last_signal = number;
}

void say(const std::string &text) {
  CHECK_EQ(write(STDOUT_FILENO, text.data(), text.size()), text.size());
}

std::string hex(const std::string &bytes) {
  std::string text;
  for (const unsigned char byte : bytes) {
    char digits[3];
    snprintf(digits, sizeof digits, "%02x", byte);
    text += digits;
  }
  return text;
}

// The person types these bytes. Requests are not changed by output processing: they hold no
// newline.
void type(const std::string &bytes) { say("@type:" + hex(bytes) + "@"); }

// A terminal in canonical mode with echo, in the foreground, as a shell leaves it; restored at the
// end of the test.
class Tty {
 public:
  Tty() {
    if (!isatty(STDIN_FILENO))
      SKIP("standard input is no terminal: run it with tests/support/on_terminal");
    on_signal(SIGTTOU, SIG_IGN);
    SYS(tcsetpgrp(STDIN_FILENO, getpgrp()));
    SYS(tcgetattr(STDIN_FILENO, &start_));
    sane_ = start_;
    sane_.c_iflag = ICRNL | IXON;
    sane_.c_oflag = OPOST | ONLCR;
    sane_.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
    const cc_t control[] = {3, 28, 127, 21, 4};
    const int which[] = {VINTR, VQUIT, VERASE, VKILL, VEOF};
    for (int i = 0; i < 5; i++) sane_.c_cc[which[i]] = control[i];
    sane_.c_cc[VSUSP] = 26;
    sane_.c_cc[VWERASE] = 23;
    sane_.c_cc[VMIN] = 1;
    sane_.c_cc[VTIME] = 0;
    set(sane_);
  }
  ~Tty() { tcsetattr(STDIN_FILENO, TCSAFLUSH, &start_); }
  Tty(const Tty &) = delete;
  Tty &operator=(const Tty &) = delete;

  termios sane() const { return sane_; }
  void set(const termios &modes, int when = TCSAFLUSH) {
    SYS(tcsetattr(STDIN_FILENO, when, &modes));
  }
  void raw(cc_t minimum = 1, cc_t time = 0) {
    termios modes = sane_;
    cfmakeraw(&modes);
    modes.c_oflag = OPOST | ONLCR;
    modes.c_cc[VMIN] = minimum;
    modes.c_cc[VTIME] = time;
    set(modes);
  }
  void without_echo() {
    termios modes = sane_;
    modes.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    set(modes);
  }

 private:
  termios start_{}, sane_{};
};

std::string get(size_t limit = 4096) {
  std::string text(limit, '\0');
  const ssize_t got = read(STDIN_FILENO, text.data(), limit);
  if (!CHECK(got >= 0)) return "";
  text.resize(static_cast<size_t>(got));
  return text;
}

// Whether the person saw the text since the last `type`. Asked in canonical mode.
bool shown(const std::string &text) {
  say("@expect:" + hex(text) + "@");
  return get() == "y\n";
}

void check_line(const std::string &typed, const std::string &wanted) {
  type(typed);
  CHECK_STR(get().c_str(), wanted.c_str());
}

TEST(standard_streams_are_one_terminal) {
  Tty tty;
  CHECK(isatty(0) && isatty(1));
  struct stat status {};
  SYS(fstat(0, &status));
  CHECK(S_ISCHR(status.st_mode));
  const int fd = SYS(open("/dev/tty", O_RDWR));
  CHECK(isatty(fd));
  CHECK_EQ(tcgetsid(fd), getsid(0));
}

TEST(lines_come_whole) {
  Tty tty;
  check_line("one line\n", "one line\n");
  type("two\nthree\n");
  CHECK_STR(get().c_str(), "two\n");
  CHECK_STR(get().c_str(), "three\n");
  type("abcdef\n");
  CHECK_STR(get(2).c_str(), "ab");  // a line may be read in pieces
  CHECK_STR(get().c_str(), "cdef\n");
  check_line("carriage return\r", "carriage return\n");
  check_line("\n", "\n");
}

TEST(unfinished_line_cannot_be_read) {
  Tty tty;
  type("no newline");
  pollfd poller = {0, POLLIN, 0};
  CHECK_EQ(poll(&poller, 1, 200), 0);
  int waiting = -1;
  SYS(ioctl(0, FIONREAD, &waiting));
  CHECK_EQ(waiting, 0);
  type("\n");
  CHECK_EQ(poll(&poller, 1, 2000), 1);
  SYS(ioctl(0, FIONREAD, &waiting));
  CHECK_EQ(waiting, 11);
  CHECK_STR(get().c_str(), "no newline\n");
}

TEST(lines_can_be_edited) {
  Tty tty;
  check_line(
      "abx\x7f"
      "c\n",
      "abc\n");
  check_line(
      "\x7f\x7f"
      "nothing to erase\n",
      "nothing to erase\n");
  check_line("all wrong\x15right\n", "right\n");
  check_line("first second\x17third\n", "first third\n");
  check_line("\x16\x03literal\n", "\x03literal\n");
}

TEST(end_of_file) {
  Tty tty;
  type("\x04");
  CHECK_EQ(get().size(), 0);
  type("half\x04");
  CHECK_STR(get().c_str(), "half");
  check_line("goes on\n", "goes on\n");
}

TEST(echo_shows_what_is_typed) {
  Tty tty;
  type("visible\n");
  CHECK_STR(get().c_str(), "visible\n");
  CHECK(shown("visible\r\n"));
  type(
      "a\x01"
      "b\n");
  CHECK_STR(get().c_str(),
            "a\x01"
            "b\n");
  CHECK(shown("a^Ab"));
  type("xy\x7f\n");
  CHECK_STR(get().c_str(), "x\n");
  CHECK(shown("xy\b \b"));
}

TEST(echo_can_be_off) {
  Tty tty;
  tty.without_echo();
  type("secret\n");
  CHECK_STR(get().c_str(), "secret\n");
  say("@expect:" + hex("secret") + "@");
  CHECK_STR(get().c_str(), "n\n");
}

TEST(output_is_processed) {
  Tty tty;
  type("");
  say("line\nnext");
  CHECK(shown("line\r\nnext"));
  termios modes = tty.sane();
  modes.c_oflag &= ~static_cast<tcflag_t>(OPOST);
  tty.set(modes);
  type("");
  say("plain\nnext\r\n");
  CHECK(shown("plain\nnext"));
}

TEST(raw_mode_gives_every_byte) {
  Tty tty;
  tty.raw();
  std::string all;
  for (int byte = 0; byte < 256; byte++) all += static_cast<char>(byte);
  type(all);
  std::string got;
  while (got.size() < all.size()) {
    const std::string part = get();
    REQUIRE(!part.empty());
    got += part;
  }
  CHECK(got == all);
}

TEST(minimum_and_time) {
  Tty tty;
  tty.raw(0, 0);
  CHECK_EQ(get().size(), 0);  // nothing there: at once
  tty.raw(0, 2);
  uint64_t start = now_ns();
  CHECK_EQ(get().size(), 0);
  CHECK(now_ns() - start >= 190'000'000);
  tty.raw(3, 0);
  type("abc");
  CHECK_STR(get().c_str(), "abc");
  tty.raw(5, 2);
  start = now_ns();
  type("xy");
  CHECK_STR(get().c_str(), "xy");  // the time between bytes is over
  CHECK(now_ns() - start >= 190'000'000);
}

TEST(nonblocking_read) {
  Tty tty;
  const int flags = SYS(fcntl(0, F_GETFL));
  const int fd = SYS(open("/dev/tty", O_RDWR | O_NONBLOCK));
  char byte;
  CHECK_ERRNO(read(fd, &byte, 1), EAGAIN);
  CHECK_EQ(fcntl(0, F_GETFL), flags);
}

TEST(control_characters_send_signals) {
  Tty tty;
  const std::pair<const char *, int> keys[] = {
      {"\x03", SIGINT}, {"\x1c", SIGQUIT}, {"\x1a", SIGTSTP}};
  for (const auto &[key, number] : keys) {
    seen = 0;
    on_signal(number, remember);
    type(key);
    CHECK(eventually([] { return seen == 1; }));
    CHECK_EQ(last_signal, number);
  }
  type("dropped\x03");  // the signal throws the unfinished line away
  CHECK(eventually([] { return seen == 2; }));
  check_line("kept\n", "kept\n");
  termios modes = tty.sane();
  modes.c_lflag &= ~static_cast<tcflag_t>(ISIG);
  tty.set(modes);
  check_line("\x03\n", "\x03\n");
}

TEST(interrupted_read) {
  Tty tty;
  on_signal(SIGINT, remember);
  type("\x03");
  char byte;
  if (seen == 0) CHECK_ERRNO(read(0, &byte, 1), EINTR);
  CHECK_EQ(seen, 1);
}

TEST(only_the_foreground_group_gets_signals) {
  Tty tty;
  on_signal(SIGINT, SIG_IGN);
  const pid_t child = start_child([] {
    SYS(setpgid(0, 0));
    on_signal(SIGINT, SIG_DFL);
    sleep_ms(600);
    _exit(7);
  });
  setpgid(child, child);
  type("\x03");
  CHECK_EQ(WEXITSTATUS(wait_for(child)), 7);
  const pid_t front = start_child([] {
    SYS(setpgid(0, 0));
    on_signal(SIGINT, SIG_DFL);
    SYS(tcsetpgrp(0, getpgrp()));
    CHECK_EQ(tcgetpgrp(0), getpgrp());
    type("\x03");
    for (;;) pause();
  });
  const int status = wait_for(front);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
  SYS(tcsetpgrp(0, getpgrp()));
}

TEST(background_reader_is_stopped) {
  Tty tty;
  const pid_t child = start_child([] {
    setpgid(0, 0);
    char byte;
    (void)!read(0, &byte, 1);
  });
  setpgid(child, child);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTIN);
  kill(child, SIGKILL);
  wait_for(child);
  const pid_t ignoring = start_child([] {
    setpgid(0, 0);
    on_signal(SIGTTIN, SIG_IGN);
    char byte;
    CHECK_ERRNO(read(0, &byte, 1), EIO);
  });
  setpgid(ignoring, ignoring);
  CHECK_EQ(wait_for(ignoring), 0);
}

TEST(background_writer_with_tostop_is_stopped) {
  Tty tty;
  termios modes = tty.sane();
  modes.c_lflag |= TOSTOP;
  tty.set(modes);
  const pid_t child = start_child([] {
    setpgid(0, 0);
    on_signal(SIGTTOU, SIG_DFL);
    (void)!write(1, "background\n", 11);
  });
  setpgid(child, child);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTOU);
  kill(child, SIGKILL);
  wait_for(child);
}

TEST(background_cannot_take_the_terminal) {
  Tty tty;
  const pid_t child = start_child([] {
    setpgid(0, 0);
    on_signal(SIGTTOU, SIG_DFL);
    tcsetpgrp(0, getpgrp());
  });
  setpgid(child, child);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTOU);
  kill(child, SIGKILL);
  wait_for(child);
  CHECK_EQ(tcgetpgrp(0), getpgrp());
  CHECK_ERRNO(tcsetpgrp(0, 999'999), ESRCH);
  CHECK_ERRNO(tcsetpgrp(0, -5), EINVAL);
}

TEST(suspended_and_resumed) {
  Tty tty;
  const pid_t child = start_child([] {
    SYS(setpgid(0, 0));
    SYS(tcsetpgrp(0, getpgrp()));
    on_signal(SIGTSTP, SIG_DFL);
    type("\x1a");
    sleep_ms(300);
    _exit(9);
  });
  setpgid(child, child);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP);
  SYS(tcsetpgrp(0, getpgrp()));
  kill(-child, SIGCONT);
  CHECK_EQ(WEXITSTATUS(wait_for(child)), 9);
}

TEST(window_size) {
  Tty tty;
  on_signal(SIGWINCH, remember);
  say("@size:33x101@");
  CHECK(eventually([] { return seen >= 1; }));
  winsize size{};
  SYS(ioctl(0, TIOCGWINSZ, &size));
  CHECK_EQ(size.ws_row, 33);
  CHECK_EQ(size.ws_col, 101);
  size.ws_row = 20;
  SYS(ioctl(0, TIOCSWINSZ, &size));
  SYS(ioctl(0, TIOCGWINSZ, &size));
  CHECK_EQ(size.ws_row, 20);
  say("@size:24x80@");
  CHECK(eventually([] {
    winsize now{};
    ioctl(0, TIOCGWINSZ, &now);
    return now.ws_row == 24 && now.ws_col == 80;
  }));
}

TEST(attributes_are_kept_as_set) {
  Tty tty;
  termios modes = tty.sane();
  modes.c_lflag &= ~static_cast<tcflag_t>(ECHOE | ECHOK);
  modes.c_iflag |= IGNBRK;
  modes.c_cc[VINTR] = 7;
  tty.set(modes, TCSANOW);
  termios now{};
  SYS(tcgetattr(0, &now));
  CHECK_EQ(now.c_lflag, modes.c_lflag);
  CHECK_EQ(now.c_iflag, modes.c_iflag);
  CHECK_EQ(now.c_cc[VINTR], 7);
  tty.set(modes, TCSADRAIN);
  on_signal(SIGINT, remember);
  type("\x07");
  CHECK(eventually([] { return seen == 1; }));
}

TEST(flush_throws_input_away) {
  Tty tty;
  tty.without_echo();
  type("lost\n");
  pollfd poller = {0, POLLIN, 0};
  CHECK_EQ(poll(&poller, 1, 2000), 1);
  SYS(tcflush(0, TCIFLUSH));
  CHECK_EQ(poll(&poller, 1, 0), 0);
  type("lost again\n");
  CHECK_EQ(poll(&poller, 1, 2000), 1);
  tty.set(tty.sane(), TCSAFLUSH);
  check_line("kept\n", "kept\n");
}

TEST(controlling_terminal_can_be_left) {
  Tty tty;
  IN_CHILD([] {
    SYS(setsid());
    CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
    CHECK_ERRNO(tcgetpgrp(0), ENOTTY);
    CHECK_ERRNO(ioctl(0, TIOCGSID, nullptr), ENOTTY);
  });
}

TEST(long_lines_are_cut) {
  Tty tty;
  tty.without_echo();
  type(std::string(4095, 'x') + "\n");
  const std::string line = get(8192);
  CHECK_EQ(line.size(), 4096);
  CHECK_EQ(line.back(), '\n');
}

}  // namespace

TAP_MAIN()
