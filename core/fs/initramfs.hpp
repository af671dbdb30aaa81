// Unpacks an initial root file system: one or more cpio archives (newc, with or without checksums)
// one after the other, each plain or compressed with gzip, as the boot loader of a Linux kernel
// would pass them. The bytes are not trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "vfs/path.hpp"

namespace cowbird {

// One entry of an archive. `data` is good during the call only.
struct CpioEntry {
  std::string_view name;  // without leading "/" or "./"; no component is ".."; never empty
  std::uint32_t mode = 0, uid = 0, gid = 0, nlink = 0, mtime = 0;
  std::uint32_t inode = 0, device_major = 0, device_minor = 0;
  std::uint32_t rdev_major = 0, rdev_minor = 0;
  std::span<const std::byte> data;  // a file's contents, a symbolic link's target
};
using CpioSink = std::function<Result<void>(const CpioEntry &entry)>;

// Calls `sink` for each entry of the (possibly compressed, concatenated) archives, in order; stops
// at its first error. At most `max_unpacked` bytes come out of compression. Empty on success.
std::string parse_cpio(std::span<const std::byte> archive, std::uint64_t max_unpacked,
                       const CpioSink &sink);

// Creates the entries below the root of `fs`, hard links included. On failure `why` says what is
// wrong; what was created before stays. Sleeps as file operations do.
Result<void> unpack_initramfs(FsContext &fs, std::span<const std::byte> archive, std::string &why);

}  // namespace cowbird
