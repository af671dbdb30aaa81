// Advisory locks: flock(2), POSIX record locks and open file description locks of fcntl(2). They
// hang on the inode; a process's POSIX locks belong to its descriptor table, the others to the open
// file. Needs the big kernel lock; lock calls that wait sleep interruptibly.
#pragma once

#include <cstdint>

#include "base/result.hpp"
#include "vfs/file.hpp"

namespace cowbird {

class FdTable;

enum class LockKind : std::uint8_t { Read, Write, Unlock };

struct RecordLock {
  LockKind kind = LockKind::Unlock;
  std::uint64_t start = 0;
  std::uint64_t end = ~0ull;  // last byte, inclusive; ~0 is "to the end of the file"
  int pid = 0;                // of the holder; -1 for open file description locks
};

// flock(2). Again with `wait` false when another open file holds it; RestartSys.
Result<void> flock_file(File &file, LockKind kind, bool wait);
// F_SETLK, F_SETLKW for `owner`: the descriptor table (POSIX locks), or nullptr for a lock of the
// open file (F_OFD_*). Again, Deadlk, NoLck (too many), RestartSys.
Result<void> set_record_lock(File &file, const FdTable *owner, RecordLock lock, bool wait);
// F_GETLK: the first lock that stands in the way; kind Unlock when none does.
RecordLock test_record_lock(File &file, const FdTable *owner, RecordLock lock);

// A descriptor is closed: the table's POSIX locks on the inode go.
void release_posix_locks(File &file, const FdTable *owner);
// The open file goes: its flock and OFD locks go.
void release_file_locks(File &file);

// For /proc/locks: each lock, and after it those who wait for it.
struct LockListing {
  const char *kind;  // "FLOCK", "POSIX", "OFDLCK"
  const RecordLock &lock;
  const Inode &inode;
  bool waits;
};
void for_each_lock(const std::function<void(const LockListing &)> &function);

}  // namespace cowbird
