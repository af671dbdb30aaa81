// Channel: the host side of a console or serial line, as tty/ sees it. PluginRegistry makes the
// ones that plugins offer; tests make their own.
//
// All functions are called with the big kernel lock held and never block or sleep.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/result.hpp"

namespace cowbird {

struct WindowSize {
  std::uint16_t rows = 0;
  std::uint16_t columns = 0;
  std::uint16_t width_px = 0;
  std::uint16_t height_px = 0;
  bool operator==(const WindowSize &) const = default;
};

class Channel {
 public:
  // Bits of an event set.
  enum Event : std::uint32_t {
    Readable = 1u << 0,   // read() has data or an end of file
    Writable = 1u << 1,   // write() can take data
    HangUp = 1u << 2,     // the peer has gone
    Connected = 1u << 3,  // a peer has come (again)
    Window = 1u << 4,     // window_size() would answer something new
    Break = 1u << 5,      // the peer has sent a break, behind what read() gave until it said Again
  };
  using Listener = std::function<void(std::uint32_t events)>;

  virtual ~Channel() = default;

  // Takes the host's resources and puts a host terminal in raw mode. `listener` runs on the irq
  // thread under the big kernel lock, never from inside another function of the channel, and must
  // not sleep. Busy when it is open already.
  virtual Result<void> open(Listener listener) = 0;
  // Gives back what open() took; the listener does not run afterwards. Harmless when closed.
  virtual void close() = 0;
  virtual bool is_open() const = 0;

  // Up to buffer.size() bytes, 0 at end of file. Again: nothing now, and a Readable event follows.
  virtual Result<std::size_t> read(std::span<std::byte> buffer) = 0;
  // Bytes taken, possibly fewer than given. Again: none now, and a Writable event follows. Pipe:
  // the peer has gone.
  virtual Result<std::size_t> write(std::span<const std::byte> data) = 0;

  // NotTty when the channel has no window.
  virtual Result<WindowSize> window_size() = 0;
  virtual Result<void> set_window_size(const WindowSize &size) = 0;
  // A host terminal passes bytes through untouched (the state after open) or as it was before.
  virtual Result<void> set_raw(bool raw) = 0;
  // The break condition towards the peer begins or ends. NotTty when the channel has none.
  virtual Result<void> set_break(bool on) = 0;
  // Whether close() would now lose what write() has taken, because the peer has not got it yet.
  virtual bool has_unsent() { return false; }
  // One line for people: what it is now.
  virtual std::string describe() = 0;
};

}  // namespace cowbird
