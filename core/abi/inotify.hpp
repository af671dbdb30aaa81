// Events of inotify(7). Anyone may include this header.
#pragma once

#include <cstdint>

namespace cowbird::abi {

// Followed by `len` bytes of name, zero padded.
struct InotifyEvent {
  std::int32_t wd;
  std::uint32_t mask;
  std::uint32_t cookie;
  std::uint32_t len;
};
static_assert(sizeof(InotifyEvent) == 16);

inline constexpr std::uint32_t kIN_ACCESS = 0x1;
inline constexpr std::uint32_t kIN_MODIFY = 0x2;
inline constexpr std::uint32_t kIN_ATTRIB = 0x4;
inline constexpr std::uint32_t kIN_CLOSE_WRITE = 0x8;
inline constexpr std::uint32_t kIN_CLOSE_NOWRITE = 0x10;
inline constexpr std::uint32_t kIN_OPEN = 0x20;
inline constexpr std::uint32_t kIN_MOVED_FROM = 0x40;
inline constexpr std::uint32_t kIN_MOVED_TO = 0x80;
inline constexpr std::uint32_t kIN_CREATE = 0x100;
inline constexpr std::uint32_t kIN_DELETE = 0x200;
inline constexpr std::uint32_t kIN_DELETE_SELF = 0x400;
inline constexpr std::uint32_t kIN_MOVE_SELF = 0x800;
inline constexpr std::uint32_t kIN_ALL_EVENTS = 0xfff;
inline constexpr std::uint32_t kIN_UNMOUNT = 0x2000;
inline constexpr std::uint32_t kIN_Q_OVERFLOW = 0x4000;
inline constexpr std::uint32_t kIN_IGNORED = 0x8000;
inline constexpr std::uint32_t kIN_ONLYDIR = 0x1000000;
inline constexpr std::uint32_t kIN_DONT_FOLLOW = 0x2000000;
inline constexpr std::uint32_t kIN_EXCL_UNLINK = 0x4000000;
inline constexpr std::uint32_t kIN_MASK_CREATE = 0x10000000;
inline constexpr std::uint32_t kIN_MASK_ADD = 0x20000000;
inline constexpr std::uint32_t kIN_ISDIR = 0x40000000;
inline constexpr std::uint32_t kIN_ONESHOT = 0x80000000u;

}  // namespace cowbird::abi
