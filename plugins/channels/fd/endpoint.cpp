#include "endpoint.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cowbird/plugin.hpp>
#include <cstdio>

using cowbird::sdk::Error;
using cowbird::sdk::throw_errno;

namespace {

// The master of a pty: opening /dev/ptmx again would make another terminal.
bool is_pty_master(const struct stat &status) {
  return major(status.st_rdev) == 5 && minor(status.st_rdev) == 2;
}

}  // namespace

void check_descriptor(int fd, int access, const char *key) {
  const int flags = fcntl(fd, F_GETFL);
  const std::string name =
      "The host file descriptor " + std::to_string(fd) + " (key \"" + key + "\")";
  // One that closes at execve(2) was not inherited: it is the program's own, such as a disk image.
  if (flags < 0 || (flags & O_PATH) != 0 || (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0) {
    throw Error(
        EBADF, name + " is not open. Give a descriptor that the program inherits, or -1 for none.");
  }
  const int mode = flags & O_ACCMODE;
  if (mode != O_RDWR && mode != access) {
    throw Error(EBADF, name + (access == O_RDONLY ? " is not open for reading."
                                                  : " is not open for writing."));
  }
}

void Endpoint::open(int fd, int access) {
  struct stat status;
  if (fstat(fd, &status) != 0) throw_errno("The host file descriptor " + std::to_string(fd));
  if (S_ISDIR(status.st_mode)) {
    throw Error(EISDIR, "The host file descriptor " + std::to_string(fd) + " is a directory.");
  }
  const bool terminal = isatty(fd) == 1;
  if (S_ISSOCK(status.st_mode)) {
    borrow(fd);
    way_ = Way::Socket;
  } else if (terminal || S_ISFIFO(status.st_mode)) {
    const bool nonblocking = fcntl(fd, F_GETFL) & O_NONBLOCK;
    if (nonblocking || is_pty_master(status) || !reopen(fd, access)) borrow(fd);
    const int flags = fcntl(fd_, F_GETFL);
    if (!(flags & O_NONBLOCK)) {
      if (fcntl(fd_, F_SETFL, flags | O_NONBLOCK) != 0) throw_errno("O_NONBLOCK cannot be set");
      changed_fd_.store(fd_, std::memory_order_release);
    }
    way_ = Way::Nonblocking;
  } else {
    borrow(fd);
    way_ = Way::Polled;
  }
  terminal_ = terminal;
}

bool Endpoint::reopen(int fd, int access) {
  char path[32];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const int fresh = ::open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fresh < 0) return false;
  struct stat was, is;
  if (fstat(fd, &was) != 0 || fstat(fresh, &is) != 0 || was.st_rdev != is.st_rdev ||
      was.st_ino != is.st_ino) {
    ::close(fresh);
    return false;
  }
  fd_ = fresh;
  return true;
}

void Endpoint::borrow(int fd) {
  fd_ = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (fd_ < 0)
    throw_errno("The host file descriptor " + std::to_string(fd) + " cannot be duplicated");
}

void Endpoint::restore() noexcept {
  const int saved = errno;
  const int fd = changed_fd_.load(std::memory_order_acquire);
  if (fd >= 0) {
    const int flags = fcntl(fd, F_GETFL);
    if (flags >= 0) fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
  }
  errno = saved;
}

void Endpoint::close() noexcept {
  if (fd_ < 0) return;
  restore();
  changed_fd_.store(-1, std::memory_order_release);
  ::close(fd_);
  fd_ = -1;
}

bool Endpoint::ready(short events) const {
  pollfd poll_fd{fd_, events, 0};
  return poll(&poll_fd, 1, 0) != 0;  // a failure shows in the read or write that follows
}

std::int64_t Endpoint::read(std::span<std::byte> buffer) {
  if (way_ == Way::Polled && !ready(POLLIN)) return -EAGAIN;
  for (;;) {
    const ssize_t n = way_ == Way::Socket ? recv(fd_, buffer.data(), buffer.size(), MSG_DONTWAIT)
                                          : ::read(fd_, buffer.data(), buffer.size());
    if (n >= 0) return n;
    if (errno != EINTR) return errno == EWOULDBLOCK ? -EAGAIN : -errno;
  }
}

std::int64_t Endpoint::write(std::span<const std::byte> data) {
  if (way_ == Way::Polled && !ready(POLLOUT)) return -EAGAIN;
  for (;;) {
    const ssize_t n = way_ == Way::Socket
                          ? send(fd_, data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL)
                          : ::write(fd_, data.data(), data.size());
    if (n > 0) return n;
    if (n == 0) return -EIO;  // cannot be for a size that is not 0
    if (errno != EINTR) return errno == EWOULDBLOCK ? -EAGAIN : -errno;
  }
}
