// The ioctls of terminals: tty_ioctl(4).
#include <algorithm>

#include "mm/user_access.hpp"
#include "sched/clock.hpp"
#include "sched/wait.hpp"
#include "tty/tty_impl.hpp"

namespace cowbird {

using namespace abi;

namespace {

// Speeds of the CBAUD codes, for termios2's numbers.
constexpr std::uint32_t kSpeeds[] = {0,   50,   75,   110,  134,  150,  200,   300,
                                     600, 1200, 1800, 2400, 4800, 9600, 19200, 38400};
constexpr std::uint32_t kExtendedSpeeds[] = {57600,   115200,  230400,  460800,  500000,
                                             576000,  921600,  1000000, 1152000, 1500000,
                                             2000000, 2500000, 3000000, 3500000, 4000000};

std::uint32_t speed_of(std::uint32_t cflag, std::uint32_t given) {
  const std::uint32_t code = cflag & kCBAUD;
  if (code == kBOTHER) return given;
  if (code < 16) return kSpeeds[code];
  const std::uint32_t extended = (code & 017) - 1;
  return extended < std::size(kExtendedSpeeds) ? kExtendedSpeeds[extended] : 38400;
}

Termios to_termios(const Termios2 &t) {
  Termios out{t.iflag, t.oflag, t.cflag, t.lflag, t.line, {}};
  std::copy(std::begin(t.cc), std::end(t.cc), out.cc);
  return out;
}

enum class When { Now, AfterDrain, AfterDrainFlush };

Result<void> wait_drained(Tty &tty) {
  return wait_event(
      tty.write_wait, [&] { return tty.ldisc.queued_output() == 0; }, SleepMode::Interruptible,
      "tty_drain");
}

Result<std::int64_t> set_termios(Tty &tty, Task &task, Termios2 t, When when) {
  TRY(check_background(tty, task, kSigTtou));
  t.ispeed = speed_of(t.cflag, t.ispeed);
  t.ospeed = speed_of(t.cflag, t.ospeed);
  if (when != When::Now) TRY(wait_drained(tty));
  if (when == When::AfterDrainFlush) tty.ldisc.flush_input();
  tty.ldisc.set_termios(t);
  tty.after_read();
  return std::int64_t{0};
}

Result<std::int64_t> set_from_termios(Tty &tty, Task &task, std::uint64_t argument, When when) {
  const Termios in = TRY(UserPtr<Termios>(argument).read());
  Termios2 t = tty.ldisc.termios();
  t.iflag = in.iflag;
  t.oflag = in.oflag;
  t.cflag = in.cflag;
  t.lflag = in.lflag;
  t.line = in.line;
  std::copy(std::begin(in.cc), std::end(in.cc), t.cc);
  return set_termios(tty, task, t, when);
}

Result<std::int64_t> set_from_termios2(Tty &tty, Task &task, std::uint64_t argument, When when) {
  return set_termios(tty, task, TRY(UserPtr<Termios2>(argument).read()), when);
}

Result<std::int64_t> get_termio(Tty &tty, std::uint64_t argument) {
  const Termios2 &t = tty.ldisc.termios();
  Termio out{static_cast<std::uint16_t>(t.iflag),
             static_cast<std::uint16_t>(t.oflag),
             static_cast<std::uint16_t>(t.cflag),
             static_cast<std::uint16_t>(t.lflag),
             t.line,
             {}};
  std::copy_n(t.cc, 8, out.cc);
  TRY(UserPtr<Termio>(argument).write(out));
  return std::int64_t{0};
}

Result<std::int64_t> set_from_termio(Tty &tty, Task &task, std::uint64_t argument, When when) {
  const Termio in = TRY(UserPtr<Termio>(argument).read());
  const auto low = [](std::uint32_t old, std::uint16_t value) {
    return (old & 0xffff0000u) | value;
  };
  Termios2 t = tty.ldisc.termios();
  t.iflag = low(t.iflag, in.iflag);
  t.oflag = low(t.oflag, in.oflag);
  t.cflag = low(t.cflag, in.cflag);
  t.lflag = low(t.lflag, in.lflag);
  t.line = in.line;
  std::copy_n(in.cc, 8, t.cc);
  return set_termios(tty, task, t, when);
}

Result<std::int64_t> set_foreground(Tty &tty, Task &task, std::uint64_t argument) {
  TRY(check_background(tty, task, kSigTtou));
  Process &process = *task.process;
  if (process.controlling_tty != &tty || tty.session != process.sid) return Err(Errno::NotTty);
  const std::int32_t group = TRY(UserPtr<std::int32_t>(argument).read());
  if (group < 0) return Err(Errno::Inval);
  if (!process_group_exists(group, process.sid)) {
    bool anywhere = false;
    for_each_process([&](Process &p) { anywhere = anywhere || p.pgid == group; });
    return Err(anywhere ? Errno::Perm : Errno::Srch);
  }
  tty.foreground = group;
  return std::int64_t{0};
}

// TIOCSCTTY: a session leader without a terminal takes one; root may steal it with argument 1.
Result<std::int64_t> make_controlling(Tty &tty, Task &task, std::uint64_t argument) {
  Process &process = *task.process;
  if (process.sid == process.pid && process.controlling_tty == &tty) return std::int64_t{0};
  if (process.sid != process.pid || process.controlling_tty != nullptr) return Err(Errno::Perm);
  if (tty.session != 0) {
    if (argument != 1 || !task.credentials.capable(Capability::SysAdmin)) return Err(Errno::Perm);
    const int old_session = tty.session;
    for_each_process([&](Process &p) {
      if (p.sid == old_session && p.controlling_tty == &tty) p.controlling_tty = nullptr;
    });
  }
  tty_set_controlling(tty, process);
  return std::int64_t{0};
}

Result<std::int64_t> give_up(Tty &tty, Task &task) {
  Process &process = *task.process;
  if (process.controlling_tty != &tty) return Err(Errno::NotTty);
  if (process.sid == process.pid) {
    tty_disassociate(process);
  } else {
    process.controlling_tty = nullptr;
  }
  return std::int64_t{0};
}

Result<std::int64_t> flush(Tty &tty, std::uint64_t which) {
  if (which > kTCIOFLUSH) return Err(Errno::Inval);
  if (which != kTCOFLUSH) {
    tty.ldisc.flush_input();
    tty.after_read();
  }
  if (which != kTCIFLUSH) tty.ldisc.flush_output();
  return std::int64_t{0};
}

Result<std::int64_t> flow(Tty &tty, std::uint64_t action) {
  const auto send = [&](std::size_t cc) {
    const auto c = static_cast<std::byte>(tty.ldisc.termios().cc[cc]);
    if (c != std::byte{kVDisable}) tty.port.write(std::span(&c, 1));
  };
  switch (action) {
    case kTCOOFF:
      tty.ldisc.stop_output();
      return std::int64_t{0};
    case kTCOON:
      tty.ldisc.start_output();
      return std::int64_t{0};
    case kTCIOFF:
      send(kVSTOP);
      return std::int64_t{0};
    case kTCION:
      send(kVSTART);
      return std::int64_t{0};
    default:
      return Err(Errno::Inval);
  }
}

Result<std::int64_t> window_ioctl(Tty &tty, std::uint32_t command, std::uint64_t argument) {
  if (command == kTIOCGWINSZ) {
    TRY(UserPtr<Winsize>(argument).write(tty.window));
    return std::int64_t{0};
  }
  const Winsize size = TRY(UserPtr<Winsize>(argument).read());
  tty.set_window(size);
  tty.port.window_size_changed(size.rows, size.columns);
  return std::int64_t{0};
}

Result<std::int64_t> termios_ioctl(Tty &tty, Task &task, std::uint32_t command,
                                   std::uint64_t argument) {
  switch (command) {
    case kTCGETS:
      TRY(UserPtr<Termios>(argument).write(to_termios(tty.ldisc.termios())));
      return std::int64_t{0};
    case kTCSETS:
      return set_from_termios(tty, task, argument, When::Now);
    case kTCSETSW:
      return set_from_termios(tty, task, argument, When::AfterDrain);
    case kTCSETSF:
      return set_from_termios(tty, task, argument, When::AfterDrainFlush);
    case kTCGETS2:
      TRY(UserPtr<Termios2>(argument).write(tty.ldisc.termios()));
      return std::int64_t{0};
    case kTCSETS2:
      return set_from_termios2(tty, task, argument, When::Now);
    case kTCSETSW2:
      return set_from_termios2(tty, task, argument, When::AfterDrain);
    case kTCSETSF2:
      return set_from_termios2(tty, task, argument, When::AfterDrainFlush);
    case kTCGETA:
      return get_termio(tty, argument);
    case kTCSETA:
      return set_from_termio(tty, task, argument, When::Now);
    case kTCSETAW:
      return set_from_termio(tty, task, argument, When::AfterDrain);
    case kTCSETAF:
      return set_from_termio(tty, task, argument, When::AfterDrainFlush);
    default:
      return Err(Errno::NotTty);
  }
}

// A break of tcsendbreak(3). Where the other side knows none there is nothing to do, as Linux's
// drivers have it.
Result<std::int64_t> send_break(Tty &tty, std::int64_t duration_ns) {
  if (!tty.port.set_break(true)) return std::int64_t{0};
  const auto slept =
      sleep_until(clock::monotonic_ns() + duration_ns, SleepMode::Interruptible, "tty_break");
  TRY(tty.port.set_break(false));
  if (!slept && !slept.is(Errno::TimedOut)) return Err(slept.error());
  return std::int64_t{0};
}

Result<std::int64_t> break_ioctl(Tty &tty, Task &task, std::uint32_t command,
                                 std::uint64_t argument) {
  constexpr std::int64_t kBreakNs = 250'000'000, kUnitNs = 100'000'000;
  TRY(check_background(tty, task, kSigTtou));
  if (command != kTIOCCBRK) TRY(wait_drained(tty));
  switch (command) {
    case kTIOCSBRK:
    case kTIOCCBRK:
      TRY(tty.port.set_break(command == kTIOCSBRK));
      return std::int64_t{0};
    case kTCSBRK:
      if (argument != 0) return std::int64_t{0};  // tcdrain(3)
      return send_break(tty, kBreakNs);
    default:
      return send_break(
          tty, argument == 0
                   ? kBreakNs
                   : static_cast<std::int64_t>(std::min(argument, std::uint64_t{600})) * kUnitNs);
  }
}

// The session and job control ioctls.
Result<std::int64_t> session_ioctl(Tty &tty, Task &task, std::uint32_t command,
                                   std::uint64_t argument) {
  Process &process = *task.process;
  switch (command) {
    case kTIOCGPGRP:
      if (process.controlling_tty != &tty) return Err(Errno::NotTty);
      return put_int(argument, tty.foreground);
    case kTIOCSPGRP:
      return set_foreground(tty, task, argument);
    case kTIOCGSID:
      if (process.controlling_tty != &tty || tty.session == 0) return Err(Errno::NotTty);
      return put_int(argument, tty.session);
    case kTIOCSCTTY:
      return make_controlling(tty, task, argument);
    case kTIOCNOTTY:
      return give_up(tty, task);
    case kTIOCVHANGUP:
      if (!task.credentials.capable(Capability::SysAdmin)) return Err(Errno::Perm);
      tty.hangup(Tty::Hangup::ByGuest);
      return std::int64_t{0};
    default:
      return Err(Errno::NotTty);
  }
}

}  // namespace

Result<std::int64_t> put_int(std::uint64_t argument, std::int64_t value) {
  TRY(UserPtr<std::int32_t>(argument).write(static_cast<std::int32_t>(value)));
  return std::int64_t{0};
}

Result<std::int64_t> tty_ioctl(Tty &tty, Task &task, std::uint32_t command,
                               std::uint64_t argument) {
  switch (command) {
    case kTIOCGWINSZ:
    case kTIOCSWINSZ:
      return window_ioctl(tty, command, argument);
    case kTCFLSH:
      TRY(check_background(tty, task, kSigTtou));
      return flush(tty, argument);
    case kTCXONC:
      TRY(check_background(tty, task, kSigTtou));
      return flow(tty, argument);
    case kTCSBRK:
    case kTCSBRKP:
    case kTIOCSBRK:
    case kTIOCCBRK:
      return break_ioctl(tty, task, command, argument);
    case kTIOCOUTQ:
      return put_int(argument, static_cast<std::int64_t>(tty.ldisc.queued_output()));
    case kTIOCINQ:
      return put_int(argument, static_cast<std::int64_t>(tty.ldisc.available()));
    case kTIOCEXCL:
      tty.exclusive = true;
      return std::int64_t{0};
    case kTIOCNXCL:
      tty.exclusive = false;
      return std::int64_t{0};
    case kTIOCGEXCL:
      return put_int(argument, tty.exclusive ? 1 : 0);
    case kTIOCGETD:
      return put_int(argument, 0);  // N_TTY
    case kTIOCSETD:
      if (TRY(UserPtr<std::int32_t>(argument).read()) != 0) return Err(Errno::Inval);
      return std::int64_t{0};
    case kTIOCGDEV:
      return put_int(argument, static_cast<std::int32_t>(tty.number.encode()));
    case kTIOCSTI:
      return Err(Errno::Io);  // refused, as Linux 6.2 and later do without CONFIG_LEGACY_TIOCSTI
    default:
      break;
  }
  const auto result = termios_ioctl(tty, task, command, argument);
  if (!result.is(Errno::NotTty)) return Result<std::int64_t>(result);
  return session_ioctl(tty, task, command, argument);
}

}  // namespace cowbird
