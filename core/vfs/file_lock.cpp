#include "vfs/file_lock.hpp"

#include <algorithm>
#include <vector>

#include "base/log.hpp"
#include "vfs/caller.hpp"

namespace cowbird {

namespace {

inline constexpr std::size_t kMaxLocksPerInode = 16384;

struct HeldLock {
  const void *owner;  // the descriptor table, or the open file
  bool posix;
  RecordLock lock;
};

struct InodeLocks {
  std::vector<HeldLock> records;
  struct Flock {
    const File *file;
    LockKind kind;
  };
  std::vector<Flock> flocks;
  WaitQueue changed;
  Inode *inode = nullptr;
};

// Who waits for whose POSIX lock, for the detection of deadlocks; and all inodes with locks.
// Protected by the big kernel lock.
struct Waiting {
  const void *waiter;
  const void *holder;
};
std::vector<Waiting> &waiting() {
  static auto *list = new std::vector<Waiting>;
  return *list;
}
std::vector<std::weak_ptr<void>> &all_locks() {
  static auto *list = new std::vector<std::weak_ptr<void>>;
  return *list;
}

std::shared_ptr<InodeLocks> locks_of(Inode &inode) {
  if (!inode.locks) {
    auto locks = std::make_shared<InodeLocks>();
    locks->inode = &inode;
    inode.locks = locks;
    std::erase_if(all_locks(), [](const std::weak_ptr<void> &w) { return w.expired(); });
    all_locks().push_back(inode.locks);
  }
  return std::static_pointer_cast<InodeLocks>(inode.locks);
}

bool overlaps(const RecordLock &a, const RecordLock &b) {
  return a.start <= b.end && b.start <= a.end;
}

const HeldLock *find_conflict(const InodeLocks &locks, const void *owner, const RecordLock &want) {
  for (const HeldLock &held : locks.records) {
    if (held.owner == owner || !overlaps(held.lock, want)) continue;
    if (held.lock.kind == LockKind::Write || want.kind == LockKind::Write) return &held;
  }
  return nullptr;
}

// Replaces what the owner holds in the range: splits at the ends, then adds, then joins neighbours
// of one kind.
void apply(InodeLocks &locks, const void *owner, bool posix, const RecordLock &want) {
  std::vector<HeldLock> result;
  for (const HeldLock &held : locks.records) {
    if (held.owner != owner || !overlaps(held.lock, want)) {
      result.push_back(held);
      continue;
    }
    if (held.lock.start < want.start) {
      HeldLock left = held;
      left.lock.end = want.start - 1;
      result.push_back(left);
    }
    if (held.lock.end > want.end) {
      HeldLock right = held;
      right.lock.start = want.end + 1;
      result.push_back(right);
    }
  }
  if (want.kind != LockKind::Unlock) {
    HeldLock added{owner, posix, want};
    std::erase_if(result, [&](const HeldLock &held) {
      if (held.owner != owner || held.lock.kind != want.kind) return false;
      const bool before = held.lock.end != ~0ull && held.lock.end + 1 == added.lock.start;
      const bool after = added.lock.end != ~0ull && added.lock.end + 1 == held.lock.start;
      if (before) added.lock.start = held.lock.start;
      if (after) added.lock.end = held.lock.end;
      return before || after;
    });
    result.push_back(added);
  }
  std::sort(result.begin(), result.end(),
            [](const HeldLock &a, const HeldLock &b) { return a.lock.start < b.lock.start; });
  locks.records = std::move(result);
  locks.changed.wake_all();
}

// Would `waiter` wait for itself, through those it waits for?
bool would_deadlock(const void *waiter, const void *holder) {
  for (int depth = 0; depth < 64; ++depth) {
    if (holder == waiter) return true;
    auto next = std::find_if(waiting().begin(), waiting().end(),
                             [&](const Waiting &w) { return w.waiter == holder; });
    if (next == waiting().end()) return false;
    holder = next->holder;
  }
  return false;
}

}  // namespace

Result<void> set_record_lock(File &file, const FdTable *owner, RecordLock lock, bool wait) {
  const Ref<Inode> inode = file.inode;
  if (!inode) return Err(Errno::Inval);
  if (lock.kind == LockKind::Unlock && !inode->locks) return {};
  const bool posix = owner != nullptr;
  const void *holder = posix ? static_cast<const void *>(owner) : &file;
  lock.pid = posix ? caller::process_id() : -1;
  const std::shared_ptr<InodeLocks> locks = locks_of(*inode);
  if (locks->records.size() >= kMaxLocksPerInode) return Err(Errno::NoLck);
  while (lock.kind != LockKind::Unlock) {
    const HeldLock *conflict = find_conflict(*locks, holder, lock);
    if (!conflict) break;
    if (!wait) return Err(Errno::Again);
    if (posix && conflict->posix && would_deadlock(holder, conflict->owner))
      return Err(Errno::Deadlk);
    if (posix) waiting().push_back({holder, conflict->owner});
    auto slept = wait_event(
        locks->changed, [&] { return !find_conflict(*locks, holder, lock); },
        SleepMode::Interruptible, "posix_lock");
    if (posix) {
      auto own = std::find_if(waiting().begin(), waiting().end(),
                              [&](const Waiting &w) { return w.waiter == holder; });
      if (own != waiting().end()) waiting().erase(own);
    }
    TRY(slept);
  }
  apply(*locks, holder, posix, lock);
  return {};
}

RecordLock test_record_lock(File &file, const FdTable *owner, RecordLock lock) {
  RecordLock none;
  if (!file.inode || !file.inode->locks) return none;
  const void *holder = owner ? static_cast<const void *>(owner) : &file;
  const HeldLock *conflict = find_conflict(*locks_of(*file.inode), holder, lock);
  return conflict ? conflict->lock : none;
}

void release_posix_locks(File &file, const FdTable *owner) {
  if (!file.inode || !file.inode->locks) return;
  InodeLocks &locks = *locks_of(*file.inode);
  if (std::erase_if(locks.records, [&](const HeldLock &h) { return h.owner == owner; }) > 0)
    locks.changed.wake_all();
}

void release_file_locks(File &file) {
  InodeLocks &locks = *locks_of(*file.inode);
  const auto records =
      std::erase_if(locks.records, [&](const HeldLock &h) { return h.owner == &file; });
  const auto flocks = std::erase_if(
      locks.flocks, [&](const InodeLocks::Flock &held) { return held.file == &file; });
  if (records + flocks > 0) locks.changed.wake_all();
}

Result<void> flock_file(File &file, LockKind kind, bool wait) {
  const Ref<Inode> inode = file.inode;
  if (!inode) return Err(Errno::BadF);
  const std::shared_ptr<InodeLocks> locks = locks_of(*inode);
  auto own = [&](const InodeLocks::Flock &held) { return held.file == &file; };
  auto conflict = [&] {
    return std::any_of(
        locks->flocks.begin(), locks->flocks.end(), [&](const InodeLocks::Flock &held) {
          return held.file != &file && (held.kind == LockKind::Write || kind == LockKind::Write);
        });
  };
  if (std::any_of(locks->flocks.begin(), locks->flocks.end(),
                  [&](const InodeLocks::Flock &held) { return own(held) && held.kind == kind; })) {
    return {};
  }
  // A conversion is not atomic (flock(2)): the old lock goes first.
  if (std::erase_if(locks->flocks, own) > 0) locks->changed.wake_all();
  if (kind == LockKind::Unlock) return {};
  if (conflict()) {
    if (!wait) return Err(Errno::Again);
    TRY(wait_event(
        locks->changed, [&] { return !conflict(); }, SleepMode::Interruptible, "flock"));
  }
  locks->flocks.push_back({&file, kind});
  return {};
}

void for_each_lock(const std::function<void(const char *kind, const RecordLock &lock,
                                            const Inode &inode)> &function) {
  for (const std::weak_ptr<void> &weak : all_locks()) {
    const auto locks = std::static_pointer_cast<InodeLocks>(weak.lock());
    if (!locks) continue;
    for (const HeldLock &held : locks->records)
      function(held.posix ? "POSIX" : "OFDLCK", held.lock, *locks->inode);
    for (const InodeLocks::Flock &held : locks->flocks) {
      RecordLock whole;
      whole.kind = held.kind;
      function("FLOCK", whole, *locks->inode);
    }
  }
}

}  // namespace cowbird
