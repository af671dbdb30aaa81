// System calls that change attributes: mode, owner, times, extended attributes.
#include "abi/stat.hpp"
#include "abi/time.hpp"
#include "syscall/file_args.hpp"
#include "vfs/attributes.hpp"

namespace cowbird {

namespace {

inline constexpr std::size_t kXattrNameMax = 255;
inline constexpr std::size_t kXattrSizeMax = 65536;
inline constexpr std::size_t kXattrListMax = 65536;

SysResult change_mode(Task &task, const Path &path, std::uint32_t mode) {
  if (path.inode().is_symlink()) return Err(Errno::OpNotSupp);
  SetAttr change;
  change.mode = mode & abi::kS_IALLUGO;
  TRY(set_attributes(path, change, task.credentials));
  return 0;
}

SysResult change_owner(Task &task, const Path &path, std::uint32_t uid, std::uint32_t gid) {
  SetAttr change;
  if (uid != ~0u) change.uid = uid;
  if (gid != ~0u) change.gid = gid;
  TRY(set_attributes(path, change, task.credentials));
  return 0;
}

// The two times of utimensat(2); none: both now.
struct TimePair {
  abi::Timespec access, modification;
};

SysResult change_times(Task &task, const Path &path, const std::optional<TimePair> &times) {
  const bool both_now = !times || (times->access.nsec == abi::kUTIME_NOW &&
                                   times->modification.nsec == abi::kUTIME_NOW);
  if (both_now) {
    TRY(touch_now(path, task.credentials));
    return 0;
  }
  SetAttr change;
  auto decode = [](const abi::Timespec &time, std::optional<Timespec> &out) -> Result<void> {
    if (time.nsec == abi::kUTIME_OMIT) return {};
    if (time.nsec == abi::kUTIME_NOW) {
      out = current_time();
      return {};
    }
    if (time.nsec < 0 || time.nsec >= kNsPerSec) return Err(Errno::Inval);
    out = Timespec{time.sec, time.nsec};
    return {};
  };
  TRY(decode(times->access, change.atime));
  TRY(decode(times->modification, change.mtime));
  if (!change.atime && !change.mtime) return 0;
  TRY(set_attributes(path, change, task.credentials));
  return 0;
}

SysResult utimes_at(Task &task, int directory_fd, std::uint64_t name, UserPtr<abi::Timeval> user) {
  std::optional<TimePair> times;
  if (user) {
    const auto values = TRY(user.read_array(2));
    for (const abi::Timeval &value : values) {
      if (value.usec < 0 || value.usec >= 1'000'000) return Err(Errno::Inval);
    }
    times =
        TimePair{{values[0].sec, values[0].usec * 1000}, {values[1].sec, values[1].usec * 1000}};
  }
  const Path path = name == 0 && directory_fd != abi::kAT_FDCWD
                        ? file_path(*TRY(task.files->get(directory_fd)))
                        : TRY(lookup_at(task, directory_fd, name, LookupFlag::Follow));
  return change_times(task, path, times);
}

Result<Path> path_of_fd(Task &task, int fd) { return file_path(*TRY(task.files->get(fd))); }

// --- extended attributes

Result<std::string> xattr_name(std::uint64_t address) {
  auto name = copy_in_string(address, kXattrNameMax);
  if (!name) return Err(name.error() == Errno::NameTooLong ? Errno::Range : name.error());
  if (name->empty()) return Err(Errno::Range);
  return name;
}

// The rules of xattr(7) that hold for every file system.
Result<void> check_xattr_access(const Path &path, std::string_view name, bool write,
                                const Credentials &credentials) {
  const Inode &inode = path.inode();
  if (name.starts_with("trusted.")) {
    if (!credentials.capable(Capability::SysAdmin)) return Err(write ? Errno::Perm : Errno::NoData);
    return {};
  }
  if (name.starts_with("security.")) {
    if (write && !credentials.capable(Capability::SysAdmin)) return Err(Errno::Perm);
    return {};
  }
  if (!name.starts_with("user.")) return Err(Errno::OpNotSupp);
  if (!inode.is_regular() && !inode.is_directory()) return Err(write ? Errno::Perm : Errno::NoData);
  if (write && inode.is_directory() && (inode.mode & abi::kS_ISVTX) &&
      credentials.fsuid != inode.uid && !credentials.capable(Capability::Fowner))
    return Err(Errno::Perm);
  return check_permission(inode, write ? 2 : 4, credentials);
}

SysResult set_xattr(Task &task, const Path &path, const SysArgs &args) {
  if (args.u32(4) & ~(abi::kXATTR_CREATE | abi::kXATTR_REPLACE)) return Err(Errno::Inval);
  const std::string name = TRY(xattr_name(args.u64(1)));
  if (args.u64(3) > kXattrSizeMax) return Err(Errno::TooBig);
  std::string value(args.u64(3), '\0');
  TRY(copy_in(value.data(), args.u64(2), value.size()));
  TRY(check_xattr_access(path, name, true, task.credentials));
  TRY(check_writable(path, Credentials::kernel()));
  SleepLock locked(path.inode().lock());
  TRY(path.inode().set_xattr(name, value, args.s32(4)));
  return 0;
}

SysResult copy_value(const std::string &value, std::uint64_t buffer, std::uint64_t size) {
  if (size != 0) {
    if (value.size() > size) return Err(Errno::Range);
    TRY(copy_out(buffer, value.data(), value.size()));
  }
  return static_cast<std::int64_t>(value.size());
}

SysResult get_xattr(Task &task, const Path &path, const SysArgs &args) {
  const std::string name = TRY(xattr_name(args.u64(1)));
  TRY(check_xattr_access(path, name, false, task.credentials));
  return copy_value(TRY(path.inode().get_xattr(name)), args.u64(2), args.u64(3));
}

SysResult list_xattr(Task &task, const Path &path, const SysArgs &args) {
  std::string all;
  for (const std::string &name : TRY(path.inode().list_xattr())) {
    if (name.starts_with("trusted.") && !task.credentials.capable(Capability::SysAdmin)) continue;
    all += name;
    all += '\0';
  }
  if (all.size() > kXattrListMax) return Err(Errno::TooBig);
  return copy_value(all, args.u64(1), args.u64(2));
}

SysResult remove_xattr(Task &task, const Path &path, const SysArgs &args) {
  const std::string name = TRY(xattr_name(args.u64(1)));
  TRY(check_xattr_access(path, name, true, task.credentials));
  TRY(check_writable(path, Credentials::kernel()));
  SleepLock locked(path.inode().lock());
  TRY(path.inode().remove_xattr(name));
  return 0;
}

Result<Path> followed(Task &task, const SysArgs &args) {
  return lookup_at(task, abi::kAT_FDCWD, args.u64(0), LookupFlag::Follow);
}
Result<Path> not_followed(Task &task, const SysArgs &args) {
  return lookup_at(task, abi::kAT_FDCWD, args.u64(0), LookupFlag::None);
}

}  // namespace

SysResult sys_chmod(Task &task, const SysArgs &args) {
  return change_mode(task, TRY(followed(task, args)), args.u32(1));
}
SysResult sys_fchmod(Task &task, const SysArgs &args) {
  return change_mode(task, TRY(path_of_fd(task, args.fd(0))), args.u32(1));
}
SysResult sys_fchmodat(Task &task, const SysArgs &args) {
  return change_mode(task, TRY(lookup_at(task, args.fd(0), args.u64(1), LookupFlag::Follow)),
                     args.u32(2));
}
SysResult sys_fchmodat2(Task &task, const SysArgs &args) {
  const LookupFlag how =
      TRY(at_flags(args.u32(3), abi::kAT_SYMLINK_NOFOLLOW | abi::kAT_EMPTY_PATH));
  return change_mode(task, TRY(lookup_at(task, args.fd(0), args.u64(1), how)), args.u32(2));
}

SysResult sys_chown(Task &task, const SysArgs &args) {
  return change_owner(task, TRY(followed(task, args)), args.u32(1), args.u32(2));
}
SysResult sys_lchown(Task &task, const SysArgs &args) {
  return change_owner(task, TRY(not_followed(task, args)), args.u32(1), args.u32(2));
}
SysResult sys_fchown(Task &task, const SysArgs &args) {
  return change_owner(task, TRY(path_of_fd(task, args.fd(0))), args.u32(1), args.u32(2));
}
SysResult sys_fchownat(Task &task, const SysArgs &args) {
  const LookupFlag how =
      TRY(at_flags(args.u32(4), abi::kAT_SYMLINK_NOFOLLOW | abi::kAT_EMPTY_PATH));
  return change_owner(task, TRY(lookup_at(task, args.fd(0), args.u64(1), how)), args.u32(2),
                      args.u32(3));
}

SysResult sys_utime(Task &task, const SysArgs &args) {
  const Path path = TRY(followed(task, args));
  std::optional<TimePair> times;
  if (args.u64(1) != 0) {
    const auto values = TRY(args.ptr<std::int64_t>(1).read_array(2));  // struct utimbuf
    times = TimePair{{values[0], 0}, {values[1], 0}};
  }
  return change_times(task, path, times);
}
SysResult sys_utimes(Task &task, const SysArgs &args) {
  return utimes_at(task, abi::kAT_FDCWD, args.u64(0), args.ptr<abi::Timeval>(1));
}
SysResult sys_futimesat(Task &task, const SysArgs &args) {
  return utimes_at(task, args.fd(0), args.u64(1), args.ptr<abi::Timeval>(2));
}
SysResult sys_utimensat(Task &task, const SysArgs &args) {
  const LookupFlag how =
      TRY(at_flags(args.u32(3), abi::kAT_SYMLINK_NOFOLLOW | abi::kAT_EMPTY_PATH));
  std::optional<TimePair> times;
  if (args.u64(2) != 0) times = TRY(args.ptr<TimePair>(2).read());
  const bool by_fd = args.u64(1) == 0 && args.fd(0) != abi::kAT_FDCWD;
  const Path path = by_fd ? TRY(path_of_fd(task, args.fd(0)))
                          : TRY(lookup_at(task, args.fd(0), args.u64(1), how));
  return change_times(task, path, times);
}

SysResult sys_setxattr(Task &task, const SysArgs &args) {
  return set_xattr(task, TRY(followed(task, args)), args);
}
SysResult sys_lsetxattr(Task &task, const SysArgs &args) {
  return set_xattr(task, TRY(not_followed(task, args)), args);
}
SysResult sys_fsetxattr(Task &task, const SysArgs &args) {
  return set_xattr(task, TRY(path_of_fd(task, args.fd(0))), args);
}
SysResult sys_getxattr(Task &task, const SysArgs &args) {
  return get_xattr(task, TRY(followed(task, args)), args);
}
SysResult sys_lgetxattr(Task &task, const SysArgs &args) {
  return get_xattr(task, TRY(not_followed(task, args)), args);
}
SysResult sys_fgetxattr(Task &task, const SysArgs &args) {
  return get_xattr(task, TRY(path_of_fd(task, args.fd(0))), args);
}
SysResult sys_listxattr(Task &task, const SysArgs &args) {
  return list_xattr(task, TRY(followed(task, args)), args);
}
SysResult sys_llistxattr(Task &task, const SysArgs &args) {
  return list_xattr(task, TRY(not_followed(task, args)), args);
}
SysResult sys_flistxattr(Task &task, const SysArgs &args) {
  return list_xattr(task, TRY(path_of_fd(task, args.fd(0))), args);
}
SysResult sys_removexattr(Task &task, const SysArgs &args) {
  return remove_xattr(task, TRY(followed(task, args)), args);
}
SysResult sys_lremovexattr(Task &task, const SysArgs &args) {
  return remove_xattr(task, TRY(not_followed(task, args)), args);
}
SysResult sys_fremovexattr(Task &task, const SysArgs &args) {
  return remove_xattr(task, TRY(path_of_fd(task, args.fd(0))), args);
}

}  // namespace cowbird
