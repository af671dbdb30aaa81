// System calls that change names and the place of a process in the tree.
#include "abi/fcntl.hpp"
#include "syscall/file_args.hpp"

namespace cowbird {

namespace {

// One name and where it starts; the string lives here.
struct NameAt {
  std::string name;
  WalkContext walk;
};
Result<NameAt> name_at(Task &task, int directory_fd, std::uint64_t address) {
  std::string name = TRY(read_path(address));
  WalkContext walk = TRY(walk_from(task, directory_fd, name));
  return NameAt{std::move(name), std::move(walk)};
}

SysResult rename_at(Task &task, int old_fd, std::uint64_t old_name, int new_fd,
                    std::uint64_t new_name, std::uint32_t flags) {
  const NameAt from = TRY(name_at(task, old_fd, old_name));
  const NameAt to = TRY(name_at(task, new_fd, new_name));
  TRY(rename_path(from.walk, from.name, to.walk, to.name, flags));
  return 0;
}

SysResult link_at(Task &task, int old_fd, std::uint64_t old_name, int new_fd,
                  std::uint64_t new_name, std::uint32_t flags) {
  const LookupFlag how = TRY(at_flags(flags, abi::kAT_SYMLINK_FOLLOW | abi::kAT_EMPTY_PATH));
  if ((flags & abi::kAT_EMPTY_PATH) && !task.credentials.capable(Capability::DacReadSearch))
    return Err(Errno::NoEnt);
  const Path target = TRY(lookup_at(task, old_fd, old_name, how));
  const NameAt to = TRY(name_at(task, new_fd, new_name));
  TRY(make_link(walk_here(task), target, to.walk, to.name));
  return 0;
}

SysResult unlink_at(Task &task, int directory_fd, std::uint64_t address, bool directory) {
  const NameAt victim = TRY(name_at(task, directory_fd, address));
  if (directory) {
    TRY(remove_directory(victim.walk, victim.name));
  } else {
    TRY(remove_name(victim.walk, victim.name));
  }
  return 0;
}

SysResult make_directory_at(Task &task, int directory_fd, std::uint64_t address,
                            std::uint32_t mode) {
  const NameAt where = TRY(name_at(task, directory_fd, address));
  TRY(make_directory(where.walk, where.name, mode));
  return 0;
}

SysResult make_node_at(Task &task, int directory_fd, std::uint64_t address, std::uint32_t mode,
                       std::uint32_t device) {
  const NameAt where = TRY(name_at(task, directory_fd, address));
  TRY(make_node(where.walk, where.name, mode, DeviceNumber::decode(device)));
  return 0;
}

SysResult symlink_at(Task &task, std::uint64_t target, int directory_fd, std::uint64_t address) {
  const std::string text = TRY(read_path(target));
  const NameAt where = TRY(name_at(task, directory_fd, address));
  TRY(make_symlink(where.walk, text, where.name));
  return 0;
}

Result<void> change_directory(Task &task, const Path &path) {
  if (!path.inode().is_directory()) return Err(Errno::NotDir);
  TRY(check_permission(path.inode(), 1, task.credentials));
  task.fs->cwd = path;
  return {};
}

}  // namespace

SysResult sys_rename(Task &task, const SysArgs &args) {
  return rename_at(task, abi::kAT_FDCWD, args.u64(0), abi::kAT_FDCWD, args.u64(1), 0);
}
SysResult sys_renameat(Task &task, const SysArgs &args) {
  return rename_at(task, args.fd(0), args.u64(1), args.fd(2), args.u64(3), 0);
}
SysResult sys_renameat2(Task &task, const SysArgs &args) {
  return rename_at(task, args.fd(0), args.u64(1), args.fd(2), args.u64(3), args.u32(4));
}
SysResult sys_link(Task &task, const SysArgs &args) {
  return link_at(task, abi::kAT_FDCWD, args.u64(0), abi::kAT_FDCWD, args.u64(1), 0);
}
SysResult sys_linkat(Task &task, const SysArgs &args) {
  return link_at(task, args.fd(0), args.u64(1), args.fd(2), args.u64(3), args.u32(4));
}
SysResult sys_unlink(Task &task, const SysArgs &args) {
  return unlink_at(task, abi::kAT_FDCWD, args.u64(0), false);
}
SysResult sys_unlinkat(Task &task, const SysArgs &args) {
  if (args.u32(2) & ~abi::kAT_REMOVEDIR) return Err(Errno::Inval);
  return unlink_at(task, args.fd(0), args.u64(1), args.u32(2) & abi::kAT_REMOVEDIR);
}
SysResult sys_rmdir(Task &task, const SysArgs &args) {
  return unlink_at(task, abi::kAT_FDCWD, args.u64(0), true);
}
SysResult sys_mkdir(Task &task, const SysArgs &args) {
  return make_directory_at(task, abi::kAT_FDCWD, args.u64(0), args.u32(1));
}
SysResult sys_mkdirat(Task &task, const SysArgs &args) {
  return make_directory_at(task, args.fd(0), args.u64(1), args.u32(2));
}
SysResult sys_mknod(Task &task, const SysArgs &args) {
  return make_node_at(task, abi::kAT_FDCWD, args.u64(0), args.u32(1), args.u32(2));
}
SysResult sys_mknodat(Task &task, const SysArgs &args) {
  return make_node_at(task, args.fd(0), args.u64(1), args.u32(2), args.u32(3));
}
SysResult sys_symlink(Task &task, const SysArgs &args) {
  return symlink_at(task, args.u64(0), abi::kAT_FDCWD, args.u64(1));
}
SysResult sys_symlinkat(Task &task, const SysArgs &args) {
  return symlink_at(task, args.u64(0), args.fd(1), args.u64(2));
}

SysResult sys_chdir(Task &task, const SysArgs &args) {
  TRY(change_directory(task, TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0),
                                           LookupFlag::Follow | LookupFlag::Directory))));
  return 0;
}

SysResult sys_fchdir(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0), true));
  if (!file->path) return Err(Errno::NotDir);
  TRY(change_directory(task, file->path));
  return 0;
}

SysResult sys_chroot(Task &task, const SysArgs &args) {
  const Path path =
      TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0), LookupFlag::Follow | LookupFlag::Directory));
  TRY(check_permission(path.inode(), 1, task.credentials));
  if (!task.credentials.capable(Capability::SysChroot)) return Err(Errno::Perm);
  task.fs->root = path;
  return 0;
}

SysResult sys_umask(Task &task, const SysArgs &args) {
  const std::uint32_t old = task.fs->umask;
  task.fs->umask = args.u32(0) & 0777;
  return old;
}

}  // namespace cowbird
