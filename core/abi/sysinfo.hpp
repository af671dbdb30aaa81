// sysinfo(2), reboot(2) and syslog(2). Plain data.
#pragma once

#include <cstdint>

namespace cowbird::abi {

struct Sysinfo {
  std::int64_t uptime;
  std::uint64_t loads[3], totalram, freeram, sharedram, bufferram, totalswap, freeswap;
  std::uint16_t procs, pad0;
  std::uint32_t pad1;
  std::uint64_t totalhigh, freehigh;
  std::uint32_t mem_unit, pad2;
};
static_assert(sizeof(Sysinfo) == 112);

inline constexpr std::uint32_t kLINUX_REBOOT_MAGIC1 = 0xfee1dead;
inline constexpr std::uint32_t kLINUX_REBOOT_MAGIC2 = 672274793;
inline constexpr std::uint32_t kLINUX_REBOOT_MAGIC2A = 85072278;
inline constexpr std::uint32_t kLINUX_REBOOT_MAGIC2B = 369367448;
inline constexpr std::uint32_t kLINUX_REBOOT_MAGIC2C = 537993216;
inline constexpr std::uint32_t kLINUX_REBOOT_CMD_RESTART = 0x01234567;
inline constexpr std::uint32_t kLINUX_REBOOT_CMD_HALT = 0xcdef0123;
inline constexpr std::uint32_t kLINUX_REBOOT_CMD_CAD_ON = 0x89abcdef;
inline constexpr std::uint32_t kLINUX_REBOOT_CMD_CAD_OFF = 0;
inline constexpr std::uint32_t kLINUX_REBOOT_CMD_POWER_OFF = 0x4321fedc;
inline constexpr std::uint32_t kLINUX_REBOOT_CMD_RESTART2 = 0xa1b2c3d4;

}  // namespace cowbird::abi
