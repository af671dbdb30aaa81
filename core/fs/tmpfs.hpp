// tmpfs: files, directories, symbolic links, devices and extended attributes in memory. Also what
// ramfs, the initial root file system and memfd_create stand on; devtmpfs can use it as its store.
// Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/ref.hpp"
#include "base/result.hpp"
#include "vfs/inode.hpp"

namespace cowbird {

struct TmpfsOptions {
  std::uint64_t max_pages = 0;   // 0: half of the physical memory
  std::uint64_t max_inodes = 0;  // 0: as many as half of the pages of physical memory
  std::uint32_t mode = 01777;    // of the root directory
  std::uint32_t uid = 0, gid = 0;
};

// A new instance. `type_name` is a literal: what /proc/mounts shows ("tmpfs", "ramfs", "rootfs",
// "devtmpfs").
Ref<SuperBlock> make_tmpfs(const char *type_name, const TmpfsOptions &options);
// size= nr_blocks= nr_inodes= mode= uid= gid=, as in tmpfs(5); Inval for anything else.
Result<TmpfsOptions> parse_tmpfs_options(std::string_view text);
// The same on top of options that hold already (remount).
Result<TmpfsOptions> parse_tmpfs_options(std::string_view text, TmpfsOptions options);
// Registers "tmpfs" and "ramfs".
void register_tmpfs();

// A regular file without a name on the kernel's own tmpfs instance: memfd_create(2).
Result<Ref<Inode>> make_memfd_inode(std::uint32_t mode, const Credentials &owner);

}  // namespace cowbird
