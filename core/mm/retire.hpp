// Frames that left an address space but that guest code may still reach through the engine's
// mappings: they wait here, with their references, until the engine proves that they cannot be
// reached any more. Each address space has one queue; the queue outlives it, together with the
// engine's side, when frames are left. For mm/ alone. Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "base/list.hpp"
#include "engine/platform.hpp"
#include "mm/phys_memory.hpp"

namespace cowbird {

// References to frames, neighbours merged. Dropped with it unless they are handed on.
class FrameBatch {
 public:
  FrameBatch() = default;
  FrameBatch(FrameBatch &&) = default;
  FrameBatch &operator=(FrameBatch &&) = default;
  ~FrameBatch() { put_all(); }

  void add(Pfn pfn) {
    if (!runs_.empty() && runs_.back().first + runs_.back().count == pfn) {
      ++runs_.back().count;
    } else {
      runs_.push_back({pfn, 1});
    }
  }
  void append(FrameBatch &&other) {
    runs_.insert(runs_.end(), other.runs_.begin(), other.runs_.end());
    other.runs_.clear();
  }
  bool empty() const { return runs_.empty(); }
  // Drops the references; returns how many frames became free.
  std::uint64_t put_all();

 private:
  std::vector<PageRun> runs_;
};

class RetireQueue {
 public:
  explicit RetireQueue(AddressSpace &space) : space_(&space) {}
  ~RetireQueue();
  RetireQueue(const RetireQueue &) = delete;
  RetireQueue &operator=(const RetireQueue &) = delete;

  // The frames' host mappings were removed or replaced by changes queued before this call.
  void retire(FrameBatch &&frames);
  // Releases what the engine has proved unreachable; returns how many frames became free.
  std::uint64_t reap();
  bool empty() const { return batches_.empty(); }

  // Nobody runs in the address space any more and it is unmapped whole: both go when the last frame
  // has been released.
  static void abandon(std::unique_ptr<RetireQueue> queue, std::unique_ptr<AddressSpace> space);
  // reap() for all address spaces, also abandoned ones. Never sleeps.
  static std::uint64_t reap_all();
  // Waits for the engine until everything that is retired now is released. Sleeps; returns how many
  // frames became free.
  static std::uint64_t wait_all();
  // There is nothing at all to reap.
  static bool all_empty();

 private:
  struct Batch {
    SyncPoint point;
    FrameBatch frames;
  };
  static void free_abandoned(RetireQueue *queue);

  AddressSpace *space_;
  std::unique_ptr<AddressSpace> owned_space_;  // once abandoned
  std::deque<Batch> batches_;
  unsigned waiters_ = 0;  // threads in wait_all that use this queue
  ListNode link_;         // queues with batches, and all abandoned ones

  using Queues = List<RetireQueue, &RetireQueue::link_>;
  static Queues &queues();
};

}  // namespace cowbird
