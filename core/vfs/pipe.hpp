// Pipes and fifos (pipe(7)): a ring of page slots in guest physical memory, with the two ends as
// Files. Needs the big kernel lock; reads and writes may sleep.
//
// Writers are woken only when the ring stops being full; readers by each write, which costs nothing
// when nobody is on the queue.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/ref.hpp"
#include "base/result.hpp"
#include "vfs/file.hpp"

namespace cowbird {

// One filled slot: bytes [offset, offset + length) of a frame on which the pipe holds a reference.
struct PipeSlot {
  Pfn frame = 0;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;
  bool may_append = false;  // the frame is the pipe's own: a later write may fill it up
  bool packet = false;      // O_DIRECT: one read takes at most this slot
};

class Pipe : public RefCounted<Pipe> {
 public:
  static constexpr std::uint32_t kDefaultSlots = 16;
  static constexpr std::uint32_t kMaxSlots =
      256;  // pipe-max-size, 1 MiB, for users without CAP_SYS_RESOURCE
  static constexpr std::uint32_t kHardMaxSlots = 1 << 15;  // 128 MiB
  static constexpr std::uint64_t kAtomicBytes = 4096;      // PIPE_BUF

  explicit Pipe(std::uint32_t owner_uid);
  ~Pipe();

  bool empty() const { return count_ == 0; }
  bool full() const { return count_ == capacity_; }
  std::uint32_t capacity() const { return capacity_; }
  std::uint32_t used() const { return count_; }
  std::uint64_t bytes() const { return bytes_; }
  PipeSlot &front() { return ring_[head_]; }
  PipeSlot &slot(std::uint32_t i) { return ring_[(head_ + i) & (ring_.size() - 1)]; }
  // Takes over a reference on the slot's frame. There must be room.
  void push(const PipeSlot &slot);
  // Drops `bytes` from the front.
  void consume(std::uint32_t bytes);

  // The transfers of read(2) and write(2); `flags` are the open file's.
  Result<std::uint64_t> read(IovIter &to, std::uint32_t flags);
  Result<std::uint64_t> write(IovIter &from, std::uint32_t flags);
  std::uint32_t poll(bool reader, bool writer, std::uint32_t opens_seen, PollTable *table);
  // F_SETPIPE_SZ: the new size in bytes. Busy, Inval, Perm (over the user's share).
  Result<std::uint64_t> resize(std::uint64_t bytes, const Credentials &credentials);
  // Sleeps until there is something to read (success with no writer left too) or room to write.
  Result<void> wait_readable(bool nonblocking);
  Result<void> wait_writable(bool nonblocking);
  void wake_readers();
  void wake_writers();
  // Held by each transfer, over the page faults of its copies. Slots change only under it.
  SleepMutex &mutex() { return mutex_; }

  std::uint32_t readers = 0, writers = 0;
  std::uint32_t reader_opens = 0, writer_opens = 0;  // ever; fifos' open() waits for a change
  WaitQueue read_wait, write_wait, open_wait;

 private:
  friend class PipeFile;
  Result<Pfn> take_frame();
  void drop_frame(Pfn frame);
  Result<std::uint64_t> append_bytes(IovIter &from);
  Result<std::uint64_t> fill_slot(IovIter &from, bool packet);

  std::vector<PipeSlot> ring_;  // a power of two
  std::uint32_t capacity_;
  std::uint32_t head_ = 0, count_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint32_t uid_;
  SleepMutex mutex_{"pipe_lock"};  // one transfer at a time: writes of several pages stay together
  bool has_spare_ = false;
  Pfn spare_ = 0;
};

// pipe2(2): the read and the write end. `flags`: O_NONBLOCK, O_DIRECT. NFile.
struct PipeEnds {
  Ref<File> reader, writer;
};
Result<PipeEnds> make_pipe(std::uint32_t flags, const Credentials &owner);
// Opens a fifo's inode as fifo(7) says: waits for the other side.
Result<Ref<File>> open_fifo(Inode &inode, std::uint32_t flags);
// The pipe behind a file, or nullptr.
Pipe *pipe_of(File &file);

// splice(2), tee(2), vmsplice(2), sendfile(2) and copy_file_range(2)'s way through memory. Offsets
// are those of seekable files. They return what was moved.
Result<std::uint64_t> splice_to_pipe(File &from, std::uint64_t &offset, Pipe &to,
                                     std::uint64_t bytes, bool nonblocking);
Result<std::uint64_t> splice_from_pipe(Pipe &from, File &to, std::uint64_t &offset,
                                       std::uint64_t bytes, bool nonblocking);
Result<std::uint64_t> splice_pipe_to_pipe(Pipe &from, Pipe &to, std::uint64_t bytes,
                                          bool nonblocking, bool keep);
Result<std::uint64_t> copy_between(File &from, std::uint64_t &from_offset, File &to,
                                   std::uint64_t &to_offset, std::uint64_t bytes);

}  // namespace cowbird
