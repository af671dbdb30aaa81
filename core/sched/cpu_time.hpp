// A cheap clock for CPU-time accounting: read twice a system call, so it is the processor's time
// stamp counter where that runs at a constant rate, scaled to nanoseconds (half the cost of
// clock_gettime), and the guest's clock elsewhere and in tests with a clock of their own. It is not
// exactly the guest's clock (some ten parts in a million off, and it runs on while the guest's
// stands still), so it serves for differences only. Any host thread; no lock.
#pragma once

#include <cstdint>

namespace cowbird::cpu_time {

// Measures the counter's rate; once, before the first now(). May spin for half a millisecond.
void calibrate();
std::int64_t now_ns();

}  // namespace cowbird::cpu_time
