// Dentries, mounts and paths, and the walk from names to them (namei). A Path is a dentry in a
// mount. All functions need the big kernel lock and may sleep.
//
// The dentry cache: every Dentry with a reference is in the tree below its parent; unreferenced
// ones stay as a cache up to a bound (least recently used go first). A negative dentry has no
// inode.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/list.hpp"
#include "base/ref.hpp"
#include "base/result.hpp"
#include "vfs/types.hpp"

namespace cowbird {

class Dentry;
class File;
class Inode;
class Mount;
class SuperBlock;

struct Path {
  Ref<Mount> mount;
  Ref<Dentry> dentry;

  Path();
  Path(Ref<Mount> m, Ref<Dentry> d);
  Path(const Path &);
  Path(Path &&) noexcept;
  Path &operator=(const Path &);
  Path &operator=(Path &&) noexcept;
  ~Path();

  explicit operator bool() const;
  Inode &inode() const;  // the dentry's; it must be positive
  friend bool operator==(const Path &, const Path &);
};

// What a task sees of the name space: root, working directory, umask. Shared by CLONE_FS.
class FsContext : public RefCounted<FsContext> {
 public:
  Path root;
  Path cwd;
  std::uint32_t umask = 022;
  Ref<FsContext> clone() const;
};

enum class LookupFlag : std::uint32_t {
  None = 0,
  Follow = 1,     // a symbolic link in the last component is followed
  Directory = 2,  // the last component must be a directory
  NoAutomount = 4,
  EmptyPath = 8,    // "" means the start itself (AT_EMPTY_PATH)
  NoSymlinks = 16,  // openat2's RESOLVE_NO_SYMLINKS
  Beneath = 32,     // RESOLVE_BENEATH
  InRoot = 64,      // RESOLVE_IN_ROOT
  NoXDev = 128,     // RESOLVE_NO_XDEV
  NoMagicLinks = 256,
};
constexpr LookupFlag operator|(LookupFlag a, LookupFlag b) {
  return static_cast<LookupFlag>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}
constexpr bool has(LookupFlag set, LookupFlag bit) {
  return (static_cast<std::uint32_t>(set) & static_cast<std::uint32_t>(bit)) != 0;
}

// Who walks, and from where.
struct WalkContext {
  FsContext &fs;
  const Credentials &credentials;
  Path start;  // of relative names; fs.cwd or a directory descriptor's path
};

// The existing object that `name` leads to. NoEnt, NotDir, Access, Loop (40 links), NameTooLong.
Result<Path> lookup(const WalkContext &walk, std::string_view name, LookupFlag flags);

// The parent directory and the last component, for calls that create or remove names.
// `must_be_directory` is set when the name ended with a slash.
struct ParentLookup {
  Path parent;
  std::string last;
  bool must_be_directory = false;
};
Result<ParentLookup> lookup_parent(const WalkContext &walk, std::string_view name,
                                   LookupFlag flags = LookupFlag::None);

// One step: the child's dentry (negative when there is none). Checks no permission.
Result<Ref<Dentry>> lookup_child(Dentry &parent, std::string_view name);

// Permission checks of path_resolution(7): Access or success. `want` is a sum of 4 (read), 2
// (write), 1 (execute).
Result<void> check_permission(const Inode &inode, unsigned want, const Credentials &credentials);
// As check_permission for writing, and RoFs on a read-only mount or file system.
Result<void> check_writable(const Path &path, const Credentials &credentials);

// --- operations of the system calls, after the walk: permission checks, locks, dentry cache.
// open(2), openat2(2): `flags` and `mode` as the guest passed them (umask applied here).
Result<Ref<File>> open_path(const WalkContext &walk, std::string_view name, std::uint32_t flags,
                            std::uint32_t mode, LookupFlag extra = LookupFlag::None);
// Opens what a path already leads to (execve, /proc/PID/fd links).
Result<Ref<File>> open_resolved(const Path &path, std::uint32_t flags,
                                const Credentials &credentials);
Result<void> make_node(const WalkContext &walk, std::string_view name, std::uint32_t mode,
                       DeviceNumber device);
Result<void> make_directory(const WalkContext &walk, std::string_view name, std::uint32_t mode);
Result<void> make_symlink(const WalkContext &walk, std::string_view target, std::string_view name);
Result<void> make_link(const WalkContext &old_walk, const Path &target, const WalkContext &new_walk,
                       std::string_view new_name);
Result<void> remove_name(const WalkContext &walk, std::string_view name);  // unlink
// The same for a device's node; NoEnt when the name is something else now. `mode`: its type counts.
Result<void> remove_device_node(const WalkContext &walk, std::string_view name, std::uint32_t mode,
                                DeviceNumber device);
Result<void> remove_directory(const WalkContext &walk, std::string_view name);  // rmdir
Result<void> rename_path(const WalkContext &old_walk, std::string_view old_name,
                         const WalkContext &new_walk, std::string_view new_name,
                         std::uint32_t flags);
Result<void> set_attributes(const Path &path, SetAttr change, const Credentials &credentials);
Result<void> truncate_path(const Path &path, std::uint64_t size, const Credentials &credentials);

// The absolute name as seen from `root`, with " (deleted)" when it was unlinked;
// "(unreachable)/..." when it lies outside.
std::string path_name(const Path &path, const Path &root);

// Where an open file leads to: its path, or a name without a place for pipes, sockets and the like
// (what /proc/PID/fd/N's magic link follows; opening it opens the same pipe again).
Path file_path(File &file);

// Called once at boot after the physical memory is there: lets memory pressure shrink the dentry
// cache.
void vfs_init();

// --- mounts
enum MountFlag : std::uint32_t {
  kMountReadOnly = 1,
  kMountNoSuid = 2,
  kMountNoDev = 4,
  kMountNoExec = 8,
  kMountNoAtime = 1024,
  kMountNoDirAtime = 2048,
  kMountRelAtime = 1u << 21,
};
Result<void> mount_at(const Path &where, Ref<SuperBlock> sb, std::string source,
                      std::uint32_t flags);
Result<void> bind_mount(const Path &where, const Path &what, bool recursive);
Result<void> unmount(const Path &where, bool detach);
// mount(2)'s MS_MOVE, MS_REMOUNT (of the file system, or of the mount's flags alone),
// pivot_root(2).
Result<void> move_mount(const Path &from, const Path &to);
Result<void> remount(const Path &where, std::string_view options, std::uint32_t flags,
                     bool mount_only);
Result<void> pivot_root(const Path &new_root, const Path &put_old, FsContext &fs);
// The number of the mount that a path is on, in mountinfo and statx.
int mount_id(const Path &path);
bool is_mount_root(const Path &path);
// The first mount: makes it the root of the name space.
Result<Path> mount_root(Ref<SuperBlock> sb, std::string source, std::uint32_t flags);
// The MountFlags of the mount that the path lies in.
std::uint32_t mount_flags(const Path &path);
struct MountInfo {
  int id, parent_id;
  std::string source, mount_point, type, options;
  std::uint32_t flags;
  DeviceNumber device;
  std::string root_in_fs;
};
std::vector<MountInfo> list_mounts(const Path &root);
void sync_all();
// SysRq u: everything that keeps its data outside of the guest's memory is written back and cannot
// be written any more; how many mounts changed.
std::size_t emergency_remount();

}  // namespace cowbird
