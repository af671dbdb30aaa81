// The channel `fd`: a console on file descriptors that the program inherited, mostly the caller's
// terminal.
#include <fcntl.h>

#include <climits>
#include <cowbird/channel.hpp>
#include <csignal>

#include "common/readiness.hpp"
#include "common/terminal.hpp"
#include "common/window_watch.hpp"
#include "endpoint.hpp"

namespace {

using channels::Readiness;
using cowbird::sdk::Channel;
using cowbird::sdk::Config;
using cowbird::sdk::Host;
using cowbird::sdk::Watch;

class FdChannel final : public Channel {
 public:
  FdChannel(const Host &host, const Config &config)
      : Channel(host),
        input_fd_(static_cast<int>(*config.integer("input"))),
        output_fd_(static_cast<int>(*config.integer("output"))) {
    if (input_fd_ >= 0) check_descriptor(input_fd_, O_RDONLY, "input");
    if (output_fd_ >= 0) check_descriptor(output_fd_, O_WRONLY, "output");
  }
  ~FdChannel() override { close_all(); }

  void open() override;
  void close() noexcept override { close_all(); }
  std::int64_t read(std::span<std::byte> buffer) override;
  std::int64_t write(std::span<const std::byte> data) override;
  std::optional<cowbird_window> window() override;
  int set_raw(bool raw) override { return terminal_.set_raw(raw); }
  std::string describe() override;
  void emergency_restore() noexcept override {
    terminal_.restore();
    output_.restore();
    input_.restore();
  }

 private:
  void close_all() noexcept;
  void take_terminal();
  void watch_terminal();
  std::int64_t read_in_background(std::span<std::byte> buffer);
  // Owes the host a notice when the event comes; -EAGAIN, or the error when the descriptor cannot
  // be watched.
  static std::int64_t owe(Readiness &readiness, std::uint32_t event) {
    return readiness.want(event) == 0 ? -EAGAIN : -EIO;
  }

  const int input_fd_;
  const int output_fd_;
  Endpoint input_;
  Endpoint output_;
  channels::Terminal terminal_;
  Readiness input_ready_{host()};
  Readiness output_ready_{host()};
  Watch window_watch_;
  Watch continued_watch_;
};

void FdChannel::open() {
  try {
    if (input_fd_ >= 0) {
      input_.open(input_fd_, O_RDONLY);
      input_ready_.attach(input_.fd(), [this](std::uint32_t) { notify(COWBIRD_CHANNEL_READABLE); });
    }
    if (output_fd_ >= 0) {
      output_.open(output_fd_, O_WRONLY);
      output_ready_.attach(output_.fd(),
                           [this](std::uint32_t) { notify(COWBIRD_CHANNEL_WRITABLE); });
    }
    if (input_.is_terminal()) {
      terminal_.open(input_.fd());
      take_terminal();
    }
    watch_terminal();
  } catch (...) {
    close_all();
    throw;
  }
}

void FdChannel::take_terminal() {
  if (terminal_.in_background()) return terminal_.set_raw_later();
  if (const int status = terminal_.set_raw(true); status != 0) {
    cowbird::sdk::throw_errno("The host terminal cannot be put in raw mode", -status);
  }
}

void FdChannel::watch_terminal() {
  if (!input_.is_terminal() && !output_.is_terminal()) return;
  const auto resized = [this] { notify(COWBIRD_CHANNEL_WINDOW); };
  const auto continued = [this] {
    terminal_.set_again();
    notify(COWBIRD_CHANNEL_WINDOW);
  };
  int status = host().watch_signal(window_watch_, COWBIRD_SIGNAL_WINDOW, resized);
  if (status == 0)
    status = host().watch_signal(continued_watch_, COWBIRD_SIGNAL_CONTINUED, continued);
  if (status != 0)
    cowbird::sdk::throw_errno("The host terminal's signals cannot be watched", -status);
}

void FdChannel::close_all() noexcept {
  input_ready_.detach();
  output_ready_.detach();
  window_watch_.reset();
  continued_watch_.reset();
  terminal_.close();
  output_.close();
  input_.close();
}

// The host stops a job that reads from its terminal in the background, and the shell says so. It
// does so to a thread that has the signal unblocked, which the host's threads have not: they get an
// error. When the job goes on in the foreground, the read does.
std::int64_t FdChannel::read_in_background(std::span<std::byte> buffer) {
  sigset_t stop, old;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTTIN);
  pthread_sigmask(SIG_UNBLOCK, &stop, &old);
  const std::int64_t n = input_.read(buffer);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  return n;
}

std::int64_t FdChannel::read(std::span<std::byte> buffer) {
  if (!input_.is_open()) return -EAGAIN;  // no input: silence
  std::int64_t n = input_.read(buffer);
  if (n == -EIO && terminal_.is_open() && terminal_.in_background()) n = read_in_background(buffer);
  if (n == -EAGAIN) return owe(input_ready_, COWBIRD_WATCH_READABLE);
  // A raw terminal gives no end of file but this: its other side has gone.
  if (input_.is_terminal() && (n == 0 || n == -EIO)) {
    notify(COWBIRD_CHANNEL_HANGUP);
    return 0;
  }
  return n;
}

std::int64_t FdChannel::write(std::span<const std::byte> data) {
  if (!output_.is_open()) return static_cast<std::int64_t>(data.size());  // no output: dropped
  const std::int64_t n = output_.write(data);
  return n == -EAGAIN ? owe(output_ready_, COWBIRD_WATCH_WRITABLE) : n;
}

std::optional<cowbird_window> FdChannel::window() {
  for (const int fd : {output_fd_, input_fd_}) {
    if (const auto window = channels::terminal_window(fd)) return window;
  }
  return std::nullopt;
}

std::string describe_descriptor(int fd) { return fd < 0 ? "none" : "fd:" + std::to_string(fd); }

std::string FdChannel::describe() {
  const std::string input = describe_descriptor(input_fd_);
  return input_fd_ == output_fd_ ? input : input + "," + describe_descriptor(output_fd_);
}

constexpr cowbird_key kKeys[] = {
    {"input", COWBIRD_KEY_INT, COWBIRD_KEY_HAS_RANGE, "0", -1, INT_MAX, nullptr,
     "host file descriptor to read from; -1: no input"},
    {"output", COWBIRD_KEY_INT, COWBIRD_KEY_HAS_RANGE, "1", -1, INT_MAX, nullptr,
     "host file descriptor to write to; -1: output is dropped"},
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(FdChannel, "fd", "1.0", kKeys,
                       "file descriptors of the calling process, mostly its terminal", "Apache-2.0",
                       COWBIRD_CHANNEL_CAP_TERMINAL);
