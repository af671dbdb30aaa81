// Small descriptor objects: eventfd(2) and timerfd_create(2). Needs the big kernel lock.
#pragma once

#include <cstdint>

#include "base/result.hpp"
#include "vfs/file.hpp"

namespace cowbird {

// `flags`: O_NONBLOCK.
Ref<File> make_eventfd(std::uint64_t initial, bool semaphore, std::uint32_t flags);

enum class TimerFdClock : std::uint8_t { Realtime, Monotonic };
Ref<File> make_timerfd(TimerFdClock clock, std::uint32_t flags);
struct TimerSetting {
  std::int64_t value_ns = 0;     // until the next expiry; 0 when it is disarmed
  std::int64_t interval_ns = 0;  // 0: once
};
// Sets it and returns what was set before; Inval when the file is no timer.
Result<TimerSetting> timerfd_set(File &file, bool absolute, TimerSetting setting);
Result<TimerSetting> timerfd_get(File &file);

}  // namespace cowbird
