// capget(2) and capset(2). Plain data.
#pragma once

#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint32_t k_LINUX_CAPABILITY_VERSION_1 = 0x19980330;
inline constexpr std::uint32_t k_LINUX_CAPABILITY_VERSION_2 = 0x20071026;
inline constexpr std::uint32_t k_LINUX_CAPABILITY_VERSION_3 = 0x20080522;

struct CapUserHeader {
  std::uint32_t version;
  std::int32_t pid;
};
static_assert(sizeof(CapUserHeader) == 8);
struct CapUserData {
  std::uint32_t effective, permitted, inheritable;
};
static_assert(sizeof(CapUserData) == 12);

}  // namespace cowbird::abi
