#include "boot/host_stream.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "irq/irq.hpp"
#include "proc/task.hpp"
#include "sched/bkl.hpp"

namespace cowbird {
namespace {

// A pipe that polls writable takes at least PIPE_BUF bytes without blocking; what waits in one can
// be read in larger pieces.
constexpr std::size_t kWritePiece = 4096;
constexpr std::size_t kReadPiece = 16384;

class HostStream final : public File {
 public:
  HostStream(int fd, std::uint32_t flags, bool pollable)
      : File(flags), fd_(fd), pollable_(pollable) {}

  Result<void> watch() {
    if (!pollable_) return {};
    const std::uint32_t events = writable() ? EPOLLOUT : EPOLLIN;
    watch_ = TRY(irq::FdWatch::create("stdio", fd_, events | EPOLLONESHOT,
                                      [this](std::uint32_t) { queue_.wake_all(); }));
    return {};
  }

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    TRY(take_turn(POLLIN));
    std::array<std::byte, kReadPiece> buffer;
    const std::size_t want = std::min<std::uint64_t>(buffer.size(), to.remaining());
    ssize_t got = 0;
    int error = 0;
    {
      BklReleased released;
      do {
        got = ::read(fd_, buffer.data(), want);
        error = errno;
      } while (got < 0 && error == EINTR);
    }
    turn_.unlock();
    if (got < 0) return Err(errno_from_host(error));
    if (got == 0) return std::uint64_t{0};
    return to.copy_to(std::span(buffer).first(static_cast<std::size_t>(got)));
  }

  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override {
    std::uint64_t total = 0;
    while (from.remaining() > 0) {
      const Result<std::uint64_t> piece = write_piece(from);
      if (!piece) return total > 0 ? Result<std::uint64_t>(total) : Err(piece.error());
      total += *piece;
    }
    return total;
  }

  std::uint32_t poll(PollTable *table) override {
    const short want = writable() ? POLLOUT : POLLIN;
    if (table) {
      table->wait(queue_);
      arm();
    }
    if (!pollable_) return static_cast<std::uint32_t>(want);
    pollfd p{fd_, want, 0};
    if (::poll(&p, 1, 0) <= 0) return 0;
    return static_cast<std::uint32_t>(p.revents);
  }

  std::string describe() const override { return "host:[stdio]"; }

 private:
  void arm() {
    if (!watch_) return;
    const std::uint32_t events = writable() ? EPOLLOUT : EPOLLIN;
    [[maybe_unused]] const auto armed = watch_->modify(events | EPOLLONESHOT);
  }

  bool ready(short want) const {
    pollfd p{fd_, want, 0};
    return ::poll(&p, 1, 0) != 0;
  }

  // Waits until the host has something, and takes turn_: between the host's word that it is ready
  // and the call, nobody else of the guest may be faster, or the call would hold up a whole vCPU.
  Result<void> take_turn(short want) {
    for (;;) {
      TRY(wait_ready(want));
      turn_.lock();
      if (!pollable_ || ready(want)) return {};
      turn_.unlock();
    }
  }

  Result<void> wait_ready(short want) {
    if (!pollable_ || ready(want)) return {};
    if (nonblocking()) return Err(Errno::Again);
    arm();
    return wait_event(
        queue_,
        [&] {
          if (ready(want)) return true;
          arm();  // another reader was faster
          return false;
        },
        SleepMode::Interruptible, writable() ? "host_write" : "host_read");
  }

  Result<std::uint64_t> write_piece(IovIter &from) {
    std::array<std::byte, kWritePiece> buffer;
    const std::uint64_t have = TRY(from.copy_from(buffer));
    if (const auto ready = take_turn(POLLOUT); !ready) {
      from.revert(have);
      return Err(ready.error());
    }
    ssize_t done = 0;
    int error = 0;
    {
      BklReleased released;
      do {
        done = ::write(fd_, buffer.data(), have);
        error = errno;
      } while (done < 0 && error == EINTR);
    }
    turn_.unlock();
    if (done < 0) {
      from.revert(have);
      if (error == EPIPE) send_kernel_signal(*current_task().process, kSigPipe);
      return Err(errno_from_host(error));
    }
    from.revert(have - static_cast<std::uint64_t>(done));
    return static_cast<std::uint64_t>(done);
  }

  int fd_;
  bool pollable_;
  SleepMutex turn_{"host_stream"};  // held during the host's read or write only
  WaitQueue queue_;
  std::unique_ptr<irq::FdWatch> watch_;
};

}  // namespace

Result<Ref<File>> make_host_stream(int host_fd, std::uint32_t flags) {
  struct stat st {};
  if (::fstat(host_fd, &st) != 0) return Err(errno_from_host(errno));
  // Regular files and most devices are always ready, and epoll refuses them.
  const bool pollable = S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode);
  auto stream = make_ref<HostStream>(host_fd, flags, pollable);
  TRY(stream->watch());
  stream->inode = make_anonymous_inode(
      static_cast<std::uint32_t>(pollable ? FileType::Fifo : FileType::Regular) | 0600,
      Credentials::kernel());
  return Ref<File>(std::move(stream));
}

}  // namespace cowbird
