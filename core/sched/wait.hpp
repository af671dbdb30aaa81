// Wait queues and sleeping. All functions need the big kernel lock; sleeping releases it.
//
// No wake-up is lost: a thread puts itself on the queue before it tests its condition, and both the
// test and the wake-up happen under the big kernel lock.
#pragma once

#include <cstdint>
#include <utility>

#include "base/list.hpp"
#include "base/result.hpp"
#include "sched/thread.hpp"
#include "sched/timer.hpp"

namespace cowbird {

class WaitQueue;

// One waiter on one queue. The callback runs under the big kernel lock when the queue is woken, in
// the waker's context; it must not sleep. poll, epoll and futexes use it directly.
// An entry leaves its queue when it is destroyed, and callbacks may remove any entry.
class WaitEntry {
 public:
  // Returns true when this waiter counts as "woken" for wake_one.
  using Callback = bool (*)(WaitEntry &self, std::uint32_t poll_events);
  WaitEntry(Callback callback, void *data) : callback_(callback), data_(data) {}
  void *data() const { return data_; }
  bool linked() const { return link_.linked(); }
  void remove() { link_.unlink(); }

 private:
  friend class WaitQueue;
  friend struct DebugLayout;
  Callback callback_;
  void *data_;
  ListNode link_;
};

class WaitQueue {
 public:
  void add(WaitEntry &entry) { shared_.push_back(entry); }
  void add_exclusive(WaitEntry &entry) { exclusive_.push_back(entry); }
  bool empty() const {
    auto *self = const_cast<WaitQueue *>(this);
    return self->shared_.empty() && self->exclusive_.empty();
  }
  // Wakes all non-exclusive waiters and up to `exclusive` exclusive ones. `poll_events` (EPOLLIN
  // ...) tells pollers what happened; 0 means anything.
  void wake(unsigned exclusive, std::uint32_t poll_events = 0);
  void wake_one(std::uint32_t poll_events = 0) { wake(1, poll_events); }
  void wake_all(std::uint32_t poll_events = 0) { wake(~0u, poll_events); }

 private:
  friend struct DebugLayout;
  using Entries = List<WaitEntry, &WaitEntry::link_>;
  static void wake_list(Entries &entries, unsigned limit, std::uint32_t poll_events);
  Entries shared_;
  Entries exclusive_;  // in the order in which they came
};

enum class SleepMode : std::uint8_t { Interruptible, Killable, Uninterruptible };

// Puts the current thread to sleep until somebody wakes it, the deadline (guest monotonic ns)
// passes or, as the mode says, a signal arrives. Callers loop on their own condition. Returns
// TimedOut, RestartSys (interrupted), or success for any other wake-up, also one by a ThreadWaiter
// that came between two sleeps. Does not sleep when the deadline has passed or a signal is pending.
Result<void> sleep_until(std::int64_t deadline_ns, SleepMode mode, const char *wait_channel);

// The current thread stands still, Stopped (job control) or Traced, until wake(); signals do not
// end it.
void sleep_stopped(ThreadState state, const char *wait_channel);

// A WaitEntry that wakes the thread that made it. It leaves the queue when it is woken, so that
// whether it is still linked tells whether it was.
class ThreadWaiter {
 public:
  ThreadWaiter();
  ~ThreadWaiter() { entry_.remove(); }
  WaitEntry &entry() { return entry_; }

 private:
  static bool on_wake(WaitEntry &self, std::uint32_t events);
  WaitEntry entry_;
};

// Sleeps on `queue` until `condition()` is true. RestartSys when a signal interrupts
// (Interruptible, or a fatal one when Killable), TimedOut when the deadline passes first.
template <typename Condition>
Result<void> wait_event(WaitQueue &queue, Condition &&condition, SleepMode mode,
                        const char *wait_channel, std::int64_t deadline_ns = kNoDeadline,
                        bool exclusive = false) {
  if (condition()) return {};
  ThreadWaiter waiter;
  for (;;) {
    if (!waiter.entry().linked()) {
      if (exclusive) {
        queue.add_exclusive(waiter.entry());
      } else {
        queue.add(waiter.entry());
      }
    }
    if (condition()) return {};
    Result<void> slept = sleep_until(deadline_ns, mode, wait_channel);
    if (condition()) return {};
    if (!slept) {
      // An exclusive waiter that was woken and interrupted at once must not swallow the wake-up.
      if (exclusive && !waiter.entry().linked()) queue.wake_one();
      return slept;
    }
  }
}

// A sleeping lock for kernel threads (inode locks and the like): may be held across sleeps, unlike
// Mutex. Not recursive. Needs the big kernel lock.
class SleepMutex {
 public:
  explicit SleepMutex(const char *wait_channel = "mutex") : wait_channel_(wait_channel) {}
  void lock();
  // For locks that are held while a user is waited for: RestartSys when a signal interrupts.
  Result<void> lock_interruptible();
  bool try_lock();
  void unlock();
  bool held_by_current() const { return owner_ == current_thread() && owner_ != nullptr; }

 private:
  friend struct DebugLayout;
  WaitQueue queue_;
  Thread *owner_ = nullptr;
  bool held_ = false;
  const char *wait_channel_;
};

// The lock's end when it was taken with lock_interruptible() or try_lock().
class SleepUnlock {
 public:
  explicit SleepUnlock(SleepMutex &mutex) : mutex_(mutex) {}
  ~SleepUnlock() { mutex_.unlock(); }
  SleepUnlock(const SleepUnlock &) = delete;
  SleepUnlock &operator=(const SleepUnlock &) = delete;

 private:
  SleepMutex &mutex_;
};

class SleepLock {
 public:
  explicit SleepLock(SleepMutex &mutex) : mutex_(mutex) { mutex_.lock(); }
  ~SleepLock() { mutex_.unlock(); }
  SleepLock(const SleepLock &) = delete;
  SleepLock &operator=(const SleepLock &) = delete;

 private:
  SleepMutex &mutex_;
};

}  // namespace cowbird
