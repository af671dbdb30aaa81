// The channel `tty`: a terminal that the host has: a virtual console, a serial port, or the slave
// side of a pseudoterminal, which may be another guest's.
#include <fcntl.h>
#include <sys/stat.h>

#include "common/terminal_peer.hpp"

namespace {

using channels::Descriptor;
using channels::WindowWatch;
using cowbird::sdk::Channel;
using cowbird::sdk::Config;
using cowbird::sdk::Error;
using cowbird::sdk::Host;

class TtyChannel final : public Channel {
 public:
  TtyChannel(const Host &host, const Config &config)
      : Channel(host), path_(*config.text("device")), peer_(host, [] {}) {}

  void open() override;
  void close() noexcept override { peer_.close(); }
  std::int64_t read(std::span<std::byte> buffer) override { return peer_.read(buffer); }
  std::int64_t write(std::span<const std::byte> data) override { return peer_.write(data); }
  std::optional<cowbird_window> window() override { return peer_.window(); }
  int set_window(const cowbird_window &window) override { return peer_.set_window(window); }
  int set_raw(bool raw) override { return peer_.set_raw(raw); }
  int set_break(bool on) override { return peer_.set_break(on); }
  std::int64_t unsent() override { return peer_.unsent(); }
  std::string describe() override { return "tty:" + path_; }
  void emergency_restore() noexcept override { peer_.restore(); }

 private:
  const std::string path_;
  channels::TerminalPeer peer_;
};

void TtyChannel::open() {
  struct stat status;
  if (stat(path_.c_str(), &status) != 0) cowbird::sdk::throw_errno(path_ + " cannot be opened");
  // Asked first: opening other things, a named pipe for one, can have effects.
  if (!S_ISCHR(status.st_mode)) {
    throw Error(ENOTTY, path_ +
                            " is no terminal. Name a terminal of the host, such as /dev/tty6 or "
                            "another guest's /dev/pts/4.");
  }
  // O_NONBLOCK: a serial port would wait for its carrier.
  Descriptor terminal(::open(path_.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!terminal) {
    const int error = errno;
    if (error == EIO && path_.rfind("/dev/pts/", 0) == 0) {
      throw Error(EIO, path_ + " cannot be opened: nobody has its master side open any more.");
    }
    cowbird::sdk::throw_errno(path_ + " cannot be opened", error);
  }
  if (!isatty(terminal.get())) throw Error(ENOTTY, path_ + " is no terminal.");
  peer_.open(std::move(terminal), WindowWatch::Timed::Yes);
}

constexpr cowbird_key kKeys[] = {
    {"device", COWBIRD_KEY_PATH, COWBIRD_KEY_REQUIRED, nullptr, 0, 0, nullptr,
     "the host's terminal, such as /dev/tty6 or /dev/pts/4"},
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(TtyChannel, "tty", "1.0", kKeys,
                       "a terminal of the host, or another guest's pts", "Apache-2.0",
                       COWBIRD_CHANNEL_CAP_TERMINAL);
