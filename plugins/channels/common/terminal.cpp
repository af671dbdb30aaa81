#include "common/terminal.hpp"

#include <unistd.h>

#include <cerrno>
#include <cowbird/plugin.hpp>
#include <csignal>

namespace channels {

namespace {

// Waits for nothing (TCSANOW): output that a stuck reader never takes would block for ever.
int set_modes(int fd, const termios &modes) {
  int status;
  do {
    status = tcsetattr(fd, TCSANOW, &modes);
  } while (status != 0 && errno == EINTR);
  return status == 0 ? 0 : -errno;
}

// cfmakeraw(3), and read(2) gives what there is.
termios raw_modes(termios modes, Terminal::Breaks breaks) {
  cfmakeraw(&modes);
  if (breaks == Terminal::Breaks::Marked) {
    modes.c_iflag |= PARMRK;
    // Else a wrong parity would be marked too, and a NUL byte with one be a break.
    modes.c_iflag &= ~static_cast<tcflag_t>(INPCK | IGNPAR);
  }
  modes.c_cc[VMIN] = 1;
  modes.c_cc[VTIME] = 0;
  return modes;
}

}  // namespace

void Terminal::open(int fd, Breaks breaks) {
  if (tcgetattr(fd, &before_) != 0)
    cowbird::sdk::throw_errno("The host terminal's modes cannot be read");
  fd_ = fd;
  breaks_ = breaks;
}

int Terminal::set_raw(bool raw) noexcept {
  if (fd_ < 0) return -ENOTTY;
  raw_ = raw;
  // Before the change: a crash handler that runs in between restores what is there anyway.
  changed_fd_.store(fd_, std::memory_order_release);
  return set_modes(fd_, raw ? raw_modes(before_, breaks_) : before_);
}

bool Terminal::in_background() const noexcept {
  const pid_t foreground = tcgetpgrp(fd_);  // -1: it is not the terminal of our session
  return foreground >= 0 && foreground != getpgrp();
}

void Terminal::set_again() noexcept {
  if (fd_ < 0 || !raw_ || tcgetpgrp(fd_) != getpgrp()) return;
  if (changed_fd_.load(std::memory_order_relaxed) < 0) {
    // The modes that open() found in the background were those of a shell that edits a line.
    if (tcgetattr(fd_, &before_) != 0) return;
    changed_fd_.store(fd_, std::memory_order_release);
  }
  set_modes(fd_, raw_modes(before_, breaks_));
}

void Terminal::restore() noexcept {
  const int fd = changed_fd_.load(std::memory_order_acquire);
  if (fd < 0) return;
  const int saved = errno;
  // From the background this would stop the process instead, unless SIGTTOU is blocked
  // (tcsetattr(3)).
  sigset_t block, old;
  sigemptyset(&block);
  sigaddset(&block, SIGTTOU);
  pthread_sigmask(SIG_BLOCK, &block, &old);
  set_modes(fd, before_);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  errno = saved;
}

void Terminal::close() noexcept {
  if (fd_ < 0) return;
  restore();
  changed_fd_.store(-1, std::memory_order_release);
  fd_ = -1;
  raw_ = false;
}

}  // namespace channels
