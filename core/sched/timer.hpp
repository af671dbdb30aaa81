// Kernel timers on the guest's monotonic clock. Functions run on the irq thread (or on whichever
// host thread calls timers::run_expired) with the big kernel lock held, and must not sleep. They
// may arm, cancel and destroy timers, also their own. While the guest's clock stands still, none
// fires.
//
// All functions are called with the big kernel lock held.
#pragma once

#include <cstdint>
#include <functional>

namespace cowbird {

inline constexpr std::int64_t kNoDeadline = INT64_MAX;

class Timer {
 public:
  explicit Timer(std::function<void()> function) : function_(std::move(function)) {}
  ~Timer();
  Timer(const Timer &) = delete;
  Timer &operator=(const Timer &) = delete;

  // Fires once at this time of the guest's monotonic clock; re-arms when armed already.
  void arm(std::int64_t deadline_ns);
  void cancel();
  bool armed() const { return armed_; }
  std::int64_t deadline_ns() const { return deadline_ns_; }

 private:
  friend class TimerQueue;
  std::function<void()> function_;
  std::int64_t deadline_ns_ = kNoDeadline;
  // The deadline, or a later time when that had passed already: a timer that is always armed in the
  // past must not keep the others from firing.
  std::int64_t order_ns_ = kNoDeadline;
  std::uint64_t sequence_ = 0;  // timers of one deadline fire in the order in which they were armed
  std::uint32_t heap_index_ = 0;  // in TimerQueue's heap, while armed
  bool armed_ = false;
};

namespace timers {
// Runs what has expired; returns the next deadline or kNoDeadline. A timer that its function arms
// again is not run again in the same call.
std::int64_t run_expired();
// The earliest deadline; kNoDeadline when no timer is armed or the clock stands still.
std::int64_t next_deadline();
// Told when the next deadline becomes earlier, so that the irq thread can wake sooner. Called with
// the big kernel lock held.
void set_reprogram_hook(void (*hook)(std::int64_t deadline_ns));
// A hook is set: armed timers will run by themselves.
bool driven();
// The clock started to move again or jumped: tells the hook the next deadline, if there is one.
void clock_changed();
}  // namespace timers

}  // namespace cowbird
