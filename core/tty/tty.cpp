#include <algorithm>
#include <array>
#include <vector>

#include "base/log.hpp"
#include "sched/clock.hpp"
#include "tty/tty_impl.hpp"

namespace cowbird {

using namespace abi;

namespace {

constexpr std::uint32_t kPollIn = 0x0001, kPollOut = 0x0004, kPollErr = 0x0008, kPollHup = 0x0010,
                        kPollRdNorm = 0x0040, kPollWrNorm = 0x0100;
constexpr std::uint32_t kNoCtty = 0400;  // O_NOCTTY
constexpr std::size_t kWriteChunk = 512;
constexpr std::int64_t kVtimeUnitNs = 100'000'000;
// Below this many free bytes of output a poller is not told that it may write.
constexpr std::size_t kWritableRoom = 256;

std::vector<Tty *> &all_ttys() {
  static std::vector<Tty *> list;
  return list;
}

void clear_session(int session, Tty *tty) {
  for_each_process([&](Process &process) {
    if (process.sid == session && process.controlling_tty == tty) process.controlling_tty = nullptr;
  });
}

SignalInfo kernel_signal(int signal) {
  SignalInfo info;
  info.signal = signal;
  info.code = 0x80;  // SI_KERNEL
  return info;
}

void hang_up_group(int group) {
  if (group == 0) return;
  send_group_signal(group, kernel_signal(kSigHup));
  send_group_signal(group, kernel_signal(kSigCont));
}

}  // namespace

Tty::Tty(std::string n, DeviceNumber num, TtyPort &p)
    : name(std::move(n)), number(num), port(p), ldisc(*this) {
  all_ttys().push_back(this);
}

Tty::~Tty() {
  remove_console_tap(*this);
  std::erase(all_ttys(), this);
  if (session != 0) clear_session(session, this);
}

void Tty::signal_foreground(int signal) {
  if (foreground != 0) send_group_signal(foreground, kernel_signal(signal));
}

void Tty::input_ready() { read_wait.wake_all(kPollIn | kPollRdNorm); }

void Tty::output_ready() {
  flush_to_port();
  if (ldisc.output_room() >= kWritableRoom) write_wait.wake_all(kPollOut | kPollWrNorm);
}

void Tty::flush_to_port() {
  // The port may call back (a pty's reader echoes); one level does the work.
  if (flushing || !active) return;
  flushing = true;
  while (true) {
    auto pending = ldisc.pending_output();
    if (tap) pending = pending.first(std::min(pending.size(), tap->output_room()));
    if (pending.empty()) break;
    const std::size_t taken = port.write(pending);
    if (taken == 0) break;
    if (tap) tap->record(pending.first(taken));
    if (record) record->output(pending.first(taken));
    ldisc.consume_output(taken);
  }
  if (ldisc.queued_output() == 0) port.drained();
  flushing = false;
}

void Tty::end_input() {
  if (std::exchange(input_ended, true)) return;
  end_reader = -1;
  // A line without its end is a line all the same.
  const auto eof = static_cast<std::byte>(ldisc.termios().cc[kVEOF]);
  if (ldisc.unfinished_line() && eof != std::byte{kVDisable}) ldisc.receive(std::span(&eof, 1));
  read_wait.wake_all(kPollIn | kPollRdNorm);
}

void Tty::continue_input() { input_ended = false; }

bool Tty::at_end() const {
  if (!input_ended || ldisc.readable(1)) return false;
  const Task *const reader = current_thread()->as_task();
  return reader != nullptr && (end_reader == -1 || end_reader == reader->process->sid);
}

void Tty::after_read() {
  if (throttled && ldisc.input_room() > LineDiscipline::kLineMax / 2) {
    throttled = false;
    port.throttle(false);
  }
  if (tap) tap->after_read();
}

Result<void> Tty::activate() {
  if (active) return {};
  TRY(port.activate());
  active = true;
  flush_to_port();
  return {};
}

void Tty::hangup(Hangup by) {
  ++generation;
  const bool closed = opens != 0 && lasting == 0;
  dead_files += opens - lasting;
  opens = lasting;
  exclusive = false;
  if (opens == 0) record.reset();
  if (session != 0) {
    if (Ref<Process> leader = find_process(session)) {
      send_kernel_signal(*leader, kSigHup);
      send_kernel_signal(*leader, kSigCont);
      leader->hung_up_group = by == Hangup::WithSession ? 0 : foreground;
    }
    if (by == Hangup::WithSession) hang_up_group(foreground);
    clear_session(session, this);
    session = foreground = 0;
  }
  ldisc.flush_input();
  // What was written before is the peer's, if there still is one.
  if (by == Hangup::ByPort) ldisc.flush_output();
  // Who stopped it is not there any more to let it go on.
  if (ldisc.stopped()) ldisc.start_output();
  ldisc.set_termios(LineDiscipline::default_termios());
  read_wait.wake_all(kPollIn | kPollHup);
  write_wait.wake_all(kPollOut | kPollHup);
  if (!closed) return;
  if (by == Hangup::ByGuest) {
    port.hung_up_by_guest();
  } else {
    port.last_close();
  }
}

void Tty::released() {
  exclusive = false;
  record.reset();
  if (session != 0 && !kernel_console) {
    clear_session(session, this);
    session = foreground = 0;
  }
  port.last_close();
}

void Tty::set_window(const Winsize &size) {
  const bool changed = size.rows != window.rows || size.columns != window.columns ||
                       size.width_px != window.width_px || size.height_px != window.height_px;
  window = size;
  if (!changed) return;
  signal_foreground(kSigWinch);
  if (record) record->window(size.columns, size.rows);
  if (tap) tap->window_changed(size.rows, size.columns);
}

// --- the open file

TtyFile::TtyFile(Ref<Tty> tty, std::uint32_t flags, OpenedAs opened_as)
    : File(flags), tty_(std::move(tty)), generation_(tty_->generation), opened_as_(opened_as) {
  if (lasts()) ++tty_->lasting;
  if (tty_->opens++ != 0) return;
  tty_->record = TtyRecord::start(tty_->name, tty_->window.columns, tty_->window.rows);
  tty_->port.first_open();
}

TtyFile::~TtyFile() {
  if (dead()) {
    if (--tty_->dead_files == 0 && tty_->opens == 0) tty_->port.dead_closed();
    return;
  }
  if (lasts()) --tty_->lasting;
  if (--tty_->opens == 0) tty_->released();
}

Result<void> check_background(Tty &tty, Task &task, int signal) {
  Process &process = *task.process;
  if (process.controlling_tty != &tty || tty.foreground == 0 || process.pgid == tty.foreground) {
    return {};
  }
  const SignalAction &action = process.handlers->actions[static_cast<std::size_t>(signal - 1)];
  const bool ignored = task.blocked.has(signal) || action.handler == 1;
  // A write or a change goes through when SIGTTOU would not be seen; a read cannot (tcsetpgrp(3),
  // read(2)).
  if (ignored) {
    if (signal == kSigTtin) return Err(Errno::Io);
    return {};
  }
  if (process_group_orphaned(process.pgid)) return Err(Errno::Io);
  send_group_signal(process.pgid, kernel_signal(signal));
  return Err(Errno::RestartSys);
}

Result<void> TtyFile::take_turn(SleepMutex &lock) const {
  if (!nonblocking()) return lock.lock_interruptible();
  if (!lock.try_lock()) return Err(Errno::Again);
  return {};
}

Result<std::uint64_t> TtyFile::read(IovIter &to, std::uint64_t &) {
  if (dead()) return std::uint64_t{0};
  if (to.remaining() == 0) return std::uint64_t{0};
  if (opened_as_ != OpenedAs::Console) TRY(check_background(*tty_, current_task(), kSigTtin));
  // The holder may wait for the keyboard.
  TRY(take_turn(tty_->read_lock));
  const SleepUnlock guard(tty_->read_lock);
  auto result = tty_->ldisc.canonical() ? read_canonical(to) : read_raw(to);
  tty_->after_read();
  return result;
}

Result<std::uint64_t> TtyFile::take(IovIter &to, bool &eof) {
  std::array<std::byte, LineDiscipline::kLineMax> buffer;
  const std::size_t want = std::min<std::uint64_t>(buffer.size(), to.remaining());
  const std::size_t got = tty_->ldisc.read(std::span(buffer).first(want), eof);
  if (got == 0) return std::uint64_t{0};
  return to.copy_to(std::span(buffer).first(got));
}

bool TtyFile::readable(std::size_t minimum) const {
  if (dead() || tty_->ldisc.readable(minimum)) return true;
  return tty_->input_ended && (tty_->ldisc.readable(1) || tty_->at_end());
}

Result<void> TtyFile::wait_readable(std::size_t minimum, std::int64_t deadline_ns) {
  if (nonblocking() && !readable(minimum)) return Err(Errno::Again);
  return wait_event(
      tty_->read_wait, [&] { return readable(minimum); }, SleepMode::Interruptible, "tty_read",
      deadline_ns);
}

Result<std::uint64_t> TtyFile::read_canonical(IovIter &to) {
  while (true) {
    TRY(wait_readable(1, kNoDeadline));
    if (dead()) return std::uint64_t{0};
    if (!tty_->ldisc.canonical()) return read_raw(to);
    bool eof = false;
    const std::uint64_t got = TRY(take(to, eof));
    if (got > 0 || eof) return got;
    if (tty_->at_end()) return take_end();
  }
}

std::uint64_t TtyFile::take_end() {
  if (!dead()) tty_->end_reader = current_task().process->sid;
  return 0;
}

// The four cases of termios(3), "Canonical and noncanonical mode".
Result<std::uint64_t> TtyFile::read_raw(IovIter &to) {
  const std::size_t vmin = tty_->ldisc.termios().cc[kVMIN];
  const std::int64_t vtime = tty_->ldisc.termios().cc[kVTIME] * kVtimeUnitNs;
  const std::size_t minimum = std::min<std::uint64_t>(vmin, to.remaining());
  bool eof = false;
  if (vmin == 0) {
    if (vtime == 0 || nonblocking()) {
      if (nonblocking() && vtime != 0 && !tty_->ldisc.readable(1)) return Err(Errno::Again);
      return take(to, eof);
    }
    const auto waited = wait_readable(1, clock::monotonic_ns() + vtime);
    if (!waited && !waited.is(Errno::TimedOut)) return Err(waited.error());
    return take(to, eof);
  }
  if (vtime == 0 || nonblocking()) {
    TRY(wait_readable(nonblocking() ? 1 : minimum, kNoDeadline));
    if (tty_->at_end()) return take_end();
    return take(to, eof);
  }
  TRY(wait_readable(1, kNoDeadline));
  if (tty_->at_end()) return take_end();
  for (std::size_t had = 0; had < minimum && !dead() && !tty_->input_ended;) {
    had = tty_->ldisc.available();
    const auto waited = wait_readable(std::min(had + 1, minimum), clock::monotonic_ns() + vtime);
    if (waited.is(Errno::TimedOut)) break;
    if (!waited) return Err(waited.error());
  }
  return take(to, eof);
}

Result<std::uint64_t> TtyFile::write(IovIter &from, std::uint64_t &) {
  if (dead()) return Err(Errno::Io);
  if ((tty_->ldisc.termios().lflag & kTOSTOP) && opened_as_ != OpenedAs::Console) {
    TRY(check_background(*tty_, current_task(), kSigTtou));
  }
  TRY(take_turn(tty_->write_lock));
  const SleepUnlock guard(tty_->write_lock);
  std::uint64_t total = 0;
  while (from.remaining() > 0) {
    std::array<std::byte, kWriteChunk> chunk;
    const auto copied = from.copy_from(chunk);
    if (!copied) return total > 0 ? Result<std::uint64_t>(total) : Err(copied.error());
    std::size_t done = 0;
    while (done < *copied) {
      if (dead()) return total > 0 ? Result<std::uint64_t>(total) : Err(Errno::Io);
      const std::size_t taken = tty_->ldisc.write(std::span(chunk).subspan(done, *copied - done));
      done += taken;
      total += taken;
      if (done == *copied) break;
      Result<void> waited = Err(Errno::Again);
      if (!nonblocking()) {
        waited = wait_event(
            tty_->write_wait, [&] { return dead() || tty_->ldisc.output_room() > 0; },
            SleepMode::Interruptible, "tty_write");
      }
      if (!waited) {
        from.revert(*copied - done);
        return total > 0 ? Result<std::uint64_t>(total) : Err(waited.error());
      }
    }
  }
  return total;
}

std::size_t TtyFile::poll_minimum() const {
  const Termios2 &t = tty_->ldisc.termios();
  return t.cc[kVTIME] == 0 && t.cc[kVMIN] > 0 ? t.cc[kVMIN] : 1;
}

std::uint32_t TtyFile::poll(PollTable *table) {
  if (dead()) return kPollIn | kPollOut | kPollErr | kPollHup | kPollRdNorm | kPollWrNorm;
  if (table) {
    table->wait(tty_->read_wait);
    table->wait(tty_->write_wait);
  }
  std::uint32_t events = 0;
  if (readable(poll_minimum())) events |= kPollIn | kPollRdNorm;
  if (tty_->ldisc.output_room() >= kWritableRoom) events |= kPollOut | kPollWrNorm;
  return events;
}

Result<std::int64_t> TtyFile::ioctl(Task &task, std::uint32_t command, std::uint64_t argument) {
  if (dead()) return Err(command == kTIOCSPGRP ? Errno::NotTty : Errno::Io);
  return tty_ioctl(*tty_, task, command, argument);
}

// --- for ports and the kernel

Ref<Tty> make_tty(std::string name, DeviceNumber number, TtyPort &port) {
  return make_ref<Tty>(std::move(name), number, port);
}

void tty_input(Tty &tty, std::span<const std::byte> bytes) {
  if (tty.record) tty.record->input(bytes);
  tty.ldisc.receive(bytes);
  if (!tty.throttled && tty.ldisc.input_room() == 0) {
    tty.throttled = true;
    tty.port.throttle(true);
  }
}

void tty_end_input(Tty &tty) { tty.end_input(); }
void tty_continue_input(Tty &tty) { tty.continue_input(); }
void tty_input_break(Tty &tty) { tty.ldisc.receive_break(); }
std::size_t tty_input_room(const Tty &tty) { return tty.ldisc.input_room(); }
void tty_port_writable(Tty &tty) { tty.output_ready(); }
void tty_hangup(Tty &tty) { tty.hangup(Tty::Hangup::ByPort); }

void tty_set_window_size(Tty &tty, std::uint16_t rows, std::uint16_t columns) {
  tty.set_window({rows, columns, tty.window.width_px, tty.window.height_px});
}

void tty_set_controlling(Tty &tty, Process &leader) {
  tty.session = leader.sid;
  tty.foreground = leader.pgid;
  leader.controlling_tty = &tty;
  leader.hung_up_group = 0;
}

namespace {

Result<Ref<File>> open_as(Tty &tty, std::uint32_t flags, TtyFile::OpenedAs opened_as) {
  Task *const task = current_thread()->as_task();
  if (task == nullptr) {  // the kernel itself, for the first program
    TRY(tty.activate());
    if (opened_as == TtyFile::OpenedAs::Console) opened_as = TtyFile::OpenedAs::Stdio;
    return Ref<File>(make_ref<TtyFile>(Ref<Tty>(&tty), flags, opened_as));
  }
  if (tty.exclusive && !task->credentials.capable(Capability::SysAdmin)) return Err(Errno::Busy);
  TRY(tty.activate());
  Process &process = *task->process;
  if (!(flags & kNoCtty) && process.sid == process.pid && process.controlling_tty == nullptr &&
      tty.session == 0) {
    tty_set_controlling(tty, process);
  }
  return Ref<File>(make_ref<TtyFile>(Ref<Tty>(&tty), flags, opened_as));
}

}  // namespace

Result<Ref<File>> tty_open(Tty &tty, std::uint32_t flags) {
  return open_as(tty, flags, TtyFile::OpenedAs::Itself);
}

Result<Ref<File>> tty_file(Tty &tty, std::uint32_t flags) {
  TRY(tty.activate());
  return Ref<File>(make_ref<TtyFile>(Ref<Tty>(&tty), flags));
}

void tty_disassociate(Process &leader) {
  Tty *tty = leader.controlling_tty;
  if (tty == nullptr || tty->session != leader.sid) return;
  hang_up_group(tty->foreground);
  clear_session(leader.sid, tty);
  tty->session = tty->foreground = 0;
}

void tty_end_session(Process &leader) {
  const int group = std::exchange(leader.hung_up_group, 0);
  Tty *const tty = leader.controlling_tty;
  if (tty == nullptr || tty->session != leader.sid) return hang_up_group(group);
  if (tty->port.hangs_up_with_session()) return tty->hangup(Tty::Hangup::WithSession);
  tty_disassociate(leader);
}

void tty_vhangup(Process &process) {
  if (Tty *const tty = process.controlling_tty) tty->hangup(Tty::Hangup::ByGuest);
}

DeviceNumber tty_device_number(const Tty &tty) { return tty.number; }
int tty_foreground_group(const Tty &tty) { return tty.foreground; }
void tty_unlist(Tty &tty) { std::erase(all_ttys(), &tty); }

void tty_kernel_write(Tty &tty, std::string_view text) {
  tty.ldisc.write(std::as_bytes(std::span(text)));
}

void tty_drain(Tty &tty, std::int64_t deadline_ns) {
  // What stays queued at the deadline is lost: the peer does not read, and the guest must end.
  [[maybe_unused]] const auto drained = wait_event(
      tty.write_wait, [&] { return tty.ldisc.queued_output() == 0 || tty.ldisc.stopped(); },
      SleepMode::Uninterruptible, "tty_drain", deadline_ns);
  // Nobody says when the peer has got it.
  constexpr std::int64_t kLookNs = 10'000'000;
  while (tty.port.has_unsent() && clock::monotonic_ns() < deadline_ns) {
    [[maybe_unused]] const auto slept =
        sleep_until(std::min(deadline_ns, clock::monotonic_ns() + kLookNs),
                    SleepMode::Uninterruptible, "tty_drain");
  }
}

void for_each_tty(const std::function<void(const std::string &, DeviceNumber)> &function) {
  for (const Tty *tty : all_ttys()) function(tty->name, tty->number);
}

// --- devices

Result<void> register_tty_devices(std::function<Tty *()> console) {
  TRY(register_char_device("/dev/tty", kTtyAuxMajor, 0, 1,
                           [](Inode &, DeviceNumber, std::uint32_t flags) -> Result<Ref<File>> {
                             Tty *tty = current_task().process->controlling_tty;
                             if (tty == nullptr) return Err(Errno::NxIo);
                             return tty_open(*tty, flags | kNoCtty);
                           }));
  // As on Linux, opening /dev/console never makes it a controlling terminal.
  return register_char_device("/dev/console", kTtyAuxMajor, 1, 1,
                              [console = std::move(console)](
                                  Inode &, DeviceNumber, std::uint32_t flags) -> Result<Ref<File>> {
                                Tty *const tty = console();
                                if (tty == nullptr) return Err(Errno::NoDev);
                                return open_as(*tty, flags | kNoCtty, TtyFile::OpenedAs::Console);
                              });
}

}  // namespace cowbird
