// ConsoleTap: the place on a console or serial line where others listen and type beside its own
// channel. Drivers (con, ssl) make one for each line; the console server (tty/console_server.hpp)
// is the one observer of all of them. A tap sees what goes to the channel, in the same order, and
// keeps the last of it for those who come later; what is typed into it arrives as if the channel
// had delivered it. Needs the big kernel lock; nothing here sleeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cowbird {

class Tty;
class ConsoleTap;

// Who watches all taps. Called under the big kernel lock, from within the terminal's own output and
// input: it must not sleep and must not write to the terminal.
class ConsoleObserver {
 public:
  virtual ~ConsoleObserver() = default;
  // How many bytes the terminal may send now. Less than it has stops its output until
  // ConsoleTap::resume_output(); an observer may ask for that for a bounded time only.
  virtual std::size_t output_room(ConsoleTap &tap) = 0;
  // What has gone to the channel.
  virtual void output(ConsoleTap &tap, std::span<const std::byte> bytes) = 0;
  // type() took less than it was given; now it would take more.
  virtual void input_room(ConsoleTap &tap) = 0;
  // The window has this size now.
  virtual void window_size(ConsoleTap &tap, std::uint16_t rows, std::uint16_t columns) = 0;
  // The line is removed; the tap is gone after this call.
  virtual void removed(ConsoleTap &tap) = 0;
};

class ConsoleTap {
 public:
  // As much of a line's latest output as is kept.
  static constexpr std::size_t kScrollback = 64ul * 1024;

  // Use add_console_tap().
  ConsoleTap(std::string name, Tty &tty);

  // "con0", "ssl3".
  const std::string &name() const { return name_; }
  // --- for the observer
  // The line is connected: the guest has opened it at least once. Before that nothing is written,
  // and what is typed is lost.
  bool active() const;
  // Takes the beginning of `bytes`, as much as the terminal has room for, and returns how much that
  // was. On a line that is not active it takes everything, as a cable that ends nowhere does.
  std::size_t type(std::span<const std::byte> bytes);
  void set_window_size(std::uint16_t rows, std::uint16_t columns);
  bool has_window_size(std::uint16_t rows, std::uint16_t columns) const;
  // Back to the size of the channel's own window, where it has one.
  void restore_window_size();
  // Output that was held back may go on.
  void resume_output();
  std::vector<std::byte> scrollback() const;

  // --- for Tty (tty.cpp)
  std::size_t output_room();
  void record(std::span<const std::byte> bytes);
  void after_read();
  void window_changed(std::uint16_t rows, std::uint16_t columns);

 private:
  friend ConsoleTap &add_console_tap(std::string name, Tty &tty);
  void keep(std::span<const std::byte> bytes);

  std::string name_;
  Tty &tty_;
  bool wants_room_ = false;
  // The last kScrollback bytes: a ring, once it is full.
  std::vector<std::byte> ring_;
  std::size_t next_ = 0;
};

// --- for drivers
// Gives a terminal its tap, under the name of the device ("con1"). The terminal owns it. A name
// that is taken goes to the new line.
ConsoleTap &add_console_tap(std::string name, Tty &tty);
// Before the line is removed while the guest runs, or gets another name.
void remove_console_tap(Tty &tty);
// Lines that nobody has named are made when they are needed: `make` makes the line of a device name
// that begins with `prefix` ("con"), with its tap, or does nothing. An empty function: none any
// more.
void set_console_tap_maker(std::string prefix, std::function<void(std::string_view name)> make);

// --- for the console server
// As find_console_tap(); a line that can be made is made.
ConsoleTap *find_or_make_console_tap(std::string_view name);
// nullptr when there is none of this name.
ConsoleTap *find_console_tap(std::string_view name);
// In the order in which they were added.
void for_each_console_tap(const std::function<void(ConsoleTap &)> &function);
// One at a time; nullptr: nobody watches any more.
void set_console_observer(ConsoleObserver *observer);

}  // namespace cowbird
