// A line: a console or serial line, which is a terminal over one or two channels of the host. The
// channels are opened when the guest opens the terminal and closed when its last user has gone, so
// that a line costs the host nothing while nobody uses it. The drivers of con and ssl
// (devices/line_driver.hpp) make and remove lines; boot/ holds the kernel's console open.
//
// Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/ref.hpp"
#include "base/result.hpp"
#include "plugins/channel.hpp"
#include "tty/tty.hpp"

namespace cowbird {

class LinePort;

// One channel of a line.
struct LineSide {
  std::unique_ptr<Channel> channel;  // null: silence, and output is dropped
  std::string plugin;                // its name: "pts"
  // What the channel is now, when it is open and knows more than its configuration says:
  // "pts:/dev/pts/9"; else empty.
  std::string now() const;
};

struct LineChannels {
  LineSide input;
  LineSide output;
  bool shared = true;  // `input` is for both directions, `output` is nothing
};

class TtyLine {
 public:
  // `node` is the terminal's name: "tty1".
  TtyLine(std::string node, DeviceNumber number, LineChannels channels);
  // Closes the channels; whoever still has the terminal open sees a hang-up.
  ~TtyLine();
  TtyLine(const TtyLine &) = delete;
  TtyLine &operator=(const TtyLine &) = delete;

  Tty &tty() { return *tty_; }
  // Waits until what the guest has written is with the peer, or for this time of the guest's
  // monotonic clock; may be called when the line has gone. Sleeps.
  std::function<void(std::int64_t deadline_ns)> drainer();
  // The guest has it open, or the kernel holds it.
  bool busy() const;
  // Its channels are open: somebody uses it, or has just done so.
  bool is_open() const;
  // Opens the channels for as long as the line is there: the kernel's console.
  Result<void> hold();
  const LineSide &input() const;
  const LineSide &output() const;  // with `shared`, the same
  bool shared() const;

 private:
  Ref<LinePort> port_;
  Ref<Tty> tty_;
};

}  // namespace cowbird
