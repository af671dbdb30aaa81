#include "cli/console_client.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ostream.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "base/end_signal_set.hpp"
#include "base/unique_fd.hpp"
#include "tty/console_protocol.hpp"

namespace cowbird::cli {

namespace {

namespace wire = console_protocol;

// Output that the caller's terminal has not taken yet. The guest does not wait for a slow client,
// so the client reads on until this much is waiting.
constexpr std::size_t kMaxWaiting = 64ul * 1024 * 1024;
// Typed bytes that the guest has not taken; standard input waits beyond that.
constexpr std::size_t kMaxTyped = 64ul * 1024;

// A guest that has not answered by then hangs, or its host is busy; a person is told.
constexpr int kSilenceMs = 2000;

// The signals that end or interest the client; it waits for them beside its descriptors.
class SignalSource {
 public:
  SignalSource() {
    sigset_t set = end_signal_set();
    // Those for a standard output or error that takes nothing, too: the terminal is to be put
    // right.
    for (const int s : {SIGPIPE, SIGXFSZ, SIGWINCH, SIGCONT}) ::sigaddset(&set, s);
    ::sigprocmask(SIG_BLOCK, &set, &old_);
    fd_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~SignalSource() { leave(); }
  // Signals do again what they did before.
  void leave() { ::sigprocmask(SIG_SETMASK, &old_, nullptr); }
  SignalSource(const SignalSource &) = delete;
  SignalSource &operator=(const SignalSource &) = delete;

  int fd() const { return fd_.get(); }
  // 0: none is waiting.
  int next() {
    signalfd_siginfo info{};
    return ::read(fd_.get(), &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo)
                                                                : 0;
  }

 private:
  sigset_t old_{};
  UniqueFd fd_;
};

// The caller's terminal in raw mode, when standard input is one. For one who only watches it passes
// output on as it is and keeps its keys for signals.
class RawTerminal {
 public:
  RawTerminal(bool wanted, bool read_only) : read_only_(read_only) {
    if (!wanted || ::tcgetattr(STDIN_FILENO, &saved_) != 0) return;
    is_raw_ = true;
    enter();
  }
  ~RawTerminal() { leave(); }
  RawTerminal(const RawTerminal &) = delete;
  RawTerminal &operator=(const RawTerminal &) = delete;

  // Also after the shell has set modes of its own while the client was stopped.
  void enter() {
    if (!is_raw_) return;
    termios raw = saved_;
    if (read_only_) {
      raw.c_oflag &= ~static_cast<tcflag_t>(OPOST);
      raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON);
    } else {
      ::cfmakeraw(&raw);
    }
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  // Waits for nothing (TCSANOW): a serial terminal may never send what it holds.
  void leave() {
    if (!std::exchange(is_raw_, false)) return;
    // What was typed at one who only watches is nobody's.
    if (read_only_) ::tcflush(STDIN_FILENO, TCIFLUSH);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &saved_);
  }

 private:
  termios saved_{};
  bool read_only_;
  bool is_raw_ = false;
};

wire::WindowSize window_of(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0) return {};
  return {size.ws_row, size.ws_col};
}

UniqueFd connect_to(const std::filesystem::path &path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return {};
  }
  std::ranges::copy(path.native(), address.sun_path);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid() ||
      ::connect(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0) {
    return {};
  }
  return fd;
}

// Standard output without blocking, where the host can open it once more; its other users keep the
// mode that they know.
UniqueFd own_output() {
  return UniqueFd(
      ::open("/proc/self/fd/1", O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

class Session {
 public:
  Session(const ConsoleTarget &target, UniqueFd socket, std::ostream &err)
      : target_(target), socket_(std::move(socket)), err_(err), filter_(target.escape) {}

  int run();

 private:
  enum class Outcome { Running, Done, Lost };

  void wait();
  void on_signal();
  void on_socket();
  void on_frame(const wire::Frame &frame);
  void on_input();
  void write_output();
  void show_the_rest();
  void send_typed();
  void send_window();
  void say(const std::string &line);
  std::string how_to_leave() const;
  void finish(Outcome outcome, const std::string &line);

  const ConsoleTarget &target_;
  UniqueFd socket_;
  std::ostream &err_;
  SignalSource signals_;
  const bool terminal_ = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
  RawTerminal raw_{terminal_, target_.read_only};
  UniqueFd output_ = own_output();
  int out_ = output_.valid() ? output_.get() : STDOUT_FILENO;
  wire::FrameReader reader_;
  EscapeFilter filter_;
  std::vector<std::byte> waiting_;   // for standard output
  std::size_t written_ = 0;          // of it
  std::vector<std::byte> to_guest_;  // frames
  std::size_t sent_ = 0;             // of them
  bool welcome_ = false;
  bool told_to_wait_ = false;
  bool window_waits_ = false;
  bool input_ended_ = false;
  bool detaching_ = false;  // as soon as what was typed has been sent
  Outcome outcome_ = Outcome::Running;
  std::string last_words_;
  int deadly_signal_ = 0;
};

int Session::run() {
  wire::Hello hello;
  hello.read_only = target_.read_only;
  hello.device = target_.device;
  if (terminal_) hello.window = window_of(STDOUT_FILENO);
  wire::append_hello(to_guest_, hello);
  send_typed();
  while (outcome_ == Outcome::Running) {
    wait();
    if (detaching_ && to_guest_.empty()) finish(Outcome::Done, "");
  }
  show_the_rest();
  // A terminal that takes nothing may keep us from here on, but a signal ends that.
  raw_.leave();
  signals_.leave();
  if (deadly_signal_ == 0 && !last_words_.empty()) say(last_words_);
  return outcome_ == Outcome::Lost ? 1 : deadly_signal_ != 0 ? 128 + deadly_signal_ : 0;
}

// What came before the end is shown, by waiting if need be, until a signal says otherwise.
void Session::show_the_rest() {
  while (deadly_signal_ == 0 && written_ < waiting_.size()) {
    std::array<pollfd, 2> fds{{{signals_.fd(), POLLIN, 0}, {out_, POLLOUT, 0}}};
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return;
    if (fds[0].revents) on_signal();
    if (fds[1].revents) write_output();
  }
}

void Session::say(const std::string &line) {
  // In raw mode a line's end does not begin the next one.
  fmt::print(err_, "{}{}{}", terminal_ ? "\r\n" : "", line, terminal_ ? "\r\n" : "\n");
  err_.flush();
}

std::string Session::how_to_leave() const {
  if (target_.read_only) return "ctrl-c ends it";
  if (!target_.escape.key) return "there is no key to leave it";
  return fmt::format("{} d leaves it", target_.escape.name());
}

void Session::finish(Outcome outcome, const std::string &line) {
  if (outcome_ != Outcome::Running) return;
  outcome_ = outcome;
  last_words_ = line;
}

void Session::wait() {
  // A person can leave a guest that does not answer, as one that hangs does not. What a pipe holds
  // is for a guest that has answered.
  const bool reads_input = (welcome_ || terminal_) && !target_.read_only && !input_ended_ &&
                           to_guest_.size() < kMaxTyped;
  const bool writes = written_ < waiting_.size();
  const bool reads_guest = waiting_.size() - written_ < kMaxWaiting;
  std::array<pollfd, 4> fds{{
      {signals_.fd(), POLLIN, 0},
      {socket_.get(),
       static_cast<short>((reads_guest ? POLLIN : 0) | (to_guest_.empty() ? 0 : POLLOUT)), 0},
      {reads_input ? STDIN_FILENO : -1, POLLIN, 0},
      {writes ? out_ : -1, POLLOUT, 0},
  }};
  const bool may_tell = terminal_ && !welcome_ && !told_to_wait_;
  const int ready = ::poll(fds.data(), fds.size(), may_tell ? kSilenceMs : -1);
  if (ready < 0 && errno != EINTR) {
    return finish(Outcome::Lost,
                  fmt::format("The terminal cannot be waited for: {}.", std::strerror(errno)));
  }
  if (ready == 0) {
    told_to_wait_ = true;
    say(fmt::format("{} has not answered yet; {}.", target_.guest, how_to_leave()));
  }
  if (ready <= 0) return;
  if (fds[0].revents) on_signal();
  if (fds[1].revents & POLLOUT) send_typed();
  if (fds[2].revents) on_input();
  if (fds[1].revents & (POLLIN | POLLHUP | POLLERR)) on_socket();
  if (fds[3].revents) write_output();
}

void Session::on_signal() {
  while (const int signal = signals_.next()) {
    if (signal == SIGWINCH) {
      send_window();
    } else if (signal == SIGCONT) {
      raw_.enter();
    } else {
      // For one who only watches it is the way out.
      const bool way_out = target_.read_only && signal == SIGINT;
      if (!way_out || outcome_ != Outcome::Running) deadly_signal_ = signal;
      finish(Outcome::Done, "");
    }
  }
}

void Session::send_window() {
  if (!terminal_ || target_.read_only) return;
  if (!welcome_) {
    window_waits_ = true;  // the greeting had the old size
    return;
  }
  wire::append_window(to_guest_, window_of(STDOUT_FILENO));
  send_typed();
}

void Session::on_socket() {
  std::array<std::byte, 65536> buffer;
  const auto got = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    return finish(welcome_ ? Outcome::Done : Outcome::Lost,
                  fmt::format("The guest {} is gone.", target_.guest));
  }
  reader_.feed(std::span(buffer).first(static_cast<std::size_t>(got)));
  while (outcome_ == Outcome::Running) {
    const auto frame = reader_.next();
    if (!frame) break;
    on_frame(*frame);
  }
  if (reader_.bad()) finish(Outcome::Lost, "The guest does not speak the protocol of a console.");
  if (written_ < waiting_.size()) write_output();
}

void Session::on_frame(const wire::Frame &frame) {
  switch (frame.type) {
    case wire::FrameType::Welcome: {
      const auto welcome = wire::parse_welcome(frame.payload);
      if (!welcome) return finish(Outcome::Lost, "The guest's greeting cannot be understood.");
      welcome_ = true;
      if (std::exchange(window_waits_, false)) send_window();
      if (!terminal_) return;
      say(fmt::format("This is {} of {}; {}.{}", welcome->device, welcome->guest, how_to_leave(),
                      welcome->unopened ? " The guest has not opened it yet." : ""));
      return;
    }
    case wire::FrameType::Data:
      waiting_.insert(waiting_.end(), frame.payload.begin(), frame.payload.end());
      return;
    case wire::FrameType::Refused:
    case wire::FrameType::Dropped:
      return finish(Outcome::Lost, wire::text_of(frame.payload));
    case wire::FrameType::HangUp:
      return finish(Outcome::Done, wire::text_of(frame.payload));
    default:
      return finish(Outcome::Lost, "The guest does not speak the protocol of a console.");
  }
}

void Session::on_input() {
  std::array<std::byte, 4096> buffer;
  const auto got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    input_ended_ = true;
    detaching_ = true;
    return;
  }
  auto rest = std::span<const std::byte>(buffer).first(static_cast<std::size_t>(got));
  while (!rest.empty() && !detaching_) {
    std::vector<std::byte> typed;
    // Only a person at a terminal has an escape key; in a pipe every byte is the guest's.
    EscapeAction action = EscapeAction::None;
    if (terminal_) {
      action = filter_.filter(rest, typed);
    } else {
      typed.assign(rest.begin(), rest.end());
      rest = {};
    }
    wire::append_data(to_guest_, typed);
    if (action == EscapeAction::Detach) {
      detaching_ = true;
    } else if (action == EscapeAction::Help) {
      const auto key = target_.escape.name();
      say(fmt::format("{} d or {} . leaves the console, {} {} types {}.", key, key, key, key, key));
    }
  }
  send_typed();
}

void Session::send_typed() {
  while (sent_ < to_guest_.size()) {
    const auto sent = ::send(socket_.get(), to_guest_.data() + sent_, to_guest_.size() - sent_,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return;  // full, or gone, which reading finds out
    sent_ += static_cast<std::size_t>(sent);
  }
  to_guest_.clear();
  sent_ = 0;
}

void Session::write_output() {
  const auto put = ::write(out_, waiting_.data() + written_, waiting_.size() - written_);
  if (put < 0) {
    if (errno == EAGAIN || errno == EINTR) return;
    waiting_.clear();
    written_ = 0;
    return finish(Outcome::Lost,
                  fmt::format("Standard output cannot be written: {}.", std::strerror(errno)));
  }
  written_ += static_cast<std::size_t>(put);
  if (written_ == waiting_.size()) {
    waiting_.clear();
    written_ = 0;
  } else if (written_ > kMaxWaiting / 64) {
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(written_));
    written_ = 0;
  }
}

}  // namespace

int attach_console(const ConsoleTarget &target, std::ostream &err) {
  const auto path = target.directory / "console";
  auto socket = connect_to(path);
  if (!socket.valid()) {
    fmt::print(err, "The consoles of {} cannot be reached at {}: {}.\n", target.guest,
               path.string(), std::strerror(errno));
    return 1;
  }
  return Session(target, std::move(socket), err).run();
}

}  // namespace cowbird::cli
