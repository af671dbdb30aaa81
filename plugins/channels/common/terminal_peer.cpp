#include "common/terminal_peer.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>

namespace channels {

using cowbird::sdk::throw_errno;

namespace {

// It has lines of a modem. Nothing else can receive a break; and the modes of a pseudoterminal may
// be changed from its other side, which would take the marks away.
bool is_serial_port(int fd) {
  int lines = 0;
  return ioctl(fd, TIOCMGET, &lines) == 0;
}

// 0 for a pseudoterminal: what it was given is its other side's, whoever closes it.
std::int64_t queued_output(int fd) {
  int bytes = 0;
  return fd >= 0 && ioctl(fd, TIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

}  // namespace

TerminalPeer::TerminalPeer(const cowbird::sdk::Host &host, std::function<void()> gone)
    : stream_(host,
              [this, gone = std::move(gone)] {
                window_.stop();
                gone();
              }),
      window_(host) {}

void TerminalPeer::open(Descriptor terminal, WindowWatch::Timed timed) {
  fd_ = std::move(terminal);
  try {
    const int flags = fcntl(fd_.get(), F_GETFL);
    if (flags < 0 || fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
      throw_errno("O_NONBLOCK cannot be set on the terminal");
    }
    const bool serial = is_serial_port(fd_.get());
    terminal_.open(fd_.get(), serial ? Terminal::Breaks::Marked : Terminal::Breaks::Unmarked);
    if (const int status = terminal_.set_raw(true); status != 0) {
      throw_errno("The terminal cannot be put in raw mode", -status);
    }
    window_.start(fd_.get(), timed);
    stream_.connect(fd_.get(), serial ? &breaks_ : nullptr);
  } catch (...) {
    close();
    throw;
  }
}

void TerminalPeer::close() noexcept {
  stream_.stop();
  window_.stop();
  terminal_.close();
  // The host's close(2) of a serial port would wait for what the other side does not take.
  if (queued_output(fd_.get()) > 0) tcflush(fd_.get(), TCOFLUSH);
  fd_.reset();
}

std::int64_t TerminalPeer::read(std::span<std::byte> buffer) {
  const std::int64_t n = stream_.read(buffer);
  if (n > 0) window_.check();
  return n;
}

int TerminalPeer::set_window(const cowbird_window &window) {
  return fd_ ? window_.set(window) : -ENOTTY;
}

int TerminalPeer::set_break(bool on) {
  if (!fd_) return -ENOTTY;
  return ioctl(fd_.get(), on ? TIOCSBRK : TIOCCBRK) == 0 ? 0 : -errno;
}

std::int64_t TerminalPeer::unsent() const {
  return stream_.connected() ? stream_.unsent() + queued_output(fd_.get()) : 0;
}

}  // namespace channels
