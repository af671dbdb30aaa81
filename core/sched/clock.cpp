#include "sched/clock.hpp"

#include <atomic>
#include <ctime>

#include "base/units.hpp"
#include "sched/clock_state.hpp"
#include "sched/timer.hpp"

namespace cowbird::clock {
namespace {

std::int64_t host_ns(clockid_t id) {
  timespec now{};
  ::clock_gettime(id, &now);
  return now.tv_sec * kNsPerSec + now.tv_nsec;
}

}  // namespace

State::State()
    : base(host_ns(CLOCK_MONOTONIC)),
      realtime_offset(host_ns(CLOCK_REALTIME) - host_ns(CLOCK_MONOTONIC) + base.load()) {}
State state;

namespace {

const std::int64_t real_base = state.base.load();

std::int64_t host_now() {
  const auto source = state.source.load(std::memory_order_relaxed);
  return source ? source() : host_ns(CLOCK_MONOTONIC);
}

class Change {
 public:
  Change() { state.sequence.fetch_add(1, std::memory_order_seq_cst); }
  ~Change() { state.sequence.fetch_add(1, std::memory_order_seq_cst); }
};

}  // namespace

std::int64_t monotonic_ns() {
  for (;;) {
    const std::uint32_t before = state.sequence.load(std::memory_order_acquire);
    std::int64_t now;
    if (state.stopped.load(std::memory_order_relaxed)) {
      now = state.frozen.load(std::memory_order_relaxed);
    } else {
      now = host_now() - state.base.load(std::memory_order_relaxed);
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    const std::uint32_t after = state.sequence.load(std::memory_order_acquire);
    if (before == after && (before & 1) == 0) return now;
    // The clock has been changed since this began, and says what it showed then: a time between
    // the caller's now and the one before. To read again could take for ever: under a debugger
    // that steps through here the clock stands still, and is changed, at each instruction.
    if ((after & 1) == 0) return state.frozen.load(std::memory_order_relaxed);
    __builtin_ia32_pause();
  }
}

std::int64_t realtime_ns() { return monotonic_ns() + realtime_offset_ns(); }

std::int64_t realtime_offset_ns() { return state.realtime_offset.load(std::memory_order_relaxed); }

void set_realtime(std::int64_t ns_since_epoch) {
  state.realtime_offset.store(ns_since_epoch - monotonic_ns(), std::memory_order_relaxed);
}

void stop() {
  if (state.stopped.load()) return;
  Change change;
  state.frozen.store(host_now() - state.base.load());
  state.stopped.store(true);
}

void go() {
  if (!state.stopped.load()) return;
  {
    Change change;
    state.base.store(host_now() - state.frozen.load());
    state.stopped.store(false);
  }
  state.halts.fetch_add(1);
  timers::clock_changed();
}

bool stopped() { return state.stopped.load(std::memory_order_acquire); }

std::uint32_t halts() { return state.halts.load(std::memory_order_relaxed); }

void set_source(std::int64_t (*host_monotonic_ns)()) {
  {
    Change change;
    state.source.store(host_monotonic_ns);
    state.base.store(host_monotonic_ns ? 0 : real_base);
    state.stopped.store(false);
    state.frozen.store(host_now() - state.base.load());
  }
  timers::clock_changed();
}

bool has_test_source() { return state.source.load(std::memory_order_relaxed) != nullptr; }

}  // namespace cowbird::clock
