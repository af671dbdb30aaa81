// Mounts, as vfs/ itself sees them; everybody else uses vfs/path.hpp. One mount name space; all
// mounts are private (no propagation). Needs the big kernel lock; nothing here sleeps unless it
// says so.
#pragma once

#include <cstdint>
#include <string>

#include "base/list.hpp"
#include "base/ref.hpp"
#include "vfs/dentry.hpp"
#include "vfs/path.hpp"

namespace cowbird {

class Mount : public RefCounted<Mount> {
 public:
  Mount(Ref<SuperBlock> superblock, Ref<Dentry> root_dentry, std::string source_name,
        std::uint32_t mount_flags);
  ~Mount();

  Ref<SuperBlock> sb;
  Ref<Dentry> root;
  // Where it is attached; both empty for the root of the name space, internal and detached mounts.
  Ref<Mount> parent;
  Ref<Dentry> mountpoint;
  std::string source;
  std::string type;     // the file system's, "tmpfs"
  std::uint32_t flags;  // MountFlag
  int id;
  bool attached = false;
  bool read_only() const { return (flags & kMountReadOnly) || sb->read_only(); }
};

// The mount whose root covers `path`, or nullptr.
Mount *mount_on(const Path &path);
// Goes down through everything that is mounted on `path`.
void follow_mounts(Path &path);
// From the root of a mount up to where it is attached (through several); false when `path` is not a
// mount's root or is the top.
bool follow_up(Path &path);
// The one root dentry of a file system: the same for all its mounts, kept while there is one.
Ref<Dentry> root_dentry_of(SuperBlock &sb);
// A mount that is in no name space (pipes, memfd, sockets).
Ref<Mount> make_internal_mount(Ref<SuperBlock> sb);
// RoFs when nothing may be written through this mount.
Result<void> check_mount_writable(const Path &path);

}  // namespace cowbird
