// Records of getdents(2) and getdents64(2). Anyone may include this header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

// Followed by the name with its terminating zero; the record is padded to 8 bytes.
struct Dirent64 {
  std::uint64_t d_ino;
  std::int64_t d_off;
  std::uint16_t d_reclen;
  std::uint8_t d_type;
};
inline constexpr std::size_t kDirent64NameOffset = 19;
static_assert(offsetof(Dirent64, d_type) == 18);

// Followed by the name with its terminating zero; the record's last byte is the type.
struct DirentOld {
  std::uint64_t d_ino;
  std::uint64_t d_off;
  std::uint16_t d_reclen;
};
inline constexpr std::size_t kDirentOldNameOffset = 18;
static_assert(offsetof(DirentOld, d_reclen) == 16);

}  // namespace cowbird::abi
