// The channel `fd`: a console on file descriptors that the program inherited, mostly the caller's
// terminal.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <climits>
#include <cowbird/channel.hpp>

#include "endpoint.hpp"
#include "terminal.hpp"

namespace {

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
  void watch_terminal();
  // Owes the host one notice; -EAGAIN, or the error when the descriptor cannot be watched.
  std::int64_t wait_for(Watch &watch, int fd, std::uint32_t event, std::uint32_t notice);

  const int input_fd_;
  const int output_fd_;
  Endpoint input_;
  Endpoint output_;
  Terminal terminal_;
  Watch input_watch_;
  Watch output_watch_;
  Watch window_watch_;
  Watch continued_watch_;
};

void FdChannel::open() {
  try {
    if (input_fd_ >= 0) input_.open(input_fd_, O_RDONLY);
    if (output_fd_ >= 0) output_.open(output_fd_, O_WRONLY);
    if (input_.is_terminal()) {
      terminal_.open(input_.fd());
      if (const int status = terminal_.set_raw(true); status != 0) {
        cowbird::sdk::throw_errno("The host terminal cannot be put in raw mode", -status);
      }
    }
    watch_terminal();
  } catch (...) {
    close_all();
    throw;
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
  input_watch_.reset();
  output_watch_.reset();
  window_watch_.reset();
  continued_watch_.reset();
  terminal_.close();
  output_.close();
  input_.close();
}

std::int64_t FdChannel::wait_for(Watch &watch, int fd, std::uint32_t event, std::uint32_t notice) {
  if (watch) return -EAGAIN;
  // Watched for one event only: a hang-up that nobody reads would be reported again and again.
  const int status = host().watch_fd(watch, fd, event, [this, &watch, notice](std::uint32_t) {
    watch.reset();
    notify(notice);
  });
  return status == 0 ? -EAGAIN : -EIO;
}

std::int64_t FdChannel::read(std::span<std::byte> buffer) {
  if (!input_.is_open()) return -EAGAIN;  // no input: silence
  const std::int64_t n = input_.read(buffer);
  if (n == -EAGAIN) {
    return wait_for(input_watch_, input_.fd(), COWBIRD_WATCH_READABLE, COWBIRD_CHANNEL_READABLE);
  }
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
  if (n != -EAGAIN) return n;
  return wait_for(output_watch_, output_.fd(), COWBIRD_WATCH_WRITABLE, COWBIRD_CHANNEL_WRITABLE);
}

std::optional<cowbird_window> FdChannel::window() {
  for (const int fd : {output_fd_, input_fd_}) {
    winsize size;
    if (fd >= 0 && ioctl(fd, TIOCGWINSZ, &size) == 0) {
      return cowbird_window{size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel};
    }
  }
  return std::nullopt;
}

std::string describe_descriptor(int fd) {
  if (fd < 0) return "nothing";
  char name[256];
  if (ttyname_r(fd, name, sizeof name) == 0) {
    return "descriptor " + std::to_string(fd) + " (terminal " + name + ")";
  }
  return "descriptor " + std::to_string(fd);
}

std::string FdChannel::describe() {
  return "input from " + describe_descriptor(input_fd_) + ", output to " +
         describe_descriptor(output_fd_);
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
