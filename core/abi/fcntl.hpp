// Constants and structures of open(2), openat2(2), fcntl(2), flock(2), the *at calls and
// memfd_create(2), as a guest on Linux x86-64 sees them. Anyone may include this header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint32_t kO_ACCMODE = 3;
inline constexpr std::uint32_t kO_RDONLY = 0;
inline constexpr std::uint32_t kO_WRONLY = 1;
inline constexpr std::uint32_t kO_RDWR = 2;
inline constexpr std::uint32_t kO_CREAT = 0100;
inline constexpr std::uint32_t kO_EXCL = 0200;
inline constexpr std::uint32_t kO_NOCTTY = 0400;
inline constexpr std::uint32_t kO_TRUNC = 01000;
inline constexpr std::uint32_t kO_APPEND = 02000;
inline constexpr std::uint32_t kO_NONBLOCK = 04000;
inline constexpr std::uint32_t kO_DSYNC = 010000;
inline constexpr std::uint32_t kO_ASYNC = 020000;
inline constexpr std::uint32_t kO_DIRECT = 040000;
inline constexpr std::uint32_t kO_LARGEFILE = 0100000;
inline constexpr std::uint32_t kO_DIRECTORY = 0200000;
inline constexpr std::uint32_t kO_NOFOLLOW = 0400000;
inline constexpr std::uint32_t kO_NOATIME = 01000000;
inline constexpr std::uint32_t kO_CLOEXEC = 02000000;
inline constexpr std::uint32_t kO_SYNC = 04010000;
inline constexpr std::uint32_t kO_PATH = 010000000;
inline constexpr std::uint32_t kO_TMPFILE_BIT = 020000000;
inline constexpr std::uint32_t kO_TMPFILE = kO_TMPFILE_BIT | kO_DIRECTORY;

inline constexpr int kAT_FDCWD = -100;
inline constexpr std::uint32_t kAT_SYMLINK_NOFOLLOW = 0x100;
inline constexpr std::uint32_t kAT_REMOVEDIR = 0x200;
inline constexpr std::uint32_t kAT_EACCESS = 0x200;
inline constexpr std::uint32_t kAT_SYMLINK_FOLLOW = 0x400;
inline constexpr std::uint32_t kAT_NO_AUTOMOUNT = 0x800;
inline constexpr std::uint32_t kAT_EMPTY_PATH = 0x1000;
inline constexpr std::uint32_t kAT_STATX_SYNC_TYPE = 0x6000;

inline constexpr std::uint32_t kF_DUPFD = 0;
inline constexpr std::uint32_t kF_GETFD = 1;
inline constexpr std::uint32_t kF_SETFD = 2;
inline constexpr std::uint32_t kF_GETFL = 3;
inline constexpr std::uint32_t kF_SETFL = 4;
inline constexpr std::uint32_t kF_GETLK = 5;
inline constexpr std::uint32_t kF_SETLK = 6;
inline constexpr std::uint32_t kF_SETLKW = 7;
inline constexpr std::uint32_t kF_SETOWN = 8;
inline constexpr std::uint32_t kF_GETOWN = 9;
inline constexpr std::uint32_t kF_SETSIG = 10;
inline constexpr std::uint32_t kF_GETSIG = 11;
inline constexpr std::uint32_t kF_SETOWN_EX = 15;
inline constexpr std::uint32_t kF_GETOWN_EX = 16;
inline constexpr std::uint32_t kF_OFD_GETLK = 36;
inline constexpr std::uint32_t kF_OFD_SETLK = 37;
inline constexpr std::uint32_t kF_OFD_SETLKW = 38;
inline constexpr std::uint32_t kF_SETLEASE = 1024;
inline constexpr std::uint32_t kF_GETLEASE = 1025;
inline constexpr std::uint32_t kF_NOTIFY = 1026;
inline constexpr std::uint32_t kF_DUPFD_CLOEXEC = 1030;
inline constexpr std::uint32_t kF_SETPIPE_SZ = 1031;
inline constexpr std::uint32_t kF_GETPIPE_SZ = 1032;
inline constexpr std::uint32_t kF_ADD_SEALS = 1033;
inline constexpr std::uint32_t kF_GET_SEALS = 1034;

inline constexpr std::uint32_t kF_SEAL_SEAL = 1;
inline constexpr std::uint32_t kF_SEAL_SHRINK = 2;
inline constexpr std::uint32_t kF_SEAL_GROW = 4;
inline constexpr std::uint32_t kF_SEAL_WRITE = 8;
inline constexpr std::uint32_t kF_SEAL_FUTURE_WRITE = 16;
inline constexpr std::uint32_t kF_SEAL_EXEC = 32;

inline constexpr std::uint32_t kFD_CLOEXEC = 1;
inline constexpr std::int16_t kF_RDLCK = 0;
inline constexpr std::int16_t kF_WRLCK = 1;
inline constexpr std::int16_t kF_UNLCK = 2;
inline constexpr int kLOCK_SH = 1;
inline constexpr int kLOCK_EX = 2;
inline constexpr int kLOCK_NB = 4;
inline constexpr int kLOCK_UN = 8;

// struct flock (64-bit).
struct Flock {
  std::int16_t l_type;
  std::int16_t l_whence;
  std::int64_t l_start;
  std::int64_t l_len;
  std::int32_t l_pid;
};
static_assert(sizeof(Flock) == 32 && offsetof(Flock, l_start) == 8 && offsetof(Flock, l_pid) == 24);

struct FOwnerEx {
  std::int32_t type;  // F_OWNER_TID 0, F_OWNER_PID 1, F_OWNER_PGRP 2
  std::int32_t pid;
};
static_assert(sizeof(FOwnerEx) == 8);

struct OpenHow {
  std::uint64_t flags;
  std::uint64_t mode;
  std::uint64_t resolve;
};
static_assert(sizeof(OpenHow) == 24);
inline constexpr std::uint64_t kRESOLVE_NO_XDEV = 1;
inline constexpr std::uint64_t kRESOLVE_NO_MAGICLINKS = 2;
inline constexpr std::uint64_t kRESOLVE_NO_SYMLINKS = 4;
inline constexpr std::uint64_t kRESOLVE_BENEATH = 8;
inline constexpr std::uint64_t kRESOLVE_IN_ROOT = 16;
inline constexpr std::uint64_t kRESOLVE_CACHED = 32;

inline constexpr std::uint32_t kRENAME_NOREPLACE = 1;
inline constexpr std::uint32_t kRENAME_EXCHANGE = 2;
inline constexpr std::uint32_t kRENAME_WHITEOUT = 4;

inline constexpr std::uint32_t kFALLOC_FL_KEEP_SIZE = 1;
inline constexpr std::uint32_t kFALLOC_FL_PUNCH_HOLE = 2;
inline constexpr std::uint32_t kFALLOC_FL_COLLAPSE_RANGE = 8;
inline constexpr std::uint32_t kFALLOC_FL_ZERO_RANGE = 16;
inline constexpr std::uint32_t kFALLOC_FL_INSERT_RANGE = 32;
inline constexpr std::uint32_t kFALLOC_FL_UNSHARE_RANGE = 64;

inline constexpr std::uint32_t kMFD_CLOEXEC = 1;
inline constexpr std::uint32_t kMFD_ALLOW_SEALING = 2;
inline constexpr std::uint32_t kMFD_HUGETLB = 4;
inline constexpr std::uint32_t kMFD_NOEXEC_SEAL = 8;
inline constexpr std::uint32_t kMFD_EXEC = 16;

inline constexpr std::uint32_t kCLOSE_RANGE_UNSHARE = 2;
inline constexpr std::uint32_t kCLOSE_RANGE_CLOEXEC = 4;

inline constexpr std::uint32_t kXATTR_CREATE = 1;
inline constexpr std::uint32_t kXATTR_REPLACE = 2;

inline constexpr std::uint32_t kSPLICE_F_MOVE = 1;
inline constexpr std::uint32_t kSPLICE_F_NONBLOCK = 2;
inline constexpr std::uint32_t kSPLICE_F_MORE = 4;
inline constexpr std::uint32_t kSPLICE_F_GIFT = 8;

inline constexpr std::uint64_t kPATH_MAX = 4096;
inline constexpr std::uint64_t kNAME_MAX = 255;

}  // namespace cowbird::abi
