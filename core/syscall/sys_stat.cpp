// System calls that tell about files: stat, statx, access, readlink, statfs, getdents, getcwd.
#include <algorithm>
#include <cstring>

#include "abi/dirent.hpp"
#include "abi/stat.hpp"
#include "abi/statfs.hpp"
#include "syscall/file_args.hpp"
#include "vfs/dentry.hpp"

namespace cowbird {

namespace {

abi::Stat to_guest(const FileStat &from) {
  abi::Stat to{};
  to.st_dev = from.device;
  to.st_ino = from.inode;
  to.st_nlink = from.nlink;
  to.st_mode = from.mode;
  to.st_uid = from.uid;
  to.st_gid = from.gid;
  to.st_rdev = from.rdev;
  to.st_size = static_cast<std::int64_t>(from.size);
  to.st_blksize = static_cast<std::int64_t>(from.block_size);
  to.st_blocks = static_cast<std::int64_t>(from.blocks);
  to.st_atime_sec = from.atime.sec;
  to.st_atime_nsec = from.atime.nsec;
  to.st_mtime_sec = from.mtime.sec;
  to.st_mtime_nsec = from.mtime.nsec;
  to.st_ctime_sec = from.ctime.sec;
  to.st_ctime_nsec = from.ctime.nsec;
  return to;
}

SysResult stat_path(const Path &path, UserPtr<abi::Stat> out) {
  TRY(out.write(to_guest(TRY(path.inode().getattr()))));
  return 0;
}

// A file's own inode; made for objects that never needed one.
Result<Ref<Inode>> inode_of(File &file) {
  if (!file.inode) file_path(file);
  return file.inode;
}

abi::StatxTimestamp to_guest(const Timespec &time) {
  return {time.sec, static_cast<std::uint32_t>(time.nsec), 0};
}

abi::Statx to_statx(const FileStat &from, const Path &path) {
  abi::Statx to{};
  to.stx_mask = abi::kSTATX_BASIC_STATS | abi::kSTATX_MNT_ID;
  to.stx_blksize = static_cast<std::uint32_t>(from.block_size);
  to.stx_nlink = from.nlink;
  to.stx_uid = from.uid;
  to.stx_gid = from.gid;
  to.stx_mode = static_cast<std::uint16_t>(from.mode);
  to.stx_ino = from.inode;
  to.stx_size = from.size;
  to.stx_blocks = from.blocks;
  to.stx_atime = to_guest(from.atime);
  to.stx_mtime = to_guest(from.mtime);
  to.stx_ctime = to_guest(from.ctime);
  if (from.btime) {
    to.stx_mask |= abi::kSTATX_BTIME;
    to.stx_btime = to_guest(*from.btime);
  }
  const DeviceNumber device = DeviceNumber::decode(from.device);
  const DeviceNumber rdev = DeviceNumber::decode(from.rdev);
  to.stx_dev_major = device.major;
  to.stx_dev_minor = device.minor;
  to.stx_rdev_major = rdev.major;
  to.stx_rdev_minor = rdev.minor;
  to.stx_mnt_id = static_cast<std::uint64_t>(mount_id(path));
  to.stx_attributes_mask = abi::kSTATX_ATTR_MOUNT_ROOT;
  if (is_mount_root(path)) to.stx_attributes |= abi::kSTATX_ATTR_MOUNT_ROOT;
  return to;
}

SysResult access_at(Task &task, int directory_fd, std::uint64_t name, std::uint32_t want,
                    std::uint32_t flags) {
  if (want & ~7u) return Err(Errno::Inval);
  const LookupFlag how =
      TRY(at_flags(flags & ~abi::kAT_EACCESS, abi::kAT_SYMLINK_NOFOLLOW | abi::kAT_EMPTY_PATH));
  Credentials credentials = task.credentials;
  if (!(flags & abi::kAT_EACCESS)) {
    // The real identity asks, with the capabilities it would have.
    credentials.fsuid = credentials.uid;
    credentials.fsgid = credentials.gid;
    credentials.cap_effective = credentials.uid == 0 ? credentials.cap_permitted : 0;
  }
  Path path;
  const std::string text = TRY(read_path(name));
  if (text.empty() && has(how, LookupFlag::EmptyPath)) {
    path = TRY(lookup_at(task, directory_fd, name, how));
  } else {
    WalkContext walk = TRY(walk_from(task, directory_fd, text));
    const WalkContext real{walk.fs, credentials, walk.start};
    path = TRY(lookup(real, text, how));
  }
  if (want & 2) {
    TRY(check_writable(path, credentials));
  }
  if ((want & 1) && path.inode().is_regular() && (mount_flags(path) & kMountNoExec))
    return Err(Errno::Access);
  TRY(check_permission(path.inode(), want, credentials));
  return 0;
}

SysResult read_link_at(Task &task, int directory_fd, std::uint64_t name, std::uint64_t buffer,
                       std::int64_t size) {
  if (size <= 0) return Err(Errno::Inval);
  const std::string text = TRY(read_path(name));
  Path path;
  if (text.empty() && directory_fd != abi::kAT_FDCWD) {
    path = file_path(*TRY(task.files->get(directory_fd, true)));
    if (!path.inode().is_symlink()) return Err(Errno::NoEnt);
  } else {
    path = TRY(lookup(TRY(walk_from(task, directory_fd, text)), text, LookupFlag::None));
  }
  if (!path.inode().is_symlink()) return Err(Errno::Inval);
  const std::string target = TRY(path.inode().readlink());
  const std::size_t bytes = std::min(target.size(), static_cast<std::size_t>(size));
  TRY(copy_out(buffer, target.data(), bytes));
  return static_cast<std::int64_t>(bytes);
}

Result<abi::Statfs> statfs_of(const Path &path) {
  const FsStat from = TRY(path.inode().sb().statfs());
  abi::Statfs to{};
  to.f_type = static_cast<std::int64_t>(from.type);
  to.f_bsize = to.f_frsize = static_cast<std::int64_t>(from.block_size);
  to.f_blocks = from.blocks;
  to.f_bfree = from.blocks_free;
  to.f_bavail = from.blocks_available;
  to.f_files = from.files;
  to.f_ffree = from.files_free;
  const std::uint64_t id = from.fsid ? from.fsid : path.inode().sb().device.encode();
  to.f_fsid[0] = static_cast<std::int32_t>(id);
  to.f_fsid[1] = static_cast<std::int32_t>(id >> 32);
  to.f_namelen = static_cast<std::int64_t>(from.name_max);
  const std::uint32_t flags = mount_flags(path);
  std::uint64_t shown = from.flags | abi::kST_VALID;
  if ((flags & kMountReadOnly) || path.inode().sb().read_only()) shown |= abi::kST_RDONLY;
  if (flags & kMountNoSuid) shown |= abi::kST_NOSUID;
  if (flags & kMountNoDev) shown |= abi::kST_NODEV;
  if (flags & kMountNoExec) shown |= abi::kST_NOEXEC;
  if (flags & kMountNoAtime) shown |= abi::kST_NOATIME;
  if (flags & kMountNoDirAtime) shown |= abi::kST_NODIRATIME;
  if (flags & kMountRelAtime) shown |= abi::kST_RELATIME;
  to.f_flags = static_cast<std::int64_t>(shown);
  return to;
}

std::uint8_t dirent_type(FileType type) {
  return static_cast<std::uint8_t>(static_cast<std::uint32_t>(type) >> 12);
}

// Collects records in kernel memory, so that the directory's lock is not held over page faults.
class DirentBuffer {
 public:
  DirentBuffer(std::size_t size, bool is_64) : bytes_(size), is_64_(is_64) {}

  bool add(std::string_view name, std::uint64_t inode, FileType type, std::uint64_t next) {
    const std::size_t name_at = is_64_ ? abi::kDirent64NameOffset : abi::kDirentOldNameOffset;
    const std::size_t length = (name_at + name.size() + 1 + (is_64_ ? 0 : 1) + 7) & ~std::size_t{7};
    if (used_ + length > bytes_.size()) {
      too_small_ = used_ == 0;
      return false;
    }
    std::uint8_t *record = bytes_.data() + used_;
    std::memset(record, 0, length);
    const auto record_length = static_cast<std::uint16_t>(length);
    std::memcpy(record, &inode, 8);
    std::memcpy(record + 8, &next, 8);
    std::memcpy(record + 16, &record_length, 2);
    if (is_64_) {
      record[18] = dirent_type(type);
    } else {
      record[length - 1] = dirent_type(type);
    }
    std::memcpy(record + name_at, name.data(), name.size());
    used_ += length;
    return true;
  }
  bool too_small() const { return too_small_; }
  std::size_t used() const { return used_; }
  const std::uint8_t *data() const { return bytes_.data(); }

 private:
  std::vector<std::uint8_t> bytes_;
  std::size_t used_ = 0;
  bool is_64_;
  bool too_small_ = false;
};

SysResult get_dents(Task &task, const SysArgs &args, bool is_64) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  if (!file->inode || !file->inode->is_directory()) return Err(Errno::NotDir);
  constexpr std::uint32_t kMostAtOnce = 64 * kKiB;
  DirentBuffer buffer(std::min(args.u32(2), kMostAtOnce), is_64);
  SleepLock locked(file->position_lock);
  // Nothing is left in a removed directory, not even its own name.
  if (file->path.dentry && file->path.dentry->unlinked()) return Err(Errno::NoEnt);
  const std::uint64_t start = file->position;
  TRY(file->readdir([&](std::string_view name, std::uint64_t inode, FileType type,
                        std::uint64_t next) { return buffer.add(name, inode, type, next); }));
  if (buffer.used() == 0 && buffer.too_small()) return Err(Errno::Inval);
  if (auto copied = copy_out(args.u64(1), buffer.data(), buffer.used()); !copied) {
    file->position = start;
    return Err(copied.error());
  }
  return static_cast<std::int64_t>(buffer.used());
}

}  // namespace

SysResult sys_stat(Task &task, const SysArgs &args) {
  return stat_path(TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0), LookupFlag::Follow)),
                   args.ptr<abi::Stat>(1));
}

SysResult sys_lstat(Task &task, const SysArgs &args) {
  return stat_path(TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0), LookupFlag::None)),
                   args.ptr<abi::Stat>(1));
}

SysResult sys_fstat(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0), true));
  const Ref<Inode> inode = TRY(inode_of(*file));
  TRY(args.ptr<abi::Stat>(1).write(to_guest(TRY(inode->getattr()))));
  return 0;
}

SysResult sys_newfstatat(Task &task, const SysArgs &args) {
  const LookupFlag how =
      TRY(at_flags(args.u32(3), abi::kAT_SYMLINK_NOFOLLOW | abi::kAT_EMPTY_PATH |
                                    abi::kAT_NO_AUTOMOUNT | abi::kAT_STATX_SYNC_TYPE));
  return stat_path(TRY(lookup_at(task, args.fd(0), args.u64(1), how)), args.ptr<abi::Stat>(2));
}

SysResult sys_statx(Task &task, const SysArgs &args) {
  const std::uint32_t flags = args.u32(2);
  if ((flags & abi::kAT_STATX_SYNC_TYPE) == abi::kAT_STATX_SYNC_TYPE) return Err(Errno::Inval);
  if (args.u32(3) & abi::kSTATX_RESERVED) return Err(Errno::Inval);
  const LookupFlag how = TRY(at_flags(flags, abi::kAT_SYMLINK_NOFOLLOW | abi::kAT_EMPTY_PATH |
                                                 abi::kAT_NO_AUTOMOUNT | abi::kAT_STATX_SYNC_TYPE));
  const Path path = TRY(lookup_at(task, args.fd(0), args.u64(1), how));
  TRY(args.ptr<abi::Statx>(4).write(to_statx(TRY(path.inode().getattr()), path)));
  return 0;
}

SysResult sys_access(Task &task, const SysArgs &args) {
  return access_at(task, abi::kAT_FDCWD, args.u64(0), args.u32(1), 0);
}
SysResult sys_faccessat(Task &task, const SysArgs &args) {
  return access_at(task, args.fd(0), args.u64(1), args.u32(2), 0);
}
SysResult sys_faccessat2(Task &task, const SysArgs &args) {
  return access_at(task, args.fd(0), args.u64(1), args.u32(2), args.u32(3));
}

SysResult sys_readlink(Task &task, const SysArgs &args) {
  return read_link_at(task, abi::kAT_FDCWD, args.u64(0), args.u64(1), args.s32(2));
}
SysResult sys_readlinkat(Task &task, const SysArgs &args) {
  return read_link_at(task, args.fd(0), args.u64(1), args.u64(2), args.s32(3));
}

SysResult sys_statfs(Task &task, const SysArgs &args) {
  const Path path = TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0), LookupFlag::Follow));
  TRY(args.ptr<abi::Statfs>(1).write(TRY(statfs_of(path))));
  return 0;
}

SysResult sys_fstatfs(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0), true));
  TRY(args.ptr<abi::Statfs>(1).write(TRY(statfs_of(file_path(*file)))));
  return 0;
}

SysResult sys_getdents(Task &task, const SysArgs &args) { return get_dents(task, args, false); }
SysResult sys_getdents64(Task &task, const SysArgs &args) { return get_dents(task, args, true); }

SysResult sys_getcwd(Task &task, const SysArgs &args) {
  if (task.fs->cwd.dentry && path_name(task.fs->cwd, task.fs->root).ends_with(" (deleted)") &&
      task.fs->cwd.inode().nlink == 0)
    return Err(Errno::NoEnt);
  const std::string name = path_name(task.fs->cwd, task.fs->root);
  if (name.size() >= abi::kPATH_MAX) return Err(Errno::NameTooLong);
  if (name.size() + 1 > args.u64(1)) return Err(Errno::Range);
  TRY(copy_out(args.u64(0), name.c_str(), name.size() + 1));
  return static_cast<std::int64_t>(name.size() + 1);
}

}  // namespace cowbird
