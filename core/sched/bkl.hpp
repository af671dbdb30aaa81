// The big kernel lock (BKL): all guest-kernel state without a lock of its own is protected by it.
// It is held by a vCPU while kernel code runs on it, stays held across context switches (it belongs
// to the vCPU, not to the kernel thread), and is released around guest code, idling and waits on
// the host. The irq thread takes it to run handlers.
//
// Order: it is the outermost lock; nothing may be held when it is taken.
#pragma once

#include "base/lock.hpp"

namespace cowbird {

extern Mutex big_kernel_lock;

// For a host thread that is no vCPU (irq thread, tests).
class SCOPED_CAPABILITY BklGuard {
 public:
  BklGuard() ACQUIRE(big_kernel_lock) { big_kernel_lock.lock(); }
  ~BklGuard() RELEASE() { big_kernel_lock.unlock(); }
};

// Gives the lock up for the time of a host call that may take long; kernel state may have changed
// after. No other lock may be held, and no reference into kernel structures that the lock protects
// is good afterwards unless it is counted. Kernel threads use this and not unlock(): other vCPUs
// are told first that there is work for them.
class BklReleased {
 public:
  BklReleased() NO_THREAD_SAFETY_ANALYSIS;
  ~BklReleased() NO_THREAD_SAFETY_ANALYSIS;
  BklReleased(const BklReleased &) = delete;
  BklReleased &operator=(const BklReleased &) = delete;
};

// The two halves of BklReleased, for hooks that are called before and after a wait.
void release_bkl_to_wait() NO_THREAD_SAFETY_ANALYSIS;
void retake_bkl() NO_THREAD_SAFETY_ANALYSIS;

}  // namespace cowbird
