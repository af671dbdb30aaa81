// Events and structures of poll(2), select(2) and epoll(7) readiness. Anyone may include this
// header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint32_t kPOLLIN = 0x1;
inline constexpr std::uint32_t kPOLLPRI = 0x2;
inline constexpr std::uint32_t kPOLLOUT = 0x4;
inline constexpr std::uint32_t kPOLLERR = 0x8;
inline constexpr std::uint32_t kPOLLHUP = 0x10;
inline constexpr std::uint32_t kPOLLNVAL = 0x20;
inline constexpr std::uint32_t kPOLLRDNORM = 0x40;
inline constexpr std::uint32_t kPOLLRDBAND = 0x80;
inline constexpr std::uint32_t kPOLLWRNORM = 0x100;
inline constexpr std::uint32_t kPOLLWRBAND = 0x200;
inline constexpr std::uint32_t kPOLLMSG = 0x400;
inline constexpr std::uint32_t kPOLLRDHUP = 0x2000;

struct PollFd {
  std::int32_t fd;
  std::int16_t events;
  std::int16_t revents;
};
static_assert(sizeof(PollFd) == 8);

// The last argument of pselect6(2).
struct PselectMask {
  std::uint64_t mask;  // guest pointer
  std::uint64_t size;
};
static_assert(sizeof(PselectMask) == 16);

}  // namespace cowbird::abi
