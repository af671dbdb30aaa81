// Host-level locks of the kernel, with ranks and clang thread-safety annotations.
//
// Order: a lock may be taken only while every lock already held by this host thread has a lower
// rank. Debug builds (COWBIRD_LOCK_RANKS) check that on every acquisition and panic with both
// names. The ranks, from outermost to innermost, are the enumerators of LockRank; each lock's
// declaration says what it protects. The big kernel lock (sched/bkl.hpp) is the outermost. No lock
// but the big kernel lock may be held across a context switch or while guest memory is touched.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__clang__)
#define COWBIRD_TSA(x) __attribute__((x))
#else
#define COWBIRD_TSA(x)
#endif
#define CAPABILITY(x) COWBIRD_TSA(capability(x))
#define SCOPED_CAPABILITY COWBIRD_TSA(scoped_lockable)
#define GUARDED_BY(x) COWBIRD_TSA(guarded_by(x))
#define PT_GUARDED_BY(x) COWBIRD_TSA(pt_guarded_by(x))
#define REQUIRES(...) COWBIRD_TSA(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) COWBIRD_TSA(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) COWBIRD_TSA(acquire_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) COWBIRD_TSA(try_acquire_capability(__VA_ARGS__))
#define RELEASE(...) COWBIRD_TSA(release_capability(__VA_ARGS__))
#define ASSERT_CAPABILITY(x) COWBIRD_TSA(assert_capability(x))
#define NO_THREAD_SAFETY_ANALYSIS COWBIRD_TSA(no_thread_safety_analysis)

namespace cowbird {

enum class LockRank : std::uint8_t {
  BigKernel = 10,   // sched/bkl.hpp: all kernel state that has no lock of its own
  PluginHost = 20,  // plugins/: the registry of loaded plugins
  IrqQueue = 30,    // irq/: completions posted by host threads
  Mconsole = 35,    // mconsole/: answers on their way to clients
  Engine = 40,      // engine/: the pool of stub processes
  StubOrders = 50,  // engine/: one stub's queue of address-space orders
  WorkQueue = 70,   // irq/: the queue of the host worker threads
  Log = 200,        // base/log: the kernel log ring; may be taken under every other lock
};

namespace lock_rank {
// Called by locks in builds with COWBIRD_LOCK_RANKS; a violation panics.
void acquired(LockRank rank, const void *lock, const char *name);
void released(LockRank rank, const void *lock);
// True when the calling host thread holds a lock of this rank (debug builds; true otherwise).
bool held(LockRank rank);
}  // namespace lock_rank

// A futex-based mutex for short sections on host threads. Spins briefly, then sleeps. Not
// recursive.
class CAPABILITY("mutex") Mutex {
 public:
  constexpr Mutex(LockRank rank, const char *name) : rank_(rank), name_(name) {}
  Mutex(const Mutex &) = delete;
  Mutex &operator=(const Mutex &) = delete;

  void lock() ACQUIRE();
  bool try_lock() TRY_ACQUIRE(true);
  void unlock() RELEASE();
  // For code that can only run with the lock held but cannot be annotated so.
  void assert_held() const ASSERT_CAPABILITY(this);

 private:
  friend struct DebugLayout;
  void lock_slow();
  std::atomic<std::uint32_t> state_{0};  // 0 free, 1 held, 2 held and somebody may sleep
  // The host thread that holds it, 0 when it is free: for whoever looks at a kernel that hangs.
  // Right in the moment when the holder stands still inside.
  std::atomic<int> owner_{0};
  LockRank rank_;
  const char *name_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex &mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock &) = delete;
  MutexLock &operator=(const MutexLock &) = delete;

 private:
  Mutex &mutex_;
};

}  // namespace cowbird
