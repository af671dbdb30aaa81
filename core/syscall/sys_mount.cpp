// mount(2), umount2(2), pivot_root(2).
#include "abi/mount.hpp"
#include "syscall/file_args.hpp"

namespace cowbird {

namespace {

std::uint32_t mount_flags_of(std::uint64_t flags) {
  std::uint32_t result = 0;
  if (flags & abi::kMS_RDONLY) result |= kMountReadOnly;
  if (flags & abi::kMS_NOSUID) result |= kMountNoSuid;
  if (flags & abi::kMS_NODEV) result |= kMountNoDev;
  if (flags & abi::kMS_NOEXEC) result |= kMountNoExec;
  if (flags & abi::kMS_NOATIME) result |= kMountNoAtime;
  if (flags & abi::kMS_NODIRATIME) result |= kMountNoDirAtime;
  if (!(flags & (abi::kMS_NOATIME | abi::kMS_STRICTATIME))) result |= kMountRelAtime;
  return result;
}

Result<std::string> optional_string(std::uint64_t address) {
  if (address == 0) return std::string();
  return copy_in_string(address, kPageSize - 1);
}

// MS_SHARED and its kin: all mounts are private here, and stay so.
SysResult change_propagation(std::uint64_t flags, const Path &where) {
  if (!is_mount_root(where)) return Err(Errno::Inval);
  // A slave of a mount that is not shared is a private one.
  if (flags & (abi::kMS_PRIVATE | abi::kMS_SLAVE)) return 0;
  return Err(Errno::Inval);
}

SysResult mount_new(const SysArgs &args, const Path &where, std::uint64_t flags) {
  const std::string type_name = TRY(optional_string(args.u64(2)));
  const FileSystemType *type = find_filesystem(type_name);
  if (!type) return Err(Errno::NoDev);
  if (!type->user_mountable) return Err(Errno::Perm);
  MountRequest request;
  request.source = TRY(optional_string(args.u64(0)));
  request.options = TRY(optional_string(args.u64(4)));
  request.read_only = flags & abi::kMS_RDONLY;
  const auto make = type->mount;  // the table may change while the file system is read
  Ref<SuperBlock> sb = TRY(make(request));
  const std::string source = request.source.empty() ? "none" : request.source;
  TRY(mount_at(where, std::move(sb), source, mount_flags_of(flags)));
  return 0;
}

}  // namespace

SysResult sys_mount(Task &task, const SysArgs &args) {
  if (!task.credentials.capable(Capability::SysAdmin)) return Err(Errno::Perm);
  std::uint64_t flags = args.u64(3);
  if ((flags & abi::kMS_MGC_MSK) == abi::kMS_MGC_VAL) flags &= ~abi::kMS_MGC_MSK;
  const Path where = TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(1), LookupFlag::Follow));
  if (flags & abi::kMS_REMOUNT) {
    const std::string options = TRY(optional_string(args.u64(4)));
    TRY(remount(where, options, mount_flags_of(flags), flags & abi::kMS_BIND));
    return 0;
  }
  if (flags & abi::kMS_BIND) {
    const Path what = TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0), LookupFlag::Follow));
    TRY(bind_mount(where, what, flags & abi::kMS_REC));
    return 0;
  }
  if (flags & (abi::kMS_SHARED | abi::kMS_PRIVATE | abi::kMS_SLAVE | abi::kMS_UNBINDABLE))
    return change_propagation(flags, where);
  if (flags & abi::kMS_MOVE) {
    const Path from = TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0), LookupFlag::Follow));
    TRY(move_mount(from, where));
    return 0;
  }
  return mount_new(args, where, flags);
}

SysResult sys_umount2(Task &task, const SysArgs &args) {
  const std::uint32_t flags = args.u32(1);
  if (flags & ~(abi::kMNT_FORCE | abi::kMNT_DETACH | abi::kUMOUNT_NOFOLLOW))
    return Err(Errno::Inval);
  if (!task.credentials.capable(Capability::SysAdmin)) return Err(Errno::Perm);
  const LookupFlag how = (flags & abi::kUMOUNT_NOFOLLOW) ? LookupFlag::None : LookupFlag::Follow;
  const Path where = TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0), how));
  TRY(unmount(where, flags & abi::kMNT_DETACH));
  return 0;
}

SysResult sys_pivot_root(Task &task, const SysArgs &args) {
  if (!task.credentials.capable(Capability::SysAdmin)) return Err(Errno::Perm);
  constexpr LookupFlag kDirectory = LookupFlag::Follow | LookupFlag::Directory;
  const Path new_root = TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0), kDirectory));
  const Path put_old = TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(1), kDirectory));
  const Path old_root = task.fs->root;
  TRY(pivot_root(new_root, put_old, *task.fs));
  // Everybody who stood in the old root stands in the new one.
  for_each_process([&](Process &process) {
    for (Task *member : process.tasks) {
      if (!member->fs) continue;
      if (member->fs->root == old_root) member->fs->root = new_root;
      if (member->fs->cwd == old_root) member->fs->cwd = new_root;
    }
  });
  return 0;
}

}  // namespace cowbird
