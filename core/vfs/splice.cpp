// Moving bytes between open files without guest memory: splice, tee, sendfile, copy_file_range.
#include <algorithm>
#include <memory>

#include "sched/scheduler.hpp"
#include "vfs/pipe.hpp"

namespace cowbird {

namespace {

inline constexpr std::uint64_t kChunk = 64 * kKiB;

Result<std::uint64_t> write_all(File &to, std::span<std::byte> bytes, std::uint64_t &offset) {
  std::uint64_t total = 0;
  while (total < bytes.size()) {
    IovIter from = IovIter::kernel(std::span<const std::byte>(bytes.subspan(total)));
    auto done = to.write(from, offset);
    if (!done) {
      if (total > 0) return total;
      return Err(done.error());
    }
    if (*done == 0) break;
    total += *done;
  }
  return total;
}

}  // namespace

Result<std::uint64_t> copy_between(File &from, std::uint64_t &from_offset, File &to,
                                   std::uint64_t &to_offset, std::uint64_t bytes) {
  const auto buffer = std::make_unique<std::byte[]>(std::min(bytes, kChunk));
  std::uint64_t total = 0;
  while (total < bytes) {
    const std::uint64_t wanted = std::min(bytes - total, kChunk);
    IovIter in = IovIter::kernel(std::span<std::byte>(buffer.get(), wanted));
    std::uint64_t read_at = from_offset;
    auto got = from.read(in, read_at);
    if (!got || *got == 0) {
      if (!got && total == 0) return Err(got.error());
      break;
    }
    auto put = write_all(to, {buffer.get(), *got}, to_offset);
    if (!put) {
      if (total > 0) break;
      return Err(put.error());
    }
    // What could not be written is not consumed: the next read starts there.
    from_offset += *put;
    total += *put;
    if (*put < *got) break;
    if (current_thread() && current_thread()->signal_pending()) break;
    scheduler::cond_resched();
  }
  return total;
}

Result<std::uint64_t> splice_to_pipe(File &from, std::uint64_t &offset, Pipe &to,
                                     std::uint64_t bytes, bool nonblocking) {
  std::uint64_t total = 0;
  while (total < bytes) {
    if (auto ready = to.wait_writable(nonblocking || total > 0); !ready) {
      if (total > 0) break;
      return Err(ready.error());
    }
    const Pfn frame = TRY(phys().alloc(Zero::No));
    const std::uint64_t wanted = std::min(bytes - total, kPageSize);
    IovIter in = IovIter::kernel(phys().bytes(frame).first(wanted));
    auto got = from.read(in, offset);
    if (!got || *got == 0) {
      phys().put(frame);
      if (!got && total == 0) return Err(got.error());
      break;
    }
    // The read may have slept while others wrote: a source's bytes cannot be given back, so this
    // waits for room, even where it otherwise would not.
    to.mutex().lock();
    while (to.full() && to.readers > 0) {
      to.mutex().unlock();
      auto slept = wait_event(
          to.write_wait, [&] { return !to.full() || to.readers == 0; }, SleepMode::Killable,
          "pipe_write");
      to.mutex().lock();
      if (!slept) break;
    }
    if (to.full()) {
      to.mutex().unlock();
      phys().put(frame);
      break;
    }
    to.push({frame, 0, static_cast<std::uint32_t>(*got), false, false});
    to.mutex().unlock();
    to.wake_readers();
    total += *got;
    if (*got < wanted) break;
  }
  return total;
}

Result<std::uint64_t> splice_from_pipe(Pipe &from, File &to, std::uint64_t &offset,
                                       std::uint64_t bytes, bool nonblocking) {
  std::uint64_t total = 0;
  while (total < bytes) {
    if (auto ready = from.wait_readable(nonblocking || total > 0); !ready) {
      if (total > 0) break;
      return Err(ready.error());
    }
    SleepLock locked(from.mutex());
    if (from.empty()) {
      if (from.writers == 0) break;
      continue;  // another reader was faster
    }
    const PipeSlot slot = from.front();
    const auto wanted =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(slot.length, bytes - total));
    auto put = write_all(to, phys().bytes(slot.frame).subspan(slot.offset, wanted), offset);
    if (!put) {
      if (total > 0) break;
      return Err(put.error());
    }
    const bool was_full = from.full();
    from.consume(static_cast<std::uint32_t>(*put));
    if (was_full) from.wake_writers();
    total += *put;
    if (*put < wanted) break;
  }
  return total;
}

namespace {

// One attempt: nothing moved and no error is the end of `from`, or a race that was lost.
Result<std::uint64_t> move_slots_once(Pipe &from, Pipe &to, std::uint64_t bytes, bool nonblocking,
                                      bool keep) {
  if (&from == &to) return Err(Errno::Inval);
  TRY(from.wait_readable(nonblocking));
  if (from.empty()) return std::uint64_t{0};
  TRY(to.wait_writable(nonblocking));
  SleepLock first(&from < &to ? from.mutex() : to.mutex());
  SleepLock second(&from < &to ? to.mutex() : from.mutex());
  // Another reader, or another writer, was faster while this one waited.
  if (from.empty() || to.full()) return std::uint64_t{0};
  const bool was_full = from.full();
  std::uint64_t total = 0;
  for (std::uint32_t i = 0; total < bytes && !to.full();) {
    if (keep ? i >= from.used() : from.empty()) break;
    PipeSlot slot = from.slot(keep ? i++ : 0);
    slot.length = static_cast<std::uint32_t>(std::min<std::uint64_t>(slot.length, bytes - total));
    slot.may_append = false;
    phys().get(slot.frame);
    // The source must not write into a frame that it shares now.
    from.slot(keep ? i - 1 : 0).may_append = false;
    to.push(slot);
    total += slot.length;
    if (!keep) from.consume(slot.length);
  }
  if (total > 0) to.wake_readers();
  if (was_full && !from.full()) from.wake_writers();
  return total;
}

}  // namespace

Result<std::uint64_t> splice_pipe_to_pipe(Pipe &from, Pipe &to, std::uint64_t bytes,
                                          bool nonblocking, bool keep) {
  if (bytes == 0) return std::uint64_t{0};
  for (;;) {
    const std::uint64_t moved = TRY(move_slots_once(from, to, bytes, nonblocking, keep));
    if (moved > 0 || (from.empty() && from.writers == 0)) return moved;
  }
}

}  // namespace cowbird
