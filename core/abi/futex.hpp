// futex(2) and robust lists. Plain data.
#pragma once

#include <cstdint>

namespace cowbird::abi {

inline constexpr int kFUTEX_WAIT = 0;
inline constexpr int kFUTEX_WAKE = 1;
inline constexpr int kFUTEX_REQUEUE = 3;
inline constexpr int kFUTEX_CMP_REQUEUE = 4;
inline constexpr int kFUTEX_WAKE_OP = 5;
inline constexpr int kFUTEX_LOCK_PI = 6;
inline constexpr int kFUTEX_WAIT_BITSET = 9;
inline constexpr int kFUTEX_WAKE_BITSET = 10;
inline constexpr int kFUTEX_PRIVATE_FLAG = 128;
inline constexpr int kFUTEX_CLOCK_REALTIME = 256;
inline constexpr int kFUTEX_CMD_MASK = ~(kFUTEX_PRIVATE_FLAG | kFUTEX_CLOCK_REALTIME);
inline constexpr std::uint32_t kFUTEX_BITSET_MATCH_ANY = 0xffffffff;
inline constexpr std::uint32_t kFUTEX_WAITERS = 0x80000000;
inline constexpr std::uint32_t kFUTEX_OWNER_DIED = 0x40000000;
inline constexpr std::uint32_t kFUTEX_TID_MASK = 0x3fffffff;
inline constexpr unsigned kROBUST_LIST_LIMIT = 2048;

struct RobustListHead {
  std::uint64_t next;
  std::int64_t futex_offset;
  std::uint64_t pending;
};
static_assert(sizeof(RobustListHead) == 24);

}  // namespace cowbird::abi
