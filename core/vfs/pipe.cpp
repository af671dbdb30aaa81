#include "vfs/pipe.hpp"

#include <algorithm>
#include <unordered_map>

#include "abi/fcntl.hpp"
#include "abi/ioctl.hpp"
#include "abi/poll.hpp"
#include "abi/stat.hpp"
#include "mm/user_access.hpp"
#include "proc/signal.hpp"
#include "vfs/caller.hpp"

namespace cowbird {

namespace {

inline constexpr std::uint64_t kUserSlotLimit = 16384;  // pipe-user-pages-soft
inline constexpr std::uint32_t kSmallSlots = 2;         // a pipe of a user over the limit

// Slots of all pipes of a user. Protected by the big kernel lock.
std::unordered_map<std::uint32_t, std::uint64_t> &user_slots() {
  static auto *slots = new std::unordered_map<std::uint32_t, std::uint64_t>;
  return *slots;
}

void account(std::uint32_t uid, std::int64_t slots) {
  auto &entry = user_slots()[uid];
  entry += static_cast<std::uint64_t>(slots);
  if (entry == 0) user_slots().erase(uid);
}

}  // namespace

Pipe::Pipe(std::uint32_t owner_uid) : uid_(owner_uid) {
  const auto used = user_slots().find(uid_);
  const bool over =
      uid_ != 0 && used != user_slots().end() && used->second + kDefaultSlots > kUserSlotLimit;
  capacity_ = over ? kSmallSlots : kDefaultSlots;
  ring_.resize(capacity_);
  account(uid_, capacity_);
}

Pipe::~Pipe() {
  while (count_ > 0) consume(front().length);
  if (has_spare_) phys().put(spare_);
  account(uid_, -static_cast<std::int64_t>(capacity_));
}

Result<Pfn> Pipe::take_frame() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  return phys().alloc(Zero::No);
}

void Pipe::drop_frame(Pfn frame) {
  // The last reference: kept for the next write.
  if (!has_spare_ && phys().refs(frame) == 1) {
    has_spare_ = true;
    spare_ = frame;
    return;
  }
  phys().put(frame);
}

void Pipe::push(const PipeSlot &new_slot) {
  slot(count_) = new_slot;
  ++count_;
  bytes_ += new_slot.length;
}

void Pipe::consume(std::uint32_t bytes) {
  PipeSlot &first = front();
  first.offset += bytes;
  first.length -= bytes;
  bytes_ -= bytes;
  if (first.length > 0) return;
  const Pfn frame = first.frame;
  head_ = (head_ + 1) & static_cast<std::uint32_t>(ring_.size() - 1);
  --count_;
  drop_frame(frame);
}

void Pipe::wake_readers() { read_wait.wake_all(abi::kPOLLIN | abi::kPOLLRDNORM); }
void Pipe::wake_writers() { write_wait.wake_all(abi::kPOLLOUT | abi::kPOLLWRNORM); }

Result<void> Pipe::wait_readable(bool nonblocking) {
  if (!empty() || writers == 0) return {};
  if (nonblocking) return Err(Errno::Again);
  return wait_event(
      read_wait, [this] { return !empty() || writers == 0; }, SleepMode::Interruptible,
      "pipe_read");
}

Result<void> Pipe::wait_writable(bool nonblocking) {
  if (readers == 0) {
    caller::raise_signal(kSigPipe);
    return Err(Errno::Pipe);
  }
  if (!full()) return {};
  if (nonblocking) return Err(Errno::Again);
  TRY(wait_event(
      write_wait, [this] { return !full() || readers == 0; }, SleepMode::Interruptible,
      "pipe_write"));
  if (readers == 0) {
    caller::raise_signal(kSigPipe);
    return Err(Errno::Pipe);
  }
  return {};
}

Result<std::uint64_t> Pipe::read(IovIter &to, std::uint32_t flags) {
  if (to.remaining() == 0) return std::uint64_t{0};
  std::uint64_t total = 0;
  for (;;) {
    TRY(wait_readable(flags & abi::kO_NONBLOCK));
    if (empty()) return std::uint64_t{0};  // no writer is left
    SleepLock locked(mutex_);
    if (empty()) continue;  // another reader was faster
    const bool was_full = full();
    Result<std::uint64_t> copied = std::uint64_t{0};
    while (!empty() && to.remaining() > 0) {
      PipeSlot &first = front();
      const auto wanted =
          static_cast<std::uint32_t>(std::min<std::uint64_t>(first.length, to.remaining()));
      const bool packet = first.packet;
      copied = to.copy_to({phys().data(first.frame) + first.offset, wanted});
      if (!copied || *copied == 0) break;
      total += *copied;
      // What a packet's reader has no room for is lost.
      consume(packet ? first.length : static_cast<std::uint32_t>(*copied));
      if (packet || *copied < wanted) break;
    }
    if (was_full && !full()) wake_writers();
    if (total == 0 && !copied) return Err(copied.error());
    return total;
  }
}

// Fills up the last slot, if it is the pipe's own.
Result<std::uint64_t> Pipe::append_bytes(IovIter &from) {
  if (empty()) return std::uint64_t{0};
  PipeSlot &last = slot(count_ - 1);
  const std::uint64_t room = kPageSize - last.offset - last.length;
  if (!last.may_append || last.packet || room < std::min(from.remaining(), kAtomicBytes))
    return std::uint64_t{0};
  const std::uint64_t wanted = std::min(room, from.remaining());
  const std::uint64_t done =
      TRY(from.copy_from({phys().data(last.frame) + last.offset + last.length, wanted}));
  last.length += static_cast<std::uint32_t>(done);
  bytes_ += done;
  return done;
}

Result<std::uint64_t> Pipe::fill_slot(IovIter &from, bool packet) {
  const Pfn frame = TRY(take_frame());
  const std::uint64_t wanted = std::min(kPageSize, from.remaining());
  auto copied = from.copy_from({phys().data(frame), wanted});
  if (!copied || *copied == 0) {
    drop_frame(frame);
    return copied;
  }
  push({frame, 0, static_cast<std::uint32_t>(*copied), !packet, packet});
  return copied;
}

Result<std::uint64_t> Pipe::write(IovIter &from, std::uint32_t flags) {
  if (from.remaining() == 0) return std::uint64_t{0};
  const bool packet = flags & abi::kO_DIRECT;
  std::uint64_t total = 0;
  SleepLock locked(mutex_);
  for (bool first = true;; first = false) {
    if (readers == 0) {
      if (total > 0) return total;
      caller::raise_signal(kSigPipe);
      return Err(Errno::Pipe);
    }
    Result<std::uint64_t> copied = std::uint64_t{0};
    // Only the start of a write may join older bytes: a write of up to PIPE_BUF is in one piece.
    if (first && !packet) {
      copied = append_bytes(from);
      if (copied) total += *copied;
    }
    while (copied && from.remaining() > 0 && !full()) {
      copied = fill_slot(from, packet);
      if (!copied || *copied == 0) break;
      total += *copied;
    }
    // Sleepers wait for the first byte only, but edge-triggered pollers for every write.
    if (!empty()) wake_readers();
    if (!copied && total == 0) return Err(copied.error());
    if (!copied || from.remaining() == 0 || !full()) return total;
    if (flags & abi::kO_NONBLOCK) {
      if (total > 0) return total;
      return Err(Errno::Again);
    }
    // Readers need the mutex to make room.
    mutex_.unlock();
    auto slept = wait_event(
        write_wait, [this] { return !full() || readers == 0; }, SleepMode::Interruptible,
        "pipe_write");
    mutex_.lock();
    if (!slept) {
      if (total > 0) return total;
      return Err(slept.error());
    }
  }
}

std::uint32_t Pipe::poll(bool reader, bool writer, std::uint32_t opens_seen, PollTable *table) {
  if (table) {
    if (reader) table->wait(read_wait);
    if (writer) table->wait(write_wait);
  }
  std::uint32_t events = 0;
  if (reader) {
    if (!empty()) events |= abi::kPOLLIN | abi::kPOLLRDNORM;
    // A fifo that has had no writer since this end was opened is not hung up.
    if (writers == 0 && writer_opens != opens_seen) events |= abi::kPOLLHUP;
  }
  if (writer) {
    if (!full()) events |= abi::kPOLLOUT | abi::kPOLLWRNORM;
    if (readers == 0) events |= abi::kPOLLERR;
  }
  return events;
}

Result<std::uint64_t> Pipe::resize(std::uint64_t bytes, const Credentials &credentials) {
  if (bytes > (1u << 31)) return Err(Errno::Inval);
  std::uint32_t slots = 1;
  while (static_cast<std::uint64_t>(slots) * kPageSize < bytes) slots *= 2;
  if (slots > capacity_ && slots > kMaxSlots && !credentials.capable(Capability::SysResource))
    return Err(Errno::Perm);
  if (slots > kHardMaxSlots) return Err(Errno::NoMem);
  if (slots < count_) return Err(Errno::Busy);
  if (slots > capacity_ && !credentials.capable(Capability::SysResource) &&
      user_slots()[uid_] - capacity_ + slots > kUserSlotLimit) {
    return Err(Errno::Perm);
  }
  const bool was_full = full();
  std::vector<PipeSlot> ring(slots);
  for (std::uint32_t i = 0; i < count_; ++i) ring[i] = slot(i);
  ring_ = std::move(ring);
  head_ = 0;
  account(uid_, static_cast<std::int64_t>(slots) - static_cast<std::int64_t>(capacity_));
  capacity_ = slots;
  if (was_full && !full()) wake_writers();
  return static_cast<std::uint64_t>(slots) * kPageSize;
}

// --- the ends

class PipeFile final : public File {
 public:
  // `of_fifo`: no writer yet is no end of the file for a reader, as long as none has come.
  PipeFile(Ref<Pipe> pipe, std::uint32_t flags, bool of_fifo)
      : File(flags), pipe_(std::move(pipe)) {
    if (readable()) {
      ++pipe_->readers;
      ++pipe_->reader_opens;
    }
    if (writable()) {
      ++pipe_->writers;
      ++pipe_->writer_opens;
    }
    writers_seen_ = of_fifo && readable() && pipe_->writers == 0 ? pipe_->writer_opens : ~0u;
  }
  ~PipeFile() override {
    if (readable() && --pipe_->readers == 0) {
      pipe_->write_wait.wake_all(abi::kPOLLERR | abi::kPOLLOUT);
    }
    if (writable() && --pipe_->writers == 0) {
      pipe_->read_wait.wake_all(abi::kPOLLHUP | abi::kPOLLIN);
    }
    // A fifo's bytes are gone with its last user.
    if (pipe_->readers == 0 && pipe_->writers == 0) {
      while (!pipe_->empty()) pipe_->consume(pipe_->front().length);
    }
  }
  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    return pipe_->read(to, flags());
  }
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override {
    return pipe_->write(from, flags());
  }
  std::uint32_t poll(PollTable *table) override {
    return pipe_->poll(readable(), writable(), writers_seen_, table);
  }
  Result<std::int64_t> ioctl(Task &, std::uint32_t command, std::uint64_t argument) override {
    if (command != abi::kFIONREAD) return Err(Errno::NotTty);
    TRY(UserPtr<std::int32_t>(argument).write(
        static_cast<std::int32_t>(std::min<std::uint64_t>(pipe_->bytes(), INT32_MAX))));
    return 0;
  }
  Pipe &pipe() { return *pipe_; }

 private:
  Ref<Pipe> pipe_;
  // The count of writers' opens when a reader came and there was no writer; else a count that
  // never is.
  std::uint32_t writers_seen_;
};

Pipe *pipe_of(File &file) {
  auto *pipe_file = dynamic_cast<PipeFile *>(&file);
  return pipe_file ? &pipe_file->pipe() : nullptr;
}

namespace {

// Inode::attached of a fifo or of an anonymous pipe.
struct AttachedPipe {
  Ref<Pipe> pipe;
  bool anonymous = false;
};

AttachedPipe &attached_pipe(Inode &inode) {
  if (!inode.attached) {
    auto attached = std::make_shared<AttachedPipe>();
    attached->pipe = make_ref<Pipe>(caller::credentials().uid);
    inode.attached = attached;
  }
  return *std::static_pointer_cast<AttachedPipe>(inode.attached);
}

}  // namespace

Result<PipeEnds> make_pipe(std::uint32_t flags, const Credentials &owner) {
  if (File::open_count() + 2 > File::max_open()) return Err(Errno::NFile);
  Ref<Inode> inode = make_anonymous_inode(abi::kS_IFIFO | 0600, owner);
  AttachedPipe &attached = attached_pipe(*inode);
  attached.anonymous = true;
  PipeEnds ends;
  ends.reader =
      make_ref<PipeFile>(attached.pipe, abi::kO_RDONLY | (flags & abi::kO_NONBLOCK), false);
  ends.writer = make_ref<PipeFile>(
      attached.pipe, abi::kO_WRONLY | (flags & (abi::kO_NONBLOCK | abi::kO_DIRECT)), false);
  for (const Ref<File> &end : {ends.reader, ends.writer}) {
    end->inode = inode;
    end->credentials = owner;
  }
  return ends;
}

Result<Ref<File>> open_fifo(Inode &inode, std::uint32_t flags) {
  const Ref<Pipe> pipe = attached_pipe(inode).pipe;
  const std::uint32_t mode = flags & abi::kO_ACCMODE;
  const bool nonblocking = flags & abi::kO_NONBLOCK;
  if (mode == 3) return Err(Errno::Inval);
  // Opened anew by /proc/PID/fd/N, as /dev/stdin is: its other end may have gone for good, and
  // what it has written is still to be read.
  if (attached_pipe(inode).anonymous) return Ref<File>(make_ref<PipeFile>(pipe, flags, false));
  if (mode == abi::kO_WRONLY && nonblocking && pipe->readers == 0) return Err(Errno::NxIo);
  // Counted before waiting: the other side's open waits for us in turn.
  const std::uint32_t readers_before = pipe->reader_opens;
  const std::uint32_t writers_before = pipe->writer_opens;
  Ref<File> file = make_ref<PipeFile>(pipe, flags, true);
  pipe->open_wait.wake_all();
  if (nonblocking || mode == abi::kO_RDWR) return file;
  if (mode == abi::kO_RDONLY) {
    TRY(wait_event(
        pipe->open_wait, [&] { return pipe->writers > 0 || pipe->writer_opens != writers_before; },
        SleepMode::Interruptible, "fifo_open"));
  } else {
    TRY(wait_event(
        pipe->open_wait, [&] { return pipe->readers > 0 || pipe->reader_opens != readers_before; },
        SleepMode::Interruptible, "fifo_open"));
  }
  return file;
}

}  // namespace cowbird
