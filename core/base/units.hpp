// Sizes, alignment and time units used everywhere. Anyone may include this header.
#pragma once

#include <cstdint>

namespace cowbird {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
inline constexpr std::uint64_t kPageShift = 12;
inline constexpr std::uint64_t kPageSize = 1u << kPageShift;
inline constexpr std::uint64_t kPageMask = kPageSize - 1;

inline constexpr std::int64_t kNsPerUs = 1000;
inline constexpr std::int64_t kNsPerMs = 1000 * kNsPerUs;
inline constexpr std::int64_t kNsPerSec = 1000 * kNsPerMs;

using VirtAddr = std::uint64_t;  // an address in a guest program's address space
using Pfn = std::uint64_t;       // page frame number: page index in the physical memory file

constexpr std::uint64_t page_down(std::uint64_t value) { return value & ~kPageMask; }
// Wraps to 0 above 2^64 - 4096: callers check lengths first.
constexpr std::uint64_t page_up(std::uint64_t value) { return (value + kPageMask) & ~kPageMask; }
constexpr bool page_aligned(std::uint64_t value) { return (value & kPageMask) == 0; }
constexpr std::uint64_t pages_of(std::uint64_t bytes) { return page_up(bytes) >> kPageShift; }

}  // namespace cowbird
