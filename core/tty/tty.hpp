// Terminals: the line discipline (n_tty) over a port, job control, and the devices /dev/tty and
// /dev/console. A Tty belongs to its driver (tty/line.hpp, tty/pty.hpp) and to the files that
// opening it makes. Needs the big kernel lock; reads and writes may sleep.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/result.hpp"
#include "sched/wait.hpp"
#include "vfs/file.hpp"

namespace cowbird {

inline constexpr std::uint32_t kTtyAuxMajor = 5;  // TTYAUX_MAJOR: tty, console and ptmx

class Process;

// What a terminal's other side is: a console channel, or the master of a pty.
class TtyPort {
 public:
  virtual ~TtyPort() = default;
  // Output for the other side; returns how many bytes it took (0: full, Tty::port_writable
  // follows).
  virtual std::size_t write(std::span<const std::byte> bytes) = 0;
  // Takes what the other side needs, once, before the first use of the terminal.
  virtual Result<void> activate() { return {}; }
  // The guest opened the terminal, which nobody had open, and closed its last descriptor of it.
  virtual void first_open() {}
  virtual void last_close() {}
  // vhangup(2): the guest's descriptors are dead, but somebody may open the terminal again at once.
  virtual void hung_up_by_guest() { last_close(); }
  // The last of the descriptors that a hang-up has left dead is closed, and nobody has opened the
  // terminal again.
  virtual void dead_closed() {}
  // All that was written has been taken by write().
  virtual void drained() {}
  // Something of it is not with the peer yet, and would be lost if the other side were given up.
  virtual bool has_unsent() const { return false; }
  // The guest stopped (or goes on) reading: its input buffer is full.
  virtual void throttle(bool /*on*/) {}
  // The break condition towards the other side begins or ends. NotTty: it knows none.
  virtual Result<void> set_break(bool /*on*/) { return Err(Errno::NotTty); }
  // The end of the session that has it as its controlling terminal hangs it up: so do lines, while
  // a pty is its master's.
  virtual bool hangs_up_with_session() const { return false; }
  // The guest set another window size; ports that own the size ignore it.
  virtual void window_size_changed(std::uint16_t /*rows*/, std::uint16_t /*columns*/) {}
  // Gives the terminal the size of the window on the other side, where there is one.
  virtual void restore_window_size() {}
};

class Tty;
// A terminal with this name ("tty0") and device number over `port`, which must outlive it.
Ref<Tty> make_tty(std::string name, DeviceNumber number, TtyPort &port);

// --- called by ports, under the big kernel lock
void tty_input(Tty &tty,
               std::span<const std::byte>
                   bytes);  // bytes that arrived; what does not fit is dropped after throttle
// Nothing more will arrive: end of file for the session that reads next. It may arrive again after
// tty_continue_input().
void tty_end_input(Tty &tty);
void tty_continue_input(Tty &tty);
// A break arrived: what the terminal's modes say (IGNBRK, BRKINT, PARMRK of termios(3)).
void tty_input_break(Tty &tty);
std::size_t tty_input_room(const Tty &tty);
void tty_port_writable(Tty &tty);
// SIGHUP to the session's leader, EOF to readers, EIO to writers. The foreground group gets its
// SIGHUP when the leader ends.
void tty_hangup(Tty &tty);
void tty_set_window_size(Tty &tty, std::uint16_t rows,
                         std::uint16_t columns);  // SIGWINCH when it changed

// --- called by the rest of the kernel
Result<Ref<File>> tty_open(Tty &tty, std::uint32_t flags);
// An open file of the terminal without a calling task (the first program's descriptors); never
// makes it a controlling terminal.
Result<Ref<File>> tty_file(Tty &tty, std::uint32_t flags);
// The leader gives the terminal up: SIGHUP and SIGCONT to the foreground group, and the session
// loses its terminal.
void tty_disassociate(Process &leader);
// The leader of a session ends: its foreground group is told, its line is hung up.
void tty_end_session(Process &leader);
// vhangup(2): hangs up the controlling terminal of a process; nothing without one.
void tty_vhangup(Process &process);
DeviceNumber tty_device_number(const Tty &tty);
int tty_foreground_group(const Tty &tty);
// Writes a kernel message line, as printk's console does; drops what the port does not take.
void tty_kernel_write(Tty &tty, std::string_view text);

// Makes `tty` the controlling terminal of the session that `leader` leads, with its group in the
// foreground.
void tty_set_controlling(Tty &tty, Process &leader);
// Everything written has gone to the port, and by it to the peer; a wait until `deadline_ns` of the
// guest's monotonic clock at most. May sleep.
void tty_drain(Tty &tty, std::int64_t deadline_ns);
// Leaves for_each_tty(): its line has gone, though dead files may still hold it.
void tty_unlist(Tty &tty);
void for_each_tty(
    const std::function<void(const std::string &name, DeviceNumber number)> &function);

// Registers /dev/tty (5:0) and /dev/console (5:1); `console` gives what /dev/console opens, or
// null.
Result<void> register_tty_devices(std::function<Tty *()> console);

}  // namespace cowbird
