// The watchdog interface: linux/watchdog.h as x86-64 programs see it. Anyone may include this
// header.
#pragma once

#include <cstdint>

namespace cowbird::abi {

struct WatchdogInfo {
  std::uint32_t options;
  std::uint32_t firmware_version;
  std::uint8_t identity[32];
};
static_assert(sizeof(WatchdogInfo) == 40);

inline constexpr std::uint32_t kWDIOC_GETSUPPORT = 0x80285700;
inline constexpr std::uint32_t kWDIOC_GETSTATUS = 0x80045701;
inline constexpr std::uint32_t kWDIOC_GETBOOTSTATUS = 0x80045702;
inline constexpr std::uint32_t kWDIOC_SETOPTIONS = 0x80045704;
inline constexpr std::uint32_t kWDIOC_KEEPALIVE = 0x80045705;
inline constexpr std::uint32_t kWDIOC_SETTIMEOUT = 0xc0045706;
inline constexpr std::uint32_t kWDIOC_GETTIMEOUT = 0x80045707;
inline constexpr std::uint32_t kWDIOC_GETTIMELEFT = 0x8004570a;

inline constexpr std::uint32_t kWDIOF_SETTIMEOUT = 0x0080;
inline constexpr std::uint32_t kWDIOF_MAGICCLOSE = 0x0100;
inline constexpr std::uint32_t kWDIOF_KEEPALIVEPING = 0x8000;

inline constexpr std::int32_t kWDIOS_DISABLECARD = 1;
inline constexpr std::int32_t kWDIOS_ENABLECARD = 2;

}  // namespace cowbird::abi
