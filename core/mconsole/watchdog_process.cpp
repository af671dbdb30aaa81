#include "mconsole/watchdog_process.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include "base/host_process.hpp"
#include "base/unique_fd.hpp"
#include "mconsole/protocol.hpp"

namespace cowbird::mconsole {

namespace {

using std::chrono::steady_clock;
constexpr std::chrono::seconds kGrace{5};  // between SIGTERM and SIGKILL

std::optional<unsigned> parse_number(const std::string &text) {
  unsigned number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || stop != text.data() + text.size() || number == 0) return std::nullopt;
  return number;
}

class Watchdog {
 public:
  Watchdog(pid_t pid, UniqueFd process, unsigned seconds, std::string socket)
      : pid_(pid), process_(std::move(process)), seconds_(seconds), socket_(std::move(socket)) {}

  int run() {
    restart();
    for (;;) {
      pollfd fd{STDIN_FILENO, POLLIN, 0};
      const int ready = ::poll(&fd, 1, paused_ ? -1 : std::min(left_ms(), look_ms()));
      if (ready < 0 && errno != EINTR) return 1;
      if (ready > 0 && !hear()) return 0;
      if (!paused_ && host_process_tracer(pid_) != 0) restart();
      if (!paused_ && steady_clock::now() >= end_) {
        act();
        return 1;
      }
    }
  }

 private:
  void restart() { end_ = steady_clock::now() + std::chrono::seconds(seconds_); }
  int left_ms() const {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - steady_clock::now());
    return left.count() < 0 ? 0 : static_cast<int>(left.count());
  }

  // So often it looks for a debugger, which may have the guest stand still.
  int look_ms() const { return static_cast<int>(std::min(seconds_, 4u)) * 250; }

  // False when nobody can be heard any more.
  bool hear() {
    char bytes[256];
    const ssize_t got = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (got < 0) return errno == EINTR || errno == EAGAIN;
    for (ssize_t i = 0; i < got; ++i) take(bytes[i]);
    return got > 0;
  }

  void take(char byte) {
    if (number_left_ > 0) {
      number_[sizeof number_ - number_left_--] = byte;
      if (number_left_ > 0) return;
      std::uint32_t seconds = 0;
      std::memcpy(&seconds, number_, sizeof seconds);
      if (seconds >= 1 && seconds <= kMaxWatchdogSeconds) seconds_ = seconds;
    } else if (byte == kWatchdogTimeout) {
      number_left_ = sizeof number_;
      return;
    } else if (byte == kWatchdogPause) {
      paused_ = true;
    } else if (byte == kWatchdogResume) {
      paused_ = false;
    }
    restart();
  }

  bool tell() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket_.empty() || socket_.size() >= sizeof address.sun_path) return false;
    std::memcpy(address.sun_path, socket_.c_str(), socket_.size());
    NotifyPacket packet;
    const std::size_t length =
        encode_notify(packet, NotifyKind::Hang,
                      fmt::format("process {}: no word to the watchdog for {} s", pid_, seconds_));
    const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return fd.valid() &&
           ::sendto(fd.get(), &packet, length, MSG_NOSIGNAL | MSG_DONTWAIT,
                    reinterpret_cast<const sockaddr *>(&address), sizeof address) >= 0;
  }

  void act() {
    if (tell()) return;
    std::fprintf(stderr,
                 "cowbird: the guest (process %d) has not said a word to its watchdog for "
                 "%u s, and is ended\n",
                 pid_, seconds_);
    ::syscall(SYS_pidfd_send_signal, process_.get(), SIGTERM, nullptr, 0);
    pollfd fd{process_.get(), POLLIN, 0};
    const auto grace = std::chrono::milliseconds(kGrace).count();
    if (::poll(&fd, 1, static_cast<int>(grace)) == 0) {
      ::syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0);
    }
  }

  const pid_t pid_;
  const UniqueFd process_;
  unsigned seconds_;
  const std::string socket_;
  steady_clock::time_point end_;
  bool paused_ = false;
  char number_[4] = {};
  std::size_t number_left_ = 0;
};

}  // namespace

int run_watchdog_process(const std::vector<std::string> &arguments) {
  const auto usage = [] {
    std::fputs("This is a part of /dev/watchdog; the guest starts it.\n", stderr);
    return 2;
  };
  if (arguments.size() < 2 || arguments.size() > 3) return usage();
  const auto pid = parse_number(arguments[0]);
  const auto seconds = parse_number(arguments[1]);
  if (!pid || !seconds || *seconds > kMaxWatchdogSeconds) return usage();
  // What ends the terminal's programs must not end the one that looks after the guest.
  for (const int s : {SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE}) ::signal(s, SIG_IGN);
  ::prctl(PR_SET_NAME, "cowbird-watchdog");
  const auto id = static_cast<pid_t>(*pid);
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, id, 0)));
  if (!process.valid() || ::getppid() != id) return 0;  // gone already
  if (::write(STDOUT_FILENO, "\n", 1) != 1) return 0;
  ::close(STDOUT_FILENO);
  return Watchdog(id, std::move(process), *seconds, arguments.size() > 2 ? arguments[2] : "").run();
}

}  // namespace cowbird::mconsole
