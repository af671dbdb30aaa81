// sched_setscheduler(2), sched_setattr(2), ioprio_set(2). Plain data.
#pragma once

#include <cstdint>

namespace cowbird::abi {

inline constexpr int kSCHED_OTHER = 0;
inline constexpr int kSCHED_FIFO = 1;
inline constexpr int kSCHED_RR = 2;
inline constexpr int kSCHED_BATCH = 3;
inline constexpr int kSCHED_IDLE = 5;
inline constexpr int kSCHED_DEADLINE = 6;
inline constexpr int kSCHED_RESET_ON_FORK = 0x40000000;
inline constexpr std::uint64_t kSCHED_FLAG_RESET_ON_FORK = 1;

struct SchedParam {
  std::int32_t priority;
};

struct SchedAttr {
  std::uint32_t size, policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime, deadline, period;
};
static_assert(sizeof(SchedAttr) == 48);

}  // namespace cowbird::abi
