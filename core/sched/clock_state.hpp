// What a reading of the guest's clock is made of. Of sched/clock.cpp alone; the debugger changes it
// from outside while the kernel stands still (boot/debug_view.hpp), so that the guest does not see
// the time of a halt.
#pragma once

#include <atomic>
#include <cstdint>

namespace cowbird::clock {

// Writers hold the big kernel lock; readers take a consistent copy under the sequence counter,
// which is odd while somebody writes.
struct State {
  std::atomic<std::uint32_t> sequence{0};
  std::atomic<std::int64_t> base;  // host time at guest time 0
  std::atomic<std::int64_t> frozen{
      0};  // the guest's time while it stands still; else, at the last change
  std::atomic<bool> stopped{false};
  std::atomic<std::int64_t (*)()> source{nullptr};
  std::atomic<std::uint32_t> halts{0};
  std::atomic<std::int64_t> realtime_offset{0};  // realtime less monotonic
  State();
};
extern State state;

}  // namespace cowbird::clock
