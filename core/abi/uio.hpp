// struct iovec and the flags of preadv2(2). Anyone may include this header.
#pragma once

#include <cstdint>

namespace cowbird::abi {

struct Iovec {
  std::uint64_t iov_base;
  std::uint64_t iov_len;
};
static_assert(sizeof(Iovec) == 16);
inline constexpr std::uint64_t kIOV_MAX = 1024;
// The most that one read or write transfers (read(2), NOTES).
inline constexpr std::uint64_t kMaxTransfer = 0x7ffff000;

inline constexpr std::uint32_t kRWF_HIPRI = 1;
inline constexpr std::uint32_t kRWF_DSYNC = 2;
inline constexpr std::uint32_t kRWF_SYNC = 4;
inline constexpr std::uint32_t kRWF_NOWAIT = 8;
inline constexpr std::uint32_t kRWF_APPEND = 16;

}  // namespace cowbird::abi
