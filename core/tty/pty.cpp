#include "tty/pty.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>

#include "abi/fcntl.hpp"
#include "abi/poll.hpp"
#include "mm/user_access.hpp"
#include "sched/clock.hpp"
#include "tty/tty_impl.hpp"

namespace cowbird {

using namespace abi;

namespace {

constexpr std::uint32_t kPtmxMinor = 2;
// What the slave's side may have written before the master reads it.
constexpr std::size_t kMasterBuffer = 65536;
constexpr std::size_t kPiece = 4096;

// The wire between the two: the slave's port, and the master's buffer. Lives as long as either end.
class PtyPair final : public RefCounted<PtyPair>, public TtyPort {
 public:
  PtyPair(unsigned number, const Credentials &owner)
      : info{number, owner.fsuid, owner.fsgid, clock::realtime_ns()} {}

  // TtyPort: the slave's output.
  std::size_t write(std::span<const std::byte> bytes) override {
    if (!master_open) return bytes.size();  // nobody will ever read it
    const std::size_t room = kMasterBuffer - std::min(kMasterBuffer, buffer.size());
    const std::size_t taken = std::min(room, bytes.size());
    buffer.insert(buffer.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
    if (taken > 0) read_wait.wake_all(kPOLLIN | kPOLLRDNORM);
    return taken;
  }
  void throttle(bool on) override {
    if (!on) write_wait.wake_all(kPOLLOUT | kPOLLWRNORM);
  }
  void first_open() override { slave_closed = false; }
  // As on Linux the master sees an end only when the dead descriptors are closed too.
  void hung_up_by_guest() override {}
  void dead_closed() override { last_close(); }
  void last_close() override {
    slave_closed = true;
    read_wait.wake_all(kPOLLHUP);
  }

  const PtyInfo info;
  bool locked = true;
  bool master_open = true;
  bool slave_closed = false;  // it was open once, and is not now
  std::deque<std::byte> buffer;
  WaitQueue read_wait, write_wait;
};

// The slave's Tty keeps a reference to its port's pair.
struct Slave {
  Ref<PtyPair> pair;
  Ref<Tty> tty;
};
std::map<unsigned, Slave> &pairs() {
  static auto *const table = new std::map<unsigned, Slave>;
  return *table;
}

Result<unsigned> free_index() {
  for (unsigned index = 0; index < kMaxPtys; ++index) {
    if (!pairs().contains(index)) return index;
  }
  return Err(Errno::NoSpc);
}

Result<Ref<File>> open_slave(unsigned index, std::uint32_t flags) {
  const auto found = pairs().find(index);
  if (found == pairs().end()) return Err(Errno::NxIo);
  if (found->second.pair->locked) return Err(Errno::Io);
  return tty_open(*found->second.tty, flags);
}

class PtyMaster final : public File {
 public:
  PtyMaster(Slave slave, std::uint32_t flags)
      : File(flags), pair_(std::move(slave.pair)), tty_(std::move(slave.tty)) {}
  ~PtyMaster() override {
    pair_->master_open = false;
    pairs().erase(pair_->info.index);
    tty_hangup(*tty_);
  }

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    if (to.remaining() == 0) return std::uint64_t{0};
    if (pair_->buffer.empty()) {
      if (pair_->slave_closed) return Err(Errno::Io);
      if (nonblocking()) return Err(Errno::Again);
      TRY(wait_event(
          pair_->read_wait, [&] { return !pair_->buffer.empty() || pair_->slave_closed; },
          SleepMode::Interruptible, "ptmx_read"));
      if (pair_->buffer.empty()) return Err(Errno::Io);
    }
    std::array<std::byte, kPiece> piece;
    const std::size_t size =
        std::min<std::uint64_t>({piece.size(), to.remaining(), pair_->buffer.size()});
    std::copy_n(pair_->buffer.begin(), size, piece.begin());
    pair_->buffer.erase(pair_->buffer.begin(),
                        pair_->buffer.begin() + static_cast<std::ptrdiff_t>(size));
    tty_port_writable(*tty_);
    return to.copy_to(std::span(piece).first(size));
  }

  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override {
    std::uint64_t total = 0;
    while (from.remaining() > 0) {
      const auto room = wait_for_room();
      if (!room) return total > 0 ? Result<std::uint64_t>(total) : Err(room.error());
      std::array<std::byte, kPiece> piece;
      const std::size_t want = std::min({piece.size(), tty_input_room(*tty_)});
      const auto copied = from.copy_from(std::span(piece).first(want));
      if (!copied) return total > 0 ? Result<std::uint64_t>(total) : Err(copied.error());
      tty_input(*tty_, std::span(piece).first(*copied));
      total += *copied;
    }
    return total;
  }

  std::uint32_t poll(PollTable *table) override {
    if (table) {
      table->wait(pair_->read_wait);
      table->wait(pair_->write_wait);
    }
    std::uint32_t events = 0;
    if (!pair_->buffer.empty()) events |= kPOLLIN | kPOLLRDNORM;
    if (pair_->slave_closed) events |= kPOLLHUP;
    if (tty_input_room(*tty_) > 0) events |= kPOLLOUT | kPOLLWRNORM;
    return events;
  }

  Result<std::int64_t> ioctl(Task &task, std::uint32_t command, std::uint64_t argument) override;
  std::string describe() const override { return "/dev/ptmx"; }

 private:
  Result<void> wait_for_room() {
    if (tty_input_room(*tty_) > 0) return {};
    if (nonblocking()) return Err(Errno::Again);
    return wait_event(
        pair_->write_wait, [&] { return tty_input_room(*tty_) > 0; }, SleepMode::Interruptible,
        "ptmx_write");
  }
  Result<std::int64_t> open_peer(Task &task, std::uint64_t flags) {
    // By its name where devpts is in its place, so that ttyname(3) finds it.
    const std::string name = fmt::format("/dev/pts/{}", pair_->info.index);
    const WalkContext walk{*task.fs, task.credentials, task.fs->root};
    auto named = open_path(walk, name, static_cast<std::uint32_t>(flags), 0);
    if (!named) named = open_slave(pair_->info.index, static_cast<std::uint32_t>(flags));
    Ref<File> file = TRY(std::move(named));
    return std::int64_t{TRY(task.files->install(std::move(file), (flags & kO_CLOEXEC) != 0,
                                                task.process->limit(Limit::NoFile)))};
  }

  Ref<PtyPair> pair_;
  Ref<Tty> tty_;
};

Result<std::int64_t> PtyMaster::ioctl(Task &task, std::uint32_t command, std::uint64_t argument) {
  constexpr std::uint32_t kTIOCSIG = 0x40045436;
  switch (command) {
    case kTIOCGPTN:
      return put_int(argument, pair_->info.index);
    case kTIOCSPTLCK:
      pair_->locked = TRY(UserPtr<std::int32_t>(argument).read()) != 0;
      return std::int64_t{0};
    case kTIOCGPTLCK:
      return put_int(argument, pair_->locked ? 1 : 0);
    case kTIOCGPTPEER:
      return open_peer(task, argument);
    case kTIOCSIG:
      // Those that could be typed: the group may be another user's programs (su).
      if (argument != kSigInt && argument != kSigQuit && argument != kSigTstp)
        return Err(Errno::Inval);
      tty_->signal_foreground(static_cast<int>(argument));
      return std::int64_t{0};
    case kTIOCGPGRP:
      return put_int(argument, tty_->foreground);
    case kTIOCGSID:
      if (tty_->session == 0) return Err(Errno::NotTty);
      return put_int(argument, tty_->session);
    case kTIOCINQ:
      return put_int(argument, static_cast<std::int64_t>(pair_->buffer.size()));
    case kTIOCOUTQ:
      return put_int(argument, 0);  // input goes to the slave's discipline at once
    case kTIOCSCTTY:
    case kTIOCNOTTY:
    case kTIOCSPGRP:
      return Err(Errno::NotTty);
    default:
      // Modes and window are the pair's, as seen from either end.
      return tty_ioctl(*tty_, task, command, argument);
  }
}

Result<Ref<File>> open_ptmx(Inode &, DeviceNumber, std::uint32_t flags) {
  const unsigned index = TRY(free_index());
  Slave slave;
  slave.pair = make_ref<PtyPair>(index, current_task().credentials);
  slave.tty = make_tty(fmt::format("pts/{}", index), {kPtsMajor, index}, *slave.pair);
  slave.tty->keep_alive(slave.pair);
  pairs()[index] = slave;
  return Ref<File>(make_ref<PtyMaster>(std::move(slave), flags));
}

}  // namespace

void for_each_pty(const std::function<void(const PtyInfo &)> &function) {
  for (const auto &[index, slave] : pairs()) function(slave.pair->info);
}

bool find_pty(unsigned index, PtyInfo &out) {
  const auto found = pairs().find(index);
  if (found == pairs().end()) return false;
  const PtyInfo &info = found->second.pair->info;
  out.index = info.index;
  out.uid = info.uid;
  out.gid = info.gid;
  out.created_ns = info.created_ns;
  return true;
}

Result<void> register_pty_devices() {
  TRY(register_char_device("/dev/ptmx", kTtyAuxMajor, kPtmxMinor, 1, open_ptmx));
  return register_char_device("pts", kPtsMajor, 0, kMaxPtys,
                              [](Inode &, DeviceNumber number, std::uint32_t flags) {
                                return open_slave(number.minor, flags);
                              });
}

}  // namespace cowbird
