// Flags of mount(2) and umount2(2). Anyone may include this header.
#pragma once

#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint64_t kMS_RDONLY = 1;
inline constexpr std::uint64_t kMS_NOSUID = 2;
inline constexpr std::uint64_t kMS_NODEV = 4;
inline constexpr std::uint64_t kMS_NOEXEC = 8;
inline constexpr std::uint64_t kMS_SYNCHRONOUS = 16;
inline constexpr std::uint64_t kMS_REMOUNT = 32;
inline constexpr std::uint64_t kMS_MANDLOCK = 64;
inline constexpr std::uint64_t kMS_DIRSYNC = 128;
inline constexpr std::uint64_t kMS_NOATIME = 1024;
inline constexpr std::uint64_t kMS_NODIRATIME = 2048;
inline constexpr std::uint64_t kMS_BIND = 4096;
inline constexpr std::uint64_t kMS_MOVE = 8192;
inline constexpr std::uint64_t kMS_REC = 16384;
inline constexpr std::uint64_t kMS_SILENT = 32768;
inline constexpr std::uint64_t kMS_UNBINDABLE = 1u << 17;
inline constexpr std::uint64_t kMS_PRIVATE = 1u << 18;
inline constexpr std::uint64_t kMS_SLAVE = 1u << 19;
inline constexpr std::uint64_t kMS_SHARED = 1u << 20;
inline constexpr std::uint64_t kMS_RELATIME = 1u << 21;
inline constexpr std::uint64_t kMS_STRICTATIME = 1u << 24;
inline constexpr std::uint64_t kMS_LAZYTIME = 1u << 25;
inline constexpr std::uint64_t kMS_MGC_VAL = 0xc0ed0000;
inline constexpr std::uint64_t kMS_MGC_MSK = 0xffff0000;

inline constexpr std::uint32_t kMNT_FORCE = 1;
inline constexpr std::uint32_t kMNT_DETACH = 2;
inline constexpr std::uint32_t kMNT_EXPIRE = 4;
inline constexpr std::uint32_t kUMOUNT_NOFOLLOW = 8;

}  // namespace cowbird::abi
