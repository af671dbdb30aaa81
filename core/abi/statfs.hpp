// struct statfs and the magic numbers of file systems. Anyone may include this header.
#pragma once

#include <cstdint>

namespace cowbird::abi {

struct Statfs {
  std::int64_t f_type;
  std::int64_t f_bsize;
  std::uint64_t f_blocks;
  std::uint64_t f_bfree;
  std::uint64_t f_bavail;
  std::uint64_t f_files;
  std::uint64_t f_ffree;
  std::int32_t f_fsid[2];
  std::int64_t f_namelen;
  std::int64_t f_frsize;
  std::int64_t f_flags;
  std::int64_t f_spare[4];
};
static_assert(sizeof(Statfs) == 120);

inline constexpr std::uint64_t kTMPFS_MAGIC = 0x01021994;
inline constexpr std::uint64_t kRAMFS_MAGIC = 0x858458f6;
inline constexpr std::uint64_t kPIPEFS_MAGIC = 0x50495045;
inline constexpr std::uint64_t kANON_INODE_FS_MAGIC = 0x09041934;
inline constexpr std::uint64_t kSOCKFS_MAGIC = 0x534f434b;

inline constexpr std::uint64_t kST_RDONLY = 1;
inline constexpr std::uint64_t kST_NOSUID = 2;
inline constexpr std::uint64_t kST_NODEV = 4;
inline constexpr std::uint64_t kST_NOEXEC = 8;
inline constexpr std::uint64_t kST_VALID = 32;
inline constexpr std::uint64_t kST_NOATIME = 1024;
inline constexpr std::uint64_t kST_NODIRATIME = 2048;
inline constexpr std::uint64_t kST_RELATIME = 4096;

}  // namespace cowbird::abi
