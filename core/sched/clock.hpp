// The guest's clocks. Time is read from the host but owned by the kernel: it stands still between
// stop() and go() (debugger, management console), and nothing else in the kernel may ask the host
// for the time. Any host thread may read a clock; stop, go and set_realtime are called with the big
// kernel lock held.
#pragma once

#include <cstdint>

namespace cowbird::clock {

// Nanoseconds since the guest kernel started; never goes back.
std::int64_t monotonic_ns();
// Nanoseconds since 1970-01-01 UTC.
std::int64_t realtime_ns();
// Offset realtime - monotonic; changed by set_realtime.
std::int64_t realtime_offset_ns();
void set_realtime(std::int64_t ns_since_epoch);

void stop();
void go();
bool stopped();

// Counts the go()s: a span of host time that was measured across a change contains a halt.
std::uint32_t halts();

// For unit tests: a clock that moves only when told; the guest's monotonic time is what it returns
// (less halts). nullptr returns to the host's clock. Guest time may jump at the change.
void set_source(std::int64_t (*host_monotonic_ns)());
bool has_test_source();

}  // namespace cowbird::clock
