// The log of all that goes over the guest's terminals: consoles, serial lines and pseudoterminals,
// in both directions, with the time. To a directory, one file for each opening of a terminal
// (SECONDS.MICROSECONDS-TTY.cast), or to one descriptor. tty/tty_log_text.hpp has the format.
//
// Host files are written by worker threads, in the order of the events; what a slow disk leaves
// behind above a limit is lost, and the log says how much. Needs the big kernel lock; nothing
// sleeps.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace cowbird {

namespace tty_log {

// Once, before the first terminal is opened. False and a sentence when it cannot be written.
bool to_directory(const std::string &directory, std::string &error);
bool to_descriptor(int fd, std::string &error);
// Writes what is left, when no kernel code and no worker runs any more; may block.
void stop();

}  // namespace tty_log

// The log of one opening; the terminal has it from its first open() to its last close().
class TtyRecord {
 public:
  // Null when nothing is logged.
  static std::unique_ptr<TtyRecord> start(std::string_view tty, unsigned columns, unsigned rows);
  virtual ~TtyRecord() = default;
  virtual void output(std::span<const std::byte> bytes) = 0;
  virtual void input(std::span<const std::byte> bytes) = 0;
  virtual void window(unsigned columns, unsigned rows) = 0;
};

}  // namespace cowbird
