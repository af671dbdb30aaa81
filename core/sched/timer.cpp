#include "sched/timer.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "sched/clock.hpp"

namespace cowbird {

// All armed timers in a binary heap, the earliest first; each knows its place, so that cancelling
// costs no search. Big kernel lock.
class TimerQueue {
 public:
  static TimerQueue &instance() {
    // Never destroyed: static timers may outlive it otherwise.
    static auto *const queue = new TimerQueue;
    return *queue;
  }

  void insert(Timer &timer, std::int64_t deadline_ns) {
    timer.deadline_ns_ = deadline_ns;
    timer.order_ns_ = std::max(deadline_ns, last_run_);
    timer.sequence_ = next_sequence_++;
    timer.armed_ = true;
    heap_.push_back(&timer);
    sift_up(heap_.size() - 1);
    if (heap_.front() == &timer && hook_ && !clock::stopped()) hook_(deadline_ns);
  }

  void remove(Timer &timer) {
    const std::size_t index = timer.heap_index_;
    timer.armed_ = false;
    Timer *const last = heap_.back();
    heap_.pop_back();
    if (last == &timer) return;
    put(index, last);
    sift_up(index);
    sift_down(last->heap_index_);
  }

  void destroyed(Timer &timer) {
    if (timer.armed_) remove(timer);
    if (running_ == &timer) running_ = nullptr;
  }

  std::int64_t next_deadline() const {
    return heap_.empty() || clock::stopped() ? kNoDeadline : heap_.front()->deadline_ns_;
  }

  std::int64_t run_expired() {
    const std::uint64_t limit = next_sequence_;
    const std::int64_t now = clock::monotonic_ns();
    last_run_ = now;
    while (next_deadline() <= now && heap_.front()->sequence_ < limit) run(*heap_.front());
    return next_deadline();
  }

  void set_hook(void (*hook)(std::int64_t)) { hook_ = hook; }
  bool driven() const { return hook_ != nullptr; }
  void clock_changed() {
    last_run_ = INT64_MIN;
    const std::int64_t next = next_deadline();
    if (next != kNoDeadline && hook_) hook_(next);
  }

 private:
  // The function may destroy its timer, so it must not live inside it while it runs.
  void run(Timer &timer) {
    remove(timer);
    std::function<void()> function = std::move(timer.function_);
    Timer *const outer = std::exchange(running_, &timer);
    function();
    if (running_ == &timer) timer.function_ = std::move(function);
    running_ = outer;
  }

  static bool before(const Timer &a, const Timer &b) {
    if (a.order_ns_ != b.order_ns_) return a.order_ns_ < b.order_ns_;
    return a.sequence_ < b.sequence_;
  }
  void put(std::size_t index, Timer *timer) {
    heap_[index] = timer;
    timer->heap_index_ = static_cast<std::uint32_t>(index);
  }
  void sift_up(std::size_t index) {
    Timer *const timer = heap_[index];
    while (index > 0) {
      const std::size_t parent = (index - 1) / 2;
      if (!before(*timer, *heap_[parent])) break;
      put(index, heap_[parent]);
      index = parent;
    }
    put(index, timer);
  }
  void sift_down(std::size_t index) {
    Timer *const timer = heap_[index];
    for (;;) {
      std::size_t child = 2 * index + 1;
      if (child >= heap_.size()) break;
      if (child + 1 < heap_.size() && before(*heap_[child + 1], *heap_[child])) ++child;
      if (!before(*heap_[child], *timer)) break;
      put(index, heap_[child]);
      index = child;
    }
    put(index, timer);
  }

  std::vector<Timer *> heap_;
  std::uint64_t next_sequence_ = 0;
  std::int64_t last_run_ = INT64_MIN;
  Timer *running_ = nullptr;
  void (*hook_)(std::int64_t) = nullptr;
};

Timer::~Timer() { TimerQueue::instance().destroyed(*this); }

void Timer::arm(std::int64_t deadline_ns) {
  cancel();
  TimerQueue::instance().insert(*this, deadline_ns);
}

void Timer::cancel() {
  if (armed_) TimerQueue::instance().remove(*this);
}

namespace timers {

std::int64_t run_expired() { return TimerQueue::instance().run_expired(); }
std::int64_t next_deadline() { return TimerQueue::instance().next_deadline(); }
void set_reprogram_hook(void (*hook)(std::int64_t)) { TimerQueue::instance().set_hook(hook); }
bool driven() { return TimerQueue::instance().driven(); }
void clock_changed() { TimerQueue::instance().clock_changed(); }

}  // namespace timers
}  // namespace cowbird
