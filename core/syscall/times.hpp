// Times of system calls: between the guest's structures and nanoseconds. For the sys_*.cpp files.
#pragma once

#include "abi/time.hpp"
#include "base/units.hpp"
#include "mm/user_access.hpp"
#include "sched/clock.hpp"

namespace cowbird {

inline constexpr std::int64_t kMaxSeconds = INT64_MAX / kNsPerSec - 1;

// Too long a time becomes the longest; a negative or unnormalised one is Inval.
inline Result<std::int64_t> to_ns(const abi::Timespec &t) {
  if (t.sec < 0 || t.nsec < 0 || t.nsec >= kNsPerSec) return Err(Errno::Inval);
  if (t.sec > kMaxSeconds) return kMaxSeconds * kNsPerSec;
  return t.sec * kNsPerSec + t.nsec;
}
inline Result<std::int64_t> to_ns(const abi::Timeval &t) {
  if (t.sec < 0 || t.usec < 0 || t.usec >= 1'000'000) return Err(Errno::Inval);
  if (t.sec > kMaxSeconds) return kMaxSeconds * kNsPerSec;
  return t.sec * kNsPerSec + t.usec * kNsPerUs;
}
inline abi::Timespec to_timespec(std::int64_t ns) { return {ns / kNsPerSec, ns % kNsPerSec}; }
inline abi::Timeval to_timeval(std::int64_t ns) {
  return {ns / kNsPerSec, ns % kNsPerSec / kNsPerUs};
}
// A relative time as a deadline of the monotonic clock.
inline std::int64_t deadline_after(std::int64_t ns) {
  std::int64_t deadline;
  if (__builtin_add_overflow(clock::monotonic_ns(), ns, &deadline)) return INT64_MAX - 1;
  return deadline;
}

// The time of a clock_gettime(2) clock; Inval when there is none such.
Result<std::int64_t> read_clock(Task &task, int clock_id);

}  // namespace cowbird
