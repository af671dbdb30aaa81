// The scheduling policy, without threads: which of the runnable ones runs next, and who preempts
// whom. Of the scheduler alone; big kernel lock (or one host thread, in tests).
//
// Each runnable thread has a virtual run time: the CPU time it has used, divided by its weight
// (each step of nice is a factor of 1.25, nice 0 is 1). The smallest goes first, so CPU time is
// shared in proportion to the weights. `floor` follows the smallest virtual run time and never goes
// back; a thread that has slept starts again near it, at most kSleeperCredit before it: soon to
// run, but unable to save time up.
#pragma once

#include <boost/intrusive/set.hpp>
#include <cstddef>
#include <cstdint>

#include "base/units.hpp"

namespace cowbird {

struct RunEntity {
  std::int64_t vruntime = 0;
  std::uint64_t sequence = 0;  // of entering the queue: first come, first served among equals
  int last_vcpu = -1;
  boost::intrusive::set_member_hook<> link;
};

class RunQueue {
 public:
  static constexpr std::int64_t kSleeperCredit = 5 * kNsPerMs;
  // How far behind a woken thread must be to preempt; less would only cost switches. Also how far a
  // thread may be preferred for having run on the same vCPU.
  static constexpr std::int64_t kGranularity = kNsPerMs;

  bool empty() const { return tree_.empty(); }
  std::size_t size() const { return tree_.size(); }
  std::int64_t floor() const { return floor_; }

  // Where a thread that starts or has slept enters. `running` is the smallest virtual run time of
  // the threads on vCPUs, INT64_MAX when there are none.
  void place_new(RunEntity &entity, std::int64_t running);
  void place_woken(RunEntity &entity, std::int64_t running);

  void push(RunEntity &entity);
  void remove(RunEntity &entity);
  // The next for this vCPU; nullptr when empty.
  RunEntity *pop(int vcpu);
  const RunEntity *front() const { return tree_.empty() ? nullptr : &*tree_.begin(); }
  void clear() { tree_.clear(); }

  // Virtual time of `ns` of CPU time at this nice value.
  static std::int64_t virtual_time(std::int64_t ns, int nice);
  static bool preempts(const RunEntity &woken, std::int64_t running_vruntime) {
    return running_vruntime - woken.vruntime > kGranularity;
  }

 private:
  struct Before {
    bool operator()(const RunEntity &a, const RunEntity &b) const {
      return a.vruntime != b.vruntime ? a.vruntime < b.vruntime : a.sequence < b.sequence;
    }
  };
  void raise_floor(std::int64_t running);

  boost::intrusive::set<RunEntity, boost::intrusive::compare<Before>,
                        boost::intrusive::member_hook<
                            RunEntity, boost::intrusive::set_member_hook<>, &RunEntity::link>>
      tree_;
  std::int64_t floor_ = 0;
  std::uint64_t next_sequence_ = 0;
};

}  // namespace cowbird
