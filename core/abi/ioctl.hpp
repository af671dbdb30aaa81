// Commands of ioctl(2) that the file layer itself answers. Anyone may include this header.
#pragma once

#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint32_t kFIONREAD = 0x541b;
inline constexpr std::uint32_t kFIONBIO = 0x5421;
inline constexpr std::uint32_t kFIONCLEX = 0x5450;
inline constexpr std::uint32_t kFIOCLEX = 0x5451;
inline constexpr std::uint32_t kFIOASYNC = 0x5452;
inline constexpr std::uint32_t kFIGETBSZ = 2, kFIOQSIZE = 0x5460;

}  // namespace cowbird::abi
