// StubSpace: the stub engine's AddressSpace: queues changes, feeds them to the stub's ring, and
// says when they are proven. Used by StubPlatform and StubContext.
//
// Locks: `lock_` (rank StubOrders) guards the queue and the ring; `thread_lock_` (rank Engine)
// makes threads one at a time and is held while the stub answers. Neither is held while another
// vCPU could need it to make progress.
#pragma once

#include <atomic>
#include <memory>

#include "base/lock.hpp"
#include "engine/order_queue.hpp"
#include "engine/placement.hpp"
#include "engine/platform.hpp"
#include "engine/stub_pool.hpp"
#include "engine/stub_process.hpp"

namespace cowbird {

class EngineMachine;

class StubSpace final : public AddressSpace {
 public:
  StubSpace(EngineMachine &machine, StubPool &pool, StubProcess &process);
  ~StubSpace() override;

  void map(VirtAddr address, Pfn first, std::uint64_t pages, Prot prot, bool populate) override;
  void unmap(VirtAddr address, std::uint64_t pages) override;
  void protect(VirtAddr address, std::uint64_t pages, Prot prot) override;
  SyncPoint sync_point() override;
  bool reached(SyncPoint point) override;
  void flush() override;
  bool synchronize(SyncPoint point) override;
  bool dead() const override { return process_.dead(); }
  std::string end_reason() const override { return process_.end_reason(); }

  StubProcess &process() { return process_; }
  EngineMachine &machine() { return machine_; }

  // For StubContext, without the big kernel lock.
  // Shows the stub everything that is queued; returns the point that guest code has to wait for.
  // False: the stub is dead.
  bool publish(SyncPoint &point);
  bool orders_outstanding(SyncPoint point);
  // Keeps the thread that executes orders near the guest thread that waits for it.
  void place_orders_thread(SyncPoint point, HandOver mode, int cpu);
  // A slot for a context; the thread in it may have to be made yet.
  Result<unsigned> take_slot();
  // The thread is left parked in the stub, for a later context of this space only.
  void release_slot(unsigned slot);
  // Makes the thread of this slot, if there is none; its id.
  Result<int> make_thread(unsigned slot);

 private:
  // Moves what fits into the ring. True when nothing is left.
  bool feed() REQUIRES(lock_);
  // One try of make_thread().
  Result<int> order_thread(unsigned slot);
  // Waits until `point` is proven, awake or asleep; holds no lock.
  bool wait_proven(SyncPoint point);
  SyncPoint proven() REQUIRES(lock_);
  // Moves M to the caller's processor, when the caller is a vCPU that is pinned to one; whether it
  // is.
  bool share_cpu_with_orders();

  EngineMachine &machine_;
  StubPool &pool_;
  StubProcess &process_;
  Mutex lock_{LockRank::StubOrders, "stub orders"};
  Mutex thread_lock_{LockRank::Engine, "stub threads"};
  OrderQueue queue_ GUARDED_BY(lock_);
  StubPlacement orders_placement_ GUARDED_BY(lock_);
  unsigned waiters_ GUARDED_BY(lock_) = 0;  // callers of wait_proven that sleep
  // Whether the queue holds what the ring does not; read without the lock.
  std::atomic<bool> queued_{false};
  std::atomic<SyncPoint> last_published_{0};
  std::atomic<SyncPoint> proven_{0};
};

}  // namespace cowbird
