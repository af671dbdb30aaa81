// Changes of attributes: chmod, chown, utimensat, truncate, with their permission rules.
#include "vfs/attributes.hpp"

#include "abi/fcntl.hpp"
#include "abi/inotify.hpp"
#include "abi/stat.hpp"
#include "proc/signal.hpp"
#include "vfs/caller.hpp"
#include "vfs/mount.hpp"
#include "vfs/notify.hpp"

namespace cowbird {

namespace {

bool is_owner(const Inode &inode, const Credentials &credentials) {
  return credentials.fsuid == inode.uid || credentials.capable(Capability::Fowner);
}

Result<void> check_owner_change(const Inode &inode, const SetAttr &change,
                                const Credentials &credentials) {
  if (credentials.capable(Capability::Chown)) return {};
  if (change.uid && (credentials.fsuid != inode.uid || *change.uid != inode.uid))
    return Err(Errno::Perm);
  if (change.gid && (credentials.fsuid != inode.uid ||
                     (*change.gid != inode.gid && !credentials.in_group(*change.gid))))
    return Err(Errno::Perm);
  return {};
}

}  // namespace

std::uint32_t mode_without_set_id(const Inode &inode) {
  std::uint32_t mode = inode.mode & abi::kS_IALLUGO & ~abi::kS_ISUID;
  if (mode & abi::kS_IXGRP) mode &= ~abi::kS_ISGID;
  return mode;
}

Result<void> drop_set_id(Inode &inode, const Credentials &credentials) {
  if (!inode.is_regular() || !(inode.mode & (abi::kS_ISUID | abi::kS_ISGID))) return {};
  if (credentials.capable(Capability::Fsetid)) return {};
  SetAttr change;
  change.mode = mode_without_set_id(inode);
  if (*change.mode == (inode.mode & abi::kS_IALLUGO)) return {};
  return inode.setattr(change);
}

Result<void> set_attributes(const Path &path, SetAttr change, const Credentials &credentials) {
  Inode &inode = path.inode();
  TRY(check_mount_writable(path));
  SleepLock locked(inode.lock());
  if (change.uid || change.gid) {
    TRY(check_owner_change(inode, change, credentials));
    // A new owner does not get somebody else's set-id program.
    if (!inode.is_directory() && !change.mode && (inode.mode & (abi::kS_ISUID | abi::kS_ISGID))) {
      change.mode = mode_without_set_id(inode);
      TRY(inode.setattr(change));
      notify_path(path, abi::kIN_ATTRIB);
      return {};
    }
  }
  if (change.mode) {
    if (!is_owner(inode, credentials)) return Err(Errno::Perm);
    *change.mode &= abi::kS_IALLUGO;
    const std::uint32_t group = change.gid ? *change.gid : inode.gid;
    if (!credentials.in_group(group) && !credentials.capable(Capability::Fsetid))
      *change.mode &= ~abi::kS_ISGID;
  }
  if (change.atime || change.mtime) {
    if (!is_owner(inode, credentials)) return Err(Errno::Perm);
  }
  TRY(inode.setattr(change));
  notify_path(path, abi::kIN_ATTRIB);
  return {};
}

Result<void> touch_now(const Path &path, const Credentials &credentials) {
  Inode &inode = path.inode();
  TRY(check_mount_writable(path));
  if (!is_owner(inode, credentials)) TRY(check_permission(inode, 2, credentials));
  SleepLock locked(inode.lock());
  SetAttr change;
  change.atime = change.mtime = current_time();
  TRY(inode.setattr(change));
  notify_path(path, abi::kIN_ATTRIB);
  return {};
}

Result<void> resize_inode(Inode &inode, std::uint64_t size, const Credentials &credentials) {
  if (size > INT64_MAX) return Err(Errno::Inval);
  SleepLock locked(inode.lock());
  const std::uint64_t old_size = inode.size();
  if (size > old_size) {
    if (inode.seals & abi::kF_SEAL_GROW) return Err(Errno::Perm);
    if (size > caller::file_size_limit()) {
      caller::raise_signal(kSigXfsz);
      return Err(Errno::FBig);
    }
  }
  if (size < old_size && (inode.seals & abi::kF_SEAL_SHRINK)) return Err(Errno::Perm);
  TRY(drop_set_id(inode, credentials));
  SetAttr change;
  change.size = size;
  change.mtime = current_time();
  return inode.setattr(change);
}

Result<void> truncate_path(const Path &path, std::uint64_t size, const Credentials &credentials) {
  Inode &inode = path.inode();
  if (inode.is_directory()) return Err(Errno::IsDir);
  if (!inode.is_regular()) return Err(Errno::Inval);
  TRY(check_writable(path, credentials));
  if (inode.write_count < 0) return Err(Errno::TxtBsy);
  TRY(resize_inode(inode, size, credentials));
  notify_path(path, abi::kIN_MODIFY);
  return {};
}

}  // namespace cowbird
