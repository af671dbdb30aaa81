// The modes of the host terminal that a channel reads from: raw while the channel is open, as they
// were before afterwards, whatever happens to the process.
#pragma once

#include <cowbird/channel.h>
#include <termios.h>

#include <atomic>
#include <cstdint>
#include <optional>

namespace channels {

class Terminal {
 public:
  Terminal() = default;
  ~Terminal() { close(); }
  Terminal(const Terminal &) = delete;
  Terminal &operator=(const Terminal &) = delete;

  // Whether raw modes mark breaks as MarkedBreaks reads them, or let them read as NUL bytes.
  enum class Breaks : std::uint8_t { Unmarked, Marked };

  // Remembers the modes of the terminal `fd`, which stays the caller's and open until close().
  // Throws cowbird::sdk::Error.
  void open(int fd, Breaks breaks = Breaks::Unmarked);
  void close() noexcept;
  bool is_open() const { return fd_ >= 0; }

  int set_raw(bool raw) noexcept;
  // The terminal is the shell's, or another job's, at present.
  bool in_background() const noexcept;
  // Raw modes come with set_again(), in the foreground.
  void set_raw_later() noexcept { raw_ = true; }
  // After the process was stopped and goes on, the shell may have changed the modes.
  void set_again() noexcept;
  // The modes from before open(); async-signal-safe.
  void restore() noexcept;

 private:
  int fd_ = -1;
  termios before_{};
  Breaks breaks_ = Breaks::Unmarked;
  bool raw_ = false;
  std::atomic<int> changed_fd_{-1};  // the terminal, once its modes may differ from before_
};

}  // namespace channels
