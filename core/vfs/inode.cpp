#include "vfs/inode.hpp"

#include <map>

#include "abi/stat.hpp"
#include "sched/clock.hpp"
#include "vfs/dentry.hpp"
#include "vfs/device.hpp"
#include "vfs/file.hpp"
#include "vfs/path.hpp"
#include "vfs/pipe.hpp"

namespace cowbird {

const Credentials &Credentials::kernel() {
  static const Credentials *all = new Credentials;
  return *all;
}

Timespec current_time() {
  const std::int64_t now = clock::realtime_ns();
  std::int64_t sec = now / 1'000'000'000;
  std::int64_t nsec = now % 1'000'000'000;
  if (nsec < 0) {
    nsec += 1'000'000'000;
    --sec;
  }
  return {sec, nsec};
}

DeviceNumber next_anonymous_device() {
  static std::uint32_t minor = 0;
  return {0, ++minor};
}

Inode::~Inode() = default;

Result<FileStat> Inode::getattr() {
  FileStat stat;
  stat.device = sb().device.encode();
  stat.inode = number();
  stat.mode = mode;
  stat.nlink = nlink;
  stat.uid = uid;
  stat.gid = gid;
  stat.rdev = rdev.encode();
  stat.size = size();
  PageCache *cache = page_cache();
  stat.blocks = cache ? cache->cached_pages() * (kPageSize / 512) : (stat.size + 511) / 512;
  stat.atime = atime;
  stat.mtime = mtime;
  stat.ctime = ctime;
  return stat;
}

Result<void> Inode::setattr(const SetAttr &change) {
  if (change.size) return Err(Errno::Inval);
  if (change.mode) mode = (mode & abi::kS_IFMT) | (*change.mode & abi::kS_IALLUGO);
  if (change.uid) uid = *change.uid;
  if (change.gid) gid = *change.gid;
  if (change.atime) atime = *change.atime;
  if (change.mtime) mtime = *change.mtime;
  ctime = current_time();
  return {};
}

Result<Ref<Inode>> Inode::lookup(std::string_view) { return Err(Errno::NoEnt); }
Result<Ref<Inode>> Inode::create(std::string_view, std::uint32_t, DeviceNumber,
                                 const Credentials &) {
  return Err(Errno::Perm);
}
Result<Ref<Inode>> Inode::mkdir(std::string_view, std::uint32_t, const Credentials &) {
  return Err(Errno::Perm);
}
Result<Ref<Inode>> Inode::symlink(std::string_view, std::string_view, const Credentials &) {
  return Err(Errno::Perm);
}
Result<void> Inode::link(std::string_view, Inode &) { return Err(Errno::Perm); }
Result<void> Inode::unlink(std::string_view, Inode &) { return Err(Errno::Perm); }
Result<void> Inode::rmdir(std::string_view, Inode &) { return Err(Errno::Perm); }
Result<void> Inode::rename(std::string_view, Inode &, Inode &, std::string_view, Inode *, bool) {
  return Err(Errno::Perm);
}
Result<Ref<Inode>> Inode::tmpfile(std::uint32_t, const Credentials &) {
  return Err(Errno::OpNotSupp);
}
Result<void> Inode::readdir(std::uint64_t, const DirEmitter &) { return Err(Errno::NotDir); }
Result<std::string> Inode::readlink() { return Err(Errno::Inval); }
Result<Path> Inode::follow_magic() { return Err(Errno::Inval); }

Result<void> Inode::extend(std::uint64_t new_size) {
  SetAttr change;
  change.size = new_size;
  return setattr(change);
}

Result<void> Inode::fallocate(std::uint32_t, std::uint64_t, std::uint64_t) {
  return Err(Errno::OpNotSupp);
}

Result<std::uint64_t> Inode::seek_data(std::uint64_t offset, bool hole) {
  return hole ? size() : offset;
}

Result<void> Inode::sync(bool) {
  if (PageCache *cache = page_cache()) return cache->write_back(0, ~0ull);
  return {};
}

Result<std::string> Inode::get_xattr(std::string_view) { return Err(Errno::OpNotSupp); }
Result<void> Inode::set_xattr(std::string_view, std::string_view, int) {
  return Err(Errno::OpNotSupp);
}
Result<std::vector<std::string>> Inode::list_xattr() { return Err(Errno::OpNotSupp); }
Result<void> Inode::remove_xattr(std::string_view) { return Err(Errno::OpNotSupp); }

namespace {

// An open directory: reads go through readdir only.
class DirectoryFile final : public File {
 public:
  explicit DirectoryFile(std::uint32_t flags) : File(flags) {}
  Result<std::uint64_t> read(IovIter &, std::uint64_t &) override { return Err(Errno::IsDir); }
  bool seekable() const override { return true; }
  Result<std::uint64_t> seek(std::int64_t offset, Whence whence) override;
  Result<void> readdir(const DirEmitter &emit) override;
  Result<void> fsync(bool data_only) override { return inode->sync(data_only); }
};

Result<std::uint64_t> DirectoryFile::seek(std::int64_t offset, Whence whence) {
  std::int64_t target = offset;
  if (whence == Whence::Current) {
    if (__builtin_add_overflow(static_cast<std::int64_t>(position), offset, &target))
      return Err(Errno::Overflow);
  } else if (whence != Whence::Set) {
    return Err(Errno::Inval);
  }
  if (target < 0) return Err(Errno::Inval);
  position = static_cast<std::uint64_t>(target);
  return position;
}

Result<void> DirectoryFile::readdir(const DirEmitter &emit) {
  if (position == 0) {
    if (!emit(".", inode->number(), FileType::Directory, 1)) return {};
    position = 1;
  }
  if (position == 1) {
    const Dentry *parent = path.dentry ? path.dentry->parent() : nullptr;
    const std::uint64_t up =
        parent && parent->inode() ? parent->inode()->number() : inode->number();
    if (!emit("..", up, FileType::Directory, 2)) return {};
    position = 2;
  }
  if (path.dentry && path.dentry->unlinked()) return {};
  SleepLock locked(inode->lock());
  return inode->readdir(position, [&](std::string_view name, std::uint64_t number, FileType type,
                                      std::uint64_t next) {
    if (!emit(name, number, type, next)) return false;
    position = next;
    return true;
  });
}

}  // namespace

Result<Ref<File>> Inode::open(std::uint32_t flags) {
  switch (type()) {
    case FileType::Regular:
      if (!page_cache()) return Err(Errno::Inval);
      return make_page_cache_file(*this, flags);
    case FileType::Directory:
      return Ref<File>(make_ref<DirectoryFile>(flags));
    case FileType::Fifo:
      return open_fifo(*this, flags);
    case FileType::CharDevice:
    case FileType::BlockDevice:
      return open_device(*this, flags);
    case FileType::Symlink:
      return Err(Errno::Loop);
    case FileType::Socket:
    case FileType::Anonymous:
      return Err(Errno::NxIo);
  }
  return Err(Errno::NxIo);
}

// --- kinds of file systems

namespace {
std::map<std::string, FileSystemType, std::less<>> &filesystems() {
  static auto *all = new std::map<std::string, FileSystemType, std::less<>>;
  return *all;
}
}  // namespace

void register_filesystem(FileSystemType type) {
  std::string name = type.name;
  filesystems()[std::move(name)] = std::move(type);
}

const FileSystemType *find_filesystem(std::string_view name) {
  auto found = filesystems().find(name);
  return found == filesystems().end() ? nullptr : &found->second;
}

void for_each_filesystem(const std::function<void(const FileSystemType &)> &function) {
  for (const auto &[name, type] : filesystems()) function(type);
}

}  // namespace cowbird
