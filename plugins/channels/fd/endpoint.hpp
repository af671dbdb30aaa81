// One host file descriptor of the caller's (its standard input, a pipe, a socket, a file), used
// without blocking and without changing it for others. What is shared with other processes is the
// open file description, so O_NONBLOCK is set on one of our own: terminals and pipes are opened
// again through /proc; sockets have MSG_DONTWAIT; regular files do not block. Only where opening
// again is refused (a terminal of another user) O_NONBLOCK is set on the shared description, and
// taken back by close() or restore().
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

class Endpoint {
 public:
  Endpoint() = default;
  ~Endpoint() { close(); }
  Endpoint(const Endpoint &) = delete;
  Endpoint &operator=(const Endpoint &) = delete;

  // `access` is O_RDONLY or O_WRONLY. Throws cowbird::sdk::Error.
  void open(int fd, int access);
  void close() noexcept;
  // Takes O_NONBLOCK back where it was set; async-signal-safe.
  void restore() noexcept;

  bool is_open() const { return fd_ >= 0; }
  bool is_terminal() const { return terminal_; }
  int fd() const { return fd_; }  // to be watched

  // Bytes, 0 at end of file, or a negative errno (-EAGAIN when it would block).
  std::int64_t read(std::span<std::byte> buffer);
  std::int64_t write(std::span<const std::byte> data);

 private:
  enum class Way : std::uint8_t {
    Nonblocking,  // read and write answer EAGAIN
    Socket,       // recv and send with MSG_DONTWAIT
    Polled,       // poll first; for devices that nobody else reads, and for files
  };
  bool reopen(int fd, int access);
  void borrow(int fd);
  bool ready(short events) const;

  int fd_ = -1;  // ours: a new description, or a duplicate of the caller's
  Way way_ = Way::Polled;
  bool terminal_ = false;
  std::atomic<int> changed_fd_{-1};  // the descriptor on whose description we set O_NONBLOCK
};

// Throws cowbird::sdk::Error with a sentence when the descriptor is not open, or not for this
// access. `key` is the configuration's key.
void check_descriptor(int fd, int access, const char *key);
