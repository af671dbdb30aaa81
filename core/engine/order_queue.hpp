// OrderQueue: the changes of one address space that its stub has not been told yet, and what the
// stub has mapped at most. It drops changes that cannot matter (unmapping what is not mapped),
// joins neighbours, and, when the host's limits come near, replaces everything by one order that
// drops all guest mappings, which is allowed because they are a cache. Used by StubSpace under its
// lock; no host call is made.
#pragma once

#include <cstdint>
#include <deque>
#include <map>

#include "engine/platform.hpp"

namespace cowbird {

struct Order {
  enum class Kind : std::uint8_t { Map, Unmap, Protect, UnmapAll, MapMailbox, NewThread };
  Kind kind = Kind::UnmapAll;
  Prot prot = Prot::None;
  bool populate = false;
  unsigned slot = 0;  // MapMailbox, NewThread
  VirtAddr address = 0;
  std::uint64_t pages = 0;
  Pfn first = 0;
  SyncPoint point = 0;
};

class OrderQueue {
 public:
  static constexpr std::size_t kMaxPending = 4096;

  // Points count on from `start`; at most `max_runs` runs of pages stay mapped.
  OrderQueue(SyncPoint start, std::size_t max_runs) : last_point_(start), max_runs_(max_runs) {}

  void map(VirtAddr address, Pfn first, std::uint64_t pages, Prot prot, bool populate);
  void unmap(VirtAddr address, std::uint64_t pages);
  void protect(VirtAddr address, std::uint64_t pages, Prot prot);
  void unmap_all();
  // A guest thread's mailbox and the thread itself; never dropped.
  void new_thread(unsigned slot);
  // The stub says that it dropped all mappings by itself.
  void forget_mappings();

  bool empty() const { return pending_.empty(); }
  SyncPoint last_point() const { return last_point_; }
  const Order &front() const { return pending_.front(); }
  void pop() { pending_.pop_front(); }
  std::size_t mapped_runs() const { return runs_.size(); }
  std::size_t pending() const { return pending_.size(); }

 private:
  struct Run {
    VirtAddr end;
    Pfn first;
    Prot prot;
  };
  using Runs = std::map<VirtAddr, Run>;

  void push(Order order);
  bool join_last(const Order &order);
  // Makes run borders at `address`, if it lies inside a run.
  void split(VirtAddr address);
  void insert(VirtAddr address, std::uint64_t pages, Pfn first, Prot prot);

  std::deque<Order> pending_;
  Runs runs_;
  SyncPoint last_point_;
  std::size_t max_runs_;
};

}  // namespace cowbird
