// The auxiliary vector's types (getauxval(3)). Plain data.
#pragma once

#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint64_t kAT_NULL = 0;
inline constexpr std::uint64_t kAT_PHDR = 3;
inline constexpr std::uint64_t kAT_PHENT = 4;
inline constexpr std::uint64_t kAT_PHNUM = 5;
inline constexpr std::uint64_t kAT_PAGESZ = 6;
inline constexpr std::uint64_t kAT_BASE = 7;
inline constexpr std::uint64_t kAT_FLAGS = 8;
inline constexpr std::uint64_t kAT_ENTRY = 9;
inline constexpr std::uint64_t kAT_UID = 11;
inline constexpr std::uint64_t kAT_EUID = 12;
inline constexpr std::uint64_t kAT_GID = 13;
inline constexpr std::uint64_t kAT_EGID = 14;
inline constexpr std::uint64_t kAT_PLATFORM = 15;
inline constexpr std::uint64_t kAT_HWCAP = 16;
inline constexpr std::uint64_t kAT_CLKTCK = 17;
inline constexpr std::uint64_t kAT_SECURE = 23;
inline constexpr std::uint64_t kAT_RANDOM = 25;
inline constexpr std::uint64_t kAT_HWCAP2 = 26;
inline constexpr std::uint64_t kAT_EXECFN = 31;
inline constexpr std::uint64_t kAT_MINSIGSTKSZ = 51;

}  // namespace cowbird::abi
