// Opening paths: open(2), openat2(2), O_CREAT, O_TMPFILE, O_PATH.
#include "abi/fcntl.hpp"
#include "abi/inotify.hpp"
#include "abi/stat.hpp"
#include "vfs/file.hpp"
#include "vfs/notify.hpp"
#include "vfs/walker.hpp"

namespace cowbird {

namespace {

constexpr std::uint32_t kCreationFlags = abi::kO_CREAT | abi::kO_EXCL | abi::kO_NOCTTY |
                                         abi::kO_TRUNC | abi::kO_CLOEXEC | abi::kO_NOFOLLOW |
                                         abi::kO_TMPFILE_BIT;
// Flags that a File keeps: F_GETFL shows them.
std::uint32_t status_flags(std::uint32_t flags) {
  return (flags & ~(kCreationFlags & ~abi::kO_NOFOLLOW)) | abi::kO_LARGEFILE;
}

bool writes(std::uint32_t flags) { return (flags & abi::kO_ACCMODE) != abi::kO_RDONLY; }

// A descriptor that only names a place: no operation of the file is allowed.
class PathOnlyFile final : public File {
 public:
  explicit PathOnlyFile(std::uint32_t flags) : File(flags) {}
};

Result<Ref<File>> open_path_only(const Path &path, std::uint32_t flags,
                                 const Credentials &credentials) {
  Ref<File> file =
      make_ref<PathOnlyFile>(abi::kO_PATH | (flags & (abi::kO_DIRECTORY | abi::kO_NOFOLLOW)));
  file->path = path;
  file->inode = Ref<Inode>(&path.inode());
  file->credentials = credentials;
  return file;
}

Result<void> check_open(const Path &path, std::uint32_t flags, const Credentials &credentials,
                        bool created) {
  Inode &inode = path.inode();
  switch (inode.type()) {
    case FileType::Symlink:
      return Err(Errno::Loop);
    case FileType::Directory:
      if (writes(flags) || (flags & abi::kO_CREAT)) return Err(Errno::IsDir);
      break;
    case FileType::CharDevice:
    case FileType::BlockDevice:
      if (path.mount->flags & kMountNoDev) return Err(Errno::Access);
      break;
    case FileType::Socket:
      return Err(Errno::NxIo);
    default:
      break;
  }
  if ((flags & abi::kO_NOATIME) && credentials.fsuid != inode.uid &&
      !credentials.capable(Capability::Fowner)) {
    return Err(Errno::Perm);
  }
  if (created) return {};
  unsigned want = 0;
  if ((flags & abi::kO_ACCMODE) != abi::kO_WRONLY) want |= 4;
  if (writes(flags)) want |= 2;
  // Access mode 3 asks for both permissions but gives neither (drivers' ioctls).
  if (want & 2) {
    TRY(check_writable(path, credentials));
  } else if (flags & abi::kO_TRUNC) {
    TRY(check_writable(path, credentials));
  }
  return check_permission(inode, want, credentials);
}

// The file is open for writing as long as `file` lives; not while it is run as a program.
Result<void> take_write_count(Inode &inode, File &file) {
  if (!inode.is_regular()) return {};
  if (inode.write_count < 0) return Err(Errno::TxtBsy);
  ++inode.write_count;
  file.holds_write_count = true;
  return {};
}

Result<Ref<File>> open_checked(const Path &path, std::uint32_t flags,
                               const Credentials &credentials) {
  Inode &inode = path.inode();
  if (writes(flags) && inode.is_regular() && inode.write_count < 0) return Err(Errno::TxtBsy);
  if ((flags & abi::kO_TRUNC) && inode.is_regular()) {
    if (inode.write_count < 0) return Err(Errno::TxtBsy);
    TRY(truncate_path(path, 0, credentials));
  }
  // Terminals want to know of O_NOCTTY; F_GETFL does not show it.
  Ref<File> file = TRY(inode.open(status_flags(flags) | (flags & abi::kO_NOCTTY)));
  file->set_flags(file->flags() & ~abi::kO_NOCTTY);
  // A driver may hand out an object that has a place of its own (/dev/tty).
  if (!file->path) file->path = path;
  if (!file->inode) file->inode = Ref<Inode>(&inode);
  file->credentials = credentials;
  if (writes(flags)) TRY(take_write_count(inode, *file));
  notify_open(*file);
  return file;
}

std::uint32_t creation_mode(std::uint32_t mode, std::uint32_t umask) {
  return abi::kS_IFREG | (mode & abi::kS_IALLUGO & ~umask);
}

Result<Ref<File>> open_tmpfile(Walker &walker, std::string_view name, std::uint32_t flags,
                               std::uint32_t mode) {
  const Path directory = TRY(walk_to(walker, name));
  if (!directory.inode().is_directory()) return Err(Errno::NotDir);
  const WalkContext &walk = walker.walk();
  TRY(check_directory_change(directory, walk.credentials));
  Ref<Inode> inode;
  {
    SleepLock locked(directory.inode().lock());
    inode = TRY(directory.inode().tmpfile(creation_mode(mode, walk.fs.umask), walk.credentials));
  }
  const std::string label = "#" + std::to_string(inode->number());
  const Path path(directory.mount,
                  dcache::make_unlinked(*directory.dentry, label, std::move(inode)));
  return open_checked(path, flags & ~abi::kO_TRUNC, walk.credentials);
}

// The last component of open with O_CREAT, at walker.at(): finds or makes it.
Result<Ref<Dentry>> find_or_create(Walker &walker, std::uint32_t mode, bool &created) {
  const Path &directory = walker.at();
  const WalkContext &walk = walker.walk();
  const std::string_view name = walker.last();
  created = false;
  Ref<Dentry> child = TRY(lookup_child(*directory.dentry, name));
  if (!child->negative()) return child;
  SleepLock locked(directory.inode().lock());
  if (directory.dentry->unlinked()) return Err(Errno::NoEnt);
  child = TRY(lookup_child_locked(*directory.dentry, name));  // somebody may have been faster
  if (!child->negative()) return child;
  TRY(check_directory_change(directory, walk.credentials));
  Ref<Inode> inode = TRY(directory.inode().create(name, creation_mode(mode, walk.fs.umask),
                                                  DeviceNumber{}, walk.credentials));
  dcache::instantiate(*child, std::move(inode));
  notify_name(directory.inode(), abi::kIN_CREATE, name, false);
  created = true;
  return child;
}

Result<Ref<File>> open_create(Walker &walker, std::string_view name, std::uint32_t flags,
                              std::uint32_t mode) {
  const Credentials &credentials = walker.walk().credentials;
  TRY(walker.begin(name));
  for (;;) {
    TRY(walker.to_parent());
    const std::string_view last = walker.last();
    if (last.empty() || last == "." || last == "..") {
      return Err((flags & abi::kO_EXCL) ? Errno::Exist : Errno::IsDir);
    }
    if (walker.trailing_slash()) return Err(Errno::IsDir);
    TRY(walker.check_search());
    if (last.size() > abi::kNAME_MAX) return Err(Errno::NameTooLong);
    bool created = false;
    Ref<Dentry> child = TRY(find_or_create(walker, mode, created));
    if (!created && (flags & abi::kO_EXCL)) return Err(Errno::Exist);
    if (child->inode()->is_symlink()) {
      if (flags & abi::kO_NOFOLLOW) return Err(Errno::Loop);
      const Path link(walker.at().mount, std::move(child));
      bool arrived = false;
      TRY(walker.follow_link(link, arrived));
      if (!arrived) continue;
    } else {
      TRY(walker.step_into(std::move(child)));
    }
    const Path &path = walker.at();
    if ((flags & abi::kO_DIRECTORY) && !path.inode().is_directory()) return Err(Errno::NotDir);
    TRY(check_open(path, flags, credentials, created));
    return open_checked(path, created ? flags & ~abi::kO_TRUNC : flags, credentials);
  }
}

}  // namespace

Result<Ref<File>> open_path(const WalkContext &walk, std::string_view name, std::uint32_t flags,
                            std::uint32_t mode, LookupFlag extra) {
  if (flags & abi::kO_PATH) {
    flags &= abi::kO_PATH | abi::kO_DIRECTORY | abi::kO_NOFOLLOW | abi::kO_CLOEXEC;
  }
  LookupFlag lookup_flags = extra;
  if (!(flags & abi::kO_NOFOLLOW)) lookup_flags = lookup_flags | LookupFlag::Follow;
  if (flags & abi::kO_DIRECTORY) lookup_flags = lookup_flags | LookupFlag::Directory;
  Walker walker(walk, lookup_flags);
  if (flags & abi::kO_TMPFILE_BIT) {
    if (!(flags & abi::kO_DIRECTORY) || !writes(flags) || (flags & abi::kO_CREAT))
      return Err(Errno::Inval);
    return open_tmpfile(walker, name, flags, mode);
  }
  if (flags & abi::kO_CREAT) {
    if (flags & abi::kO_DIRECTORY) return Err(Errno::Inval);
    // O_EXCL means that a link in the last place is not followed either.
    return open_create(walker, name, flags, mode);
  }
  const Path path = TRY(walk_to(walker, name));
  return open_resolved(path, flags, walk.credentials);
}

Result<Ref<File>> open_resolved(const Path &path, std::uint32_t flags,
                                const Credentials &credentials) {
  if (flags & abi::kO_PATH) return open_path_only(path, flags, credentials);
  if ((flags & abi::kO_DIRECTORY) && !path.inode().is_directory()) return Err(Errno::NotDir);
  TRY(check_open(path, flags & ~abi::kO_CREAT, credentials, false));
  return open_checked(path, flags, credentials);
}

}  // namespace cowbird
