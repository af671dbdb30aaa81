// Mode bits, struct stat and struct statx, as a guest on Linux x86-64 sees them. Anyone may include
// this header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint32_t kS_IFMT = 0170000;
inline constexpr std::uint32_t kS_IFIFO = 0010000;
inline constexpr std::uint32_t kS_IFCHR = 0020000;
inline constexpr std::uint32_t kS_IFDIR = 0040000;
inline constexpr std::uint32_t kS_IFBLK = 0060000;
inline constexpr std::uint32_t kS_IFREG = 0100000;
inline constexpr std::uint32_t kS_IFLNK = 0120000;
inline constexpr std::uint32_t kS_IFSOCK = 0140000;
inline constexpr std::uint32_t kS_ISUID = 04000;
inline constexpr std::uint32_t kS_ISGID = 02000;
inline constexpr std::uint32_t kS_ISVTX = 01000;
inline constexpr std::uint32_t kS_IXGRP = 0010;
inline constexpr std::uint32_t kS_IALLUGO = 07777;

struct Stat {
  std::uint64_t st_dev;
  std::uint64_t st_ino;
  std::uint64_t st_nlink;
  std::uint32_t st_mode;
  std::uint32_t st_uid;
  std::uint32_t st_gid;
  std::uint32_t pad0;
  std::uint64_t st_rdev;
  std::int64_t st_size;
  std::int64_t st_blksize;
  std::int64_t st_blocks;
  std::int64_t st_atime_sec, st_atime_nsec;
  std::int64_t st_mtime_sec, st_mtime_nsec;
  std::int64_t st_ctime_sec, st_ctime_nsec;
  std::int64_t unused[3];
};
static_assert(sizeof(Stat) == 144 && offsetof(Stat, st_rdev) == 40 &&
              offsetof(Stat, st_atime_sec) == 72);

struct StatxTimestamp {
  std::int64_t tv_sec;
  std::uint32_t tv_nsec;
  std::int32_t pad;
};
static_assert(sizeof(StatxTimestamp) == 16);

struct Statx {
  std::uint32_t stx_mask;
  std::uint32_t stx_blksize;
  std::uint64_t stx_attributes;
  std::uint32_t stx_nlink;
  std::uint32_t stx_uid;
  std::uint32_t stx_gid;
  std::uint16_t stx_mode;
  std::uint16_t pad0;
  std::uint64_t stx_ino;
  std::uint64_t stx_size;
  std::uint64_t stx_blocks;
  std::uint64_t stx_attributes_mask;
  StatxTimestamp stx_atime, stx_btime, stx_ctime, stx_mtime;
  std::uint32_t stx_rdev_major, stx_rdev_minor, stx_dev_major, stx_dev_minor;
  std::uint64_t stx_mnt_id;
  std::uint32_t stx_dio_mem_align, stx_dio_offset_align;
  std::uint64_t spare[12];
};
static_assert(sizeof(Statx) == 256 && offsetof(Statx, stx_atime) == 64 &&
              offsetof(Statx, stx_mnt_id) == 144);

inline constexpr std::uint32_t kSTATX_BASIC_STATS = 0x7ff;
inline constexpr std::uint32_t kSTATX_BTIME = 0x800;
inline constexpr std::uint32_t kSTATX_MNT_ID = 0x1000;
inline constexpr std::uint32_t kSTATX_RESERVED = 0x80000000u;
inline constexpr std::uint64_t kSTATX_ATTR_MOUNT_ROOT = 0x2000;

inline constexpr std::int64_t kUTIME_NOW = (1ll << 30) - 1;
inline constexpr std::int64_t kUTIME_OMIT = (1ll << 30) - 2;

}  // namespace cowbird::abi
