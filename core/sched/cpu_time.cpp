#include "sched/cpu_time.hpp"

#include <cpuid.h>
#include <x86intrin.h>

#include <atomic>
#include <ctime>

#include "base/units.hpp"
#include "sched/clock.hpp"

namespace cowbird::cpu_time {
namespace {

struct Sample {
  std::uint64_t ticks;
  std::int64_t ns;
};

Sample sample() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return {__rdtsc(), now.tv_sec * kNsPerSec + now.tv_nsec};
}

// Taken when the program starts, so that the time until calibrate() need not be waited for.
const Sample first = sample();
constexpr std::int64_t kCalibrationNs = 500 * kNsPerUs;
constexpr unsigned kShift = 32;
// Nanoseconds per tick times 2^kShift; 0 when the counter is not used.
std::uint64_t scale = 0;

// CPUID Fn8000_0007 EDX bit 8: the counter's rate does not depend on the power state.
bool counter_is_invariant() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & (1u << 8)) != 0;
}

}  // namespace

void calibrate() {
  if (scale != 0 || !counter_is_invariant()) return;
  Sample last = sample();
  while (last.ns - first.ns < kCalibrationNs) last = sample();
  const auto ns = static_cast<std::uint64_t>(last.ns - first.ns);
  const std::uint64_t ticks = last.ticks - first.ticks;
  // A counter that ran backwards or hardly at all is none to trust.
  if (last.ticks <= first.ticks || ticks < ns / 100) return;
  scale = static_cast<std::uint64_t>((static_cast<unsigned __int128>(ns) << kShift) / ticks);
}

std::int64_t now_ns() {
  if (scale == 0 || clock::has_test_source()) return clock::monotonic_ns();
  const std::uint64_t ticks = __rdtsc() - first.ticks;
  return static_cast<std::int64_t>((static_cast<unsigned __int128>(ticks) * scale) >> kShift);
}

}  // namespace cowbird::cpu_time
