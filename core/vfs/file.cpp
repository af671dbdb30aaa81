#include "vfs/file.hpp"

#include <algorithm>

#include "abi/fcntl.hpp"
#include "abi/inotify.hpp"
#include "abi/poll.hpp"
#include "abi/stat.hpp"
#include "abi/statfs.hpp"
#include "proc/signal.hpp"
#include "vfs/attributes.hpp"
#include "vfs/caller.hpp"
#include "vfs/epoll.hpp"
#include "vfs/file_lock.hpp"
#include "vfs/mount.hpp"
#include "vfs/notify.hpp"

namespace cowbird {

namespace {
std::uint64_t open_files = 0;  // protected by the big kernel lock
}

File::File(std::uint32_t flags) : flags_(flags) { ++open_files; }

File::~File() {
  --open_files;
  if (epoll_items) epoll_forget(*this);
  release_file_locks(*this);
  if (inode) {
    if (!is_path_only()) notify_close(*this);
    if (holds_write_count) --inode->write_count;
  }
}

std::uint64_t File::open_count() { return open_files; }

std::uint64_t File::max_open() {
  // Linux's rule: about a tenth of the memory in files of 1 KiB.
  static const std::uint64_t limit =
      std::max<std::uint64_t>(8192, phys().total_pages() * (kPageSize / 1024) / 10);
  return limit;
}

Result<std::uint64_t> File::read(IovIter &, std::uint64_t &) { return Err(Errno::Inval); }
Result<std::uint64_t> File::write(IovIter &, std::uint64_t &) { return Err(Errno::Inval); }
Result<std::uint64_t> File::seek(std::int64_t, Whence) { return Err(Errno::SPipe); }
Result<void> File::readdir(const DirEmitter &) { return Err(Errno::NotDir); }
Result<std::int64_t> File::ioctl(Task &, std::uint32_t, std::uint64_t) {
  return Err(Errno::NotTty);
}
std::uint32_t File::poll(PollTable *) {
  return abi::kPOLLIN | abi::kPOLLOUT | abi::kPOLLRDNORM | abi::kPOLLWRNORM;
}
Result<void> File::mmap(MmapRequest &) { return Err(Errno::NoDev); }
Result<void> File::fsync(bool) { return Err(Errno::Inval); }
Result<void> File::fallocate(int, std::uint64_t, std::uint64_t) { return Err(Errno::NoDev); }
Result<void> File::truncate(std::uint64_t) { return Err(Errno::Inval); }

std::string File::describe() const {
  if (path.dentry && path.dentry->anonymous()) return std::string(path.dentry->name());
  if (!inode) return "anon_inode:[file]";
  const char *kind = "anon_inode";
  if (inode->type() == FileType::Fifo) kind = "pipe";
  if (inode->type() == FileType::Socket) kind = "socket";
  return std::string(kind) + ":[" + std::to_string(inode->number()) + "]";
}

// --- regular files

Result<void> check_mmap_access(const File &file, MmapRequest &request) {
  if (!file.readable()) return Err(Errno::Access);
  const bool shared = request.sharing == Sharing::Shared;
  if (shared && !file.writable()) {
    if (has(request.prot, Prot::Write)) return Err(Errno::Access);
    request.max_prot = request.max_prot & ~Prot::Write;
  }
  if (shared && file.inode &&
      (file.inode->seals & (abi::kF_SEAL_WRITE | abi::kF_SEAL_FUTURE_WRITE))) {
    if (has(request.prot, Prot::Write)) return Err(Errno::Perm);
    request.max_prot = request.max_prot & ~Prot::Write;
  }
  if (file.path.mount && (file.path.mount->flags & kMountNoExec)) {
    if (has(request.prot, Prot::Exec)) return Err(Errno::Perm);
    request.max_prot = request.max_prot & ~Prot::Exec;
  }
  return {};
}

namespace {

// relatime: a read is noted when it is the first after a change, or a day after the last.
void touch_atime(File &file) {
  if (file.flags() & abi::kO_NOATIME) return;
  Inode &inode = *file.inode;
  if (file.path.mount) {
    if (file.path.mount->flags & (kMountNoAtime | kMountReadOnly)) return;
  }
  auto later = [](const Timespec &a, const Timespec &b) {
    return a.sec > b.sec || (a.sec == b.sec && a.nsec > b.nsec);
  };
  const Timespec now = current_time();
  if (later(inode.atime, inode.mtime) && later(inode.atime, inode.ctime) &&
      now.sec - inode.atime.sec < 24l * 3600) {
    return;
  }
  inode.atime = now;
}

class PageCacheFile final : public File {
 public:
  PageCacheFile(Inode &node, std::uint32_t flags) : File(flags) { inode = Ref<Inode>(&node); }

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &offset) override;
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &offset) override;
  bool seekable() const override { return true; }
  Result<std::uint64_t> seek(std::int64_t offset, Whence whence) override;
  Result<void> mmap(MmapRequest &request) override;
  Result<void> fsync(bool data_only) override { return inode->sync(data_only); }
  Result<void> fallocate(int mode, std::uint64_t offset, std::uint64_t length) override;
  Result<void> truncate(std::uint64_t size) override;

 private:
  Result<void> bound_write(IovIter &from, std::uint64_t offset) const;
};

Result<std::uint64_t> PageCacheFile::read(IovIter &to, std::uint64_t &offset) {
  if (offset > static_cast<std::uint64_t>(INT64_MAX)) return Err(Errno::Inval);
  PageCache *cache = inode->page_cache();
  if (!cache) return Err(Errno::Inval);
  if (offset >= inode->size() || to.remaining() == 0) return std::uint64_t{0};
  const std::uint64_t done = TRY(cache->read(offset, to));
  offset += done;
  touch_atime(*this);
  notify_file(*this, abi::kIN_ACCESS);
  return done;
}

// Limits of how far a write may go: RLIMIT_FSIZE, the largest file, seals.
Result<void> PageCacheFile::bound_write(IovIter &from, std::uint64_t offset) const {
  const std::uint64_t limit = caller::file_size_limit();
  if (offset >= limit) {
    caller::raise_signal(kSigXfsz);
    return Err(Errno::FBig);
  }
  constexpr std::uint64_t kMaxSize = INT64_MAX;
  if (offset >= kMaxSize) return Err(Errno::FBig);
  from.truncate(std::min(limit, kMaxSize) - offset);
  if (inode->seals & (abi::kF_SEAL_WRITE | abi::kF_SEAL_FUTURE_WRITE)) return Err(Errno::Perm);
  if ((inode->seals & abi::kF_SEAL_GROW) && offset + from.remaining() > inode->size())
    return Err(Errno::Perm);
  return {};
}

Result<std::uint64_t> PageCacheFile::write(IovIter &from, std::uint64_t &offset) {
  PageCache *cache = inode->page_cache();
  if (!cache) return Err(Errno::Inval);
  if (from.remaining() == 0) return std::uint64_t{0};
  SleepLock locked(inode->lock());
  if (append()) offset = inode->size();
  TRY(bound_write(from, offset));
  TRY(drop_set_id(*inode, caller::credentials()));
  const std::uint64_t done = TRY(cache->write(offset, from));
  offset += done;
  if (offset > inode->size()) TRY(inode->extend(offset));
  inode->mtime = inode->ctime = current_time();
  notify_file(*this, abi::kIN_MODIFY);
  return done;
}

Result<std::uint64_t> PageCacheFile::seek(std::int64_t offset, Whence whence) {
  std::int64_t target = offset;
  const auto size = static_cast<std::int64_t>(inode->size());
  switch (whence) {
    case Whence::Set:
      break;
    case Whence::Current:
      if (__builtin_add_overflow(static_cast<std::int64_t>(position), offset, &target))
        return Err(Errno::Overflow);
      break;
    case Whence::End:
      if (__builtin_add_overflow(size, offset, &target)) return Err(Errno::Overflow);
      break;
    case Whence::Data:
    case Whence::Hole:
      if (offset < 0 || offset >= size) return Err(Errno::NxIo);
      target = static_cast<std::int64_t>(
          TRY(inode->seek_data(static_cast<std::uint64_t>(offset), whence == Whence::Hole)));
      break;
    default:
      return Err(Errno::Inval);
  }
  if (target < 0) return Err(Errno::Inval);
  position = static_cast<std::uint64_t>(target);
  return position;
}

Result<void> PageCacheFile::mmap(MmapRequest &request) {
  TRY(check_mmap_access(*this, request));
  PageCache *cache = inode->page_cache();
  if (!cache) return Err(Errno::NoDev);
  request.cache = Ref<PageCache>(cache);
  request.file = Ref<File>(this);
  touch_atime(*this);
  return {};
}

Result<void> PageCacheFile::fallocate(int mode, std::uint64_t offset, std::uint64_t length) {
  const auto flags = static_cast<std::uint32_t>(mode);
  SleepLock locked(inode->lock());
  const bool grows = !(flags & abi::kFALLOC_FL_KEEP_SIZE) && offset + length > inode->size();
  if (grows && offset + length > caller::file_size_limit()) {
    caller::raise_signal(kSigXfsz);
    return Err(Errno::FBig);
  }
  if (grows && (inode->seals & abi::kF_SEAL_GROW)) return Err(Errno::Perm);
  if ((flags & (abi::kFALLOC_FL_PUNCH_HOLE | abi::kFALLOC_FL_ZERO_RANGE)) &&
      (inode->seals & (abi::kF_SEAL_WRITE | abi::kF_SEAL_FUTURE_WRITE))) {
    return Err(Errno::Perm);
  }
  TRY(inode->fallocate(flags, offset, length));
  inode->mtime = inode->ctime = current_time();
  notify_file(*this, abi::kIN_MODIFY);
  return {};
}

Result<void> PageCacheFile::truncate(std::uint64_t size) {
  TRY(resize_inode(*inode, size, caller::credentials()));
  notify_file(*this, abi::kIN_MODIFY);
  return {};
}

}  // namespace

Ref<File> make_page_cache_file(Inode &inode, std::uint32_t flags) {
  return make_ref<PageCacheFile>(inode, flags);
}

// --- objects without a name

namespace {

class AnonymousInode final : public Inode {
 public:
  AnonymousInode(SuperBlock &sb, std::uint64_t number) : Inode(sb, number) {}
};

// Where pipes, sockets and anon_inode objects live.
class AnonymousFs final : public SuperBlock {
 public:
  AnonymousFs() { device = next_anonymous_device(); }
  std::string_view type_name() const override { return "anon_inodefs"; }
  Ref<Inode> root() override {
    auto node = make_ref<AnonymousInode>(*this, 1u);
    node->mode = abi::kS_IFDIR | 0500;
    return node;
  }
  Result<FsStat> statfs() override {
    FsStat stat;
    stat.type = abi::kANON_INODE_FS_MAGIC;
    return stat;
  }
  std::uint64_t next_number = 2;
};

AnonymousFs &anonymous_fs() {
  static AnonymousFs *fs = new AnonymousFs;
  return *fs;
}

const Ref<Mount> &anonymous_mount() {
  static auto *mount = new Ref<Mount>(make_internal_mount(Ref<SuperBlock>(&anonymous_fs())));
  return *mount;
}

}  // namespace

Ref<Inode> make_anonymous_inode(std::uint32_t mode, const Credentials &owner) {
  AnonymousFs &fs = anonymous_fs();
  auto inode = make_ref<AnonymousInode>(fs, fs.next_number++);
  inode->mode = mode;
  inode->uid = owner.fsuid;
  inode->gid = owner.fsgid;
  inode->atime = inode->mtime = inode->ctime = current_time();
  return inode;
}

void name_anonymous_file(File &file, const std::string &name) {
  if (!file.inode) file.inode = make_anonymous_inode(0600, Credentials::kernel());
  file.path = Path(anonymous_mount(), Dentry::make_anonymous(name, file.inode));
}

Path file_path(File &file) {
  if (!file.path) name_anonymous_file(file, file.describe());
  return file.path;
}

}  // namespace cowbird
