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
    int pid;  // of who took it
  };
  std::vector<Flock> flocks;
  // Who sleeps for a lock here, in the order in which they came.
  std::vector<const HeldLock *> waiting_records;
  std::vector<const Flock *> waiting_flocks;
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

// What is no file of a file system (eventfd and the like) shares one inode, as on Linux.
Ref<Inode> inode_of(const File &file) {
  static auto *const anonymous = new Ref<Inode>(make_anonymous_inode(0600, Credentials::kernel()));
  return file.inode ? file.inode : *anonymous;
}

// Stands in a list of waiters as long as it lives.
template <typename Lock>
class Waits {
 public:
  Waits(std::vector<const Lock *> &list, const Lock &lock) : list_(list), lock_(lock) {
    list_.push_back(&lock_);
  }
  ~Waits() { std::erase(list_, &lock_); }
  Waits(const Waits &) = delete;
  Waits &operator=(const Waits &) = delete;

 private:
  std::vector<const Lock *> &list_;
  const Lock &lock_;
};

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

const InodeLocks::Flock *find_conflict(const InodeLocks &locks, const InodeLocks::Flock &want) {
  for (const InodeLocks::Flock &held : locks.flocks) {
    if (held.file == want.file) continue;
    if (held.kind == LockKind::Write || want.kind == LockKind::Write) return &held;
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
  const Ref<Inode> inode = inode_of(file);
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
    const HeldLock wanted{holder, posix, lock};
    const Waits shown(locks->waiting_records, wanted);
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
  const Ref<Inode> inode = inode_of(file);
  if (!inode->locks) return none;
  const void *holder = owner ? static_cast<const void *>(owner) : &file;
  const HeldLock *conflict = find_conflict(*locks_of(*inode), holder, lock);
  return conflict ? conflict->lock : none;
}

void release_posix_locks(File &file, const FdTable *owner) {
  const Ref<Inode> inode = inode_of(file);
  if (!inode->locks) return;
  InodeLocks &locks = *locks_of(*inode);
  if (std::erase_if(locks.records, [&](const HeldLock &h) { return h.owner == owner; }) > 0)
    locks.changed.wake_all();
}

void release_file_locks(File &file) {
  const Ref<Inode> inode = inode_of(file);
  if (!inode->locks) return;
  InodeLocks &locks = *locks_of(*inode);
  const auto records =
      std::erase_if(locks.records, [&](const HeldLock &h) { return h.owner == &file; });
  const auto flocks = std::erase_if(
      locks.flocks, [&](const InodeLocks::Flock &held) { return held.file == &file; });
  if (records + flocks > 0) locks.changed.wake_all();
}

Result<void> flock_file(File &file, LockKind kind, bool wait) {
  const Ref<Inode> inode = inode_of(file);
  const std::shared_ptr<InodeLocks> locks = locks_of(*inode);
  const InodeLocks::Flock wanted{&file, kind, caller::process_id()};
  auto own = [&](const InodeLocks::Flock &held) { return held.file == &file; };
  if (std::any_of(locks->flocks.begin(), locks->flocks.end(),
                  [&](const InodeLocks::Flock &held) { return own(held) && held.kind == kind; })) {
    return {};
  }
  // A conversion is not atomic (flock(2)): the old lock goes first.
  if (std::erase_if(locks->flocks, own) > 0) locks->changed.wake_all();
  if (kind == LockKind::Unlock) return {};
  if (find_conflict(*locks, wanted)) {
    if (!wait) return Err(Errno::Again);
    const Waits shown(locks->waiting_flocks, wanted);
    TRY(wait_event(
        locks->changed, [&] { return !find_conflict(*locks, wanted); }, SleepMode::Interruptible,
        "flock"));
  }
  locks->flocks.push_back(wanted);
  return {};
}

namespace {

void list_records(const InodeLocks &locks, const std::function<void(const LockListing &)> &show) {
  const auto line = [&](const HeldLock &lock, bool waits) {
    show({lock.posix ? "POSIX" : "OFDLCK", lock.lock, *locks.inode, waits});
  };
  for (const HeldLock &held : locks.records) {
    line(held, false);
    for (const HeldLock *waiter : locks.waiting_records) {
      if (find_conflict(locks, waiter->owner, waiter->lock) == &held) line(*waiter, true);
    }
  }
}

void list_flocks(const InodeLocks &locks, const std::function<void(const LockListing &)> &show) {
  const auto line = [&](const InodeLocks::Flock &lock, bool waits) {
    RecordLock whole;
    whole.kind = lock.kind;
    whole.pid = lock.pid;
    show({"FLOCK", whole, *locks.inode, waits});
  };
  for (const InodeLocks::Flock &held : locks.flocks) {
    line(held, false);
    for (const InodeLocks::Flock *waiter : locks.waiting_flocks) {
      if (find_conflict(locks, *waiter) == &held) line(*waiter, true);
    }
  }
}

}  // namespace

void for_each_lock(const std::function<void(const LockListing &)> &function) {
  for (const std::weak_ptr<void> &weak : all_locks()) {
    const auto locks = std::static_pointer_cast<InodeLocks>(weak.lock());
    if (!locks) continue;
    list_records(*locks, function);
    list_flocks(*locks, function);
  }
}

}  // namespace cowbird
