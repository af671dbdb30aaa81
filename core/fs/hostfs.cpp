#include "fs/hostfs.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "abi/fcntl.hpp"
#include "abi/poll.hpp"
#include "base/log.hpp"
#include "fs/hostfs_internal.hpp"
#include "irq/irq.hpp"
#include "vfs/dentry.hpp"

namespace cowbird {
namespace hostfs {
namespace {

constexpr std::uint64_t kHostfsMagic = 0x00c0ffee;  // UML's
// Offsets 0 and 1 of a listing belong to the VFS; the host's are moved up by two. Its very last one
// cannot be, and is the end.
constexpr std::uint64_t kOffsetShift = 2;
constexpr std::uint64_t kEndOffset = INT64_MAX;

Timespec from_host(const struct timespec &t) { return {t.tv_sec, t.tv_nsec}; }
struct timespec to_host(const std::optional<Timespec> &t) {
  if (!t) return {0, UTIME_OMIT};
  return {static_cast<time_t>(t->sec), static_cast<long>(t->nsec)};
}
bool same(const struct timespec &a, const struct timespec &b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

FileType type_of_dirent(unsigned char type) {
  return static_cast<FileType>(static_cast<std::uint32_t>(type) << 12);
}

Result<struct stat> host_stat(int fd) {
  struct stat st {};
  TRY(host_call([&] { return ::fstat(fd, &st); }));
  return st;
}

// Names come from the VFS as single components; this is the second lock on the door.
Result<std::string> component(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos ||
      name.find('\0') != std::string_view::npos) {
    return Err(Errno::Inval);
  }
  return std::string(name);
}

}  // namespace

std::string fd_path(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

template <typename Open>
Result<UniqueFd> host_open(Open &&open) {
  constexpr std::size_t kNamesToDrop = 1024;
  for (bool again = true;; again = false) {
    const auto fd = host_call(open);
    if (fd) return UniqueFd(static_cast<int>(*fd));
    const bool full = fd.is(Errno::MFile) || fd.is(Errno::NFile);
    if (!full || !again || dcache::shrink(kNamesToDrop) == 0) return Err(fd.error());
  }
}

// --- super block

HostSuperBlock::HostSuperBlock(HostfsOptions options, UniqueFd directory)
    : options_(std::move(options)), directory_(std::move(directory)) {
  device = next_anonymous_device();
}

Result<void> HostSuperBlock::read_root() {
  const struct stat st = TRY(host_stat(directory_.get()));
  if (!S_ISDIR(st.st_mode)) return Err(Errno::NotDir);
  root_ = inode_for(std::move(directory_), st);
  return {};
}

Ref<Inode> HostSuperBlock::inode_for(UniqueFd fd, const struct stat &st) {
  const Key key{st.st_dev, st.st_ino};
  if (const auto found = inodes_.find(key); found != inodes_.end()) {
    found->second->take_over(st);
    return Ref<Inode>(found->second);
  }
  auto inode = make_ref<HostInode>(*this, std::move(fd), st);
  inodes_[key] = inode.get();
  return inode;
}

void HostSuperBlock::forget(HostInode &inode) {
  inodes_.erase(Key{inode.host_device(), inode.number()});
}

Result<FsStat> HostSuperBlock::statfs() {
  struct statfs st {};
  const int fd = static_cast<HostInode &>(*root_).fd();
  TRY(host_call([&] { return ::fstatfs(fd, &st); }));
  FsStat out;
  out.type = kHostfsMagic;
  out.block_size = static_cast<std::uint64_t>(st.f_bsize);
  out.blocks = st.f_blocks;
  out.blocks_free = st.f_bfree;
  out.blocks_available = st.f_bavail;
  out.files = st.f_files;
  out.files_free = st.f_ffree;
  out.name_max = static_cast<std::uint64_t>(st.f_namelen);
  return out;
}

Result<void> HostSuperBlock::sync() {
  std::vector<Ref<Inode>> dirty;  // storing sleeps, and inodes come and go meanwhile
  for (const auto &[key, inode] : inodes_) {
    PageCache *cache = inode->page_cache();
    if (cache && cache->dirty_pages() != 0) dirty.emplace_back(inode);
  }
  Result<void> result;
  for (const Ref<Inode> &inode : dirty) {
    if (auto stored = inode->page_cache()->write_back(0, UINT64_MAX); !stored) result = stored;
  }
  return result;
}

// --- pages

HostCache::HostCache(int path_fd) : path_fd_(::fcntl(path_fd, F_DUPFD_CLOEXEC, 0)) {}
HostCache::~HostCache() { drop_all(); }

Result<int> HostCache::io_fd(bool write) {
  if (io_fd_.valid() && (io_writable_ || !write)) return io_fd_.get();
  const std::string path = fd_path(path_fd_.get());
  const int access = write ? O_RDWR : O_RDONLY;
  auto fd =
      host_open([&] { return ::open(path.c_str(), access | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); });
  if (!fd && write && fd.is(Errno::Access)) {
    // Writing alone may be allowed; pages that are only written in part are then read as far as we
    // may.
    fd = host_open(
        [&] { return ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); });
  }
  if (!fd) return Err(fd.error());
  // The open gave the lock up: another thread may have been faster.
  if (io_fd_.valid() && (io_writable_ || !write)) return io_fd_.get();
  // A read that is under way uses the old one, whose number must not become another file's.
  if (io_fd_.valid()) read_fd_ = std::move(io_fd_);
  io_fd_ = std::move(*fd);
  io_writable_ = write;
  return io_fd_.get();
}

Result<void> HostCache::fill_pages(std::uint64_t index, Pfn first, std::uint64_t pages) {
  const int fd = TRY(io_fd(false));
  std::byte *const to = phys().data(first);
  const std::uint64_t bytes = pages * kPageSize;
  std::uint64_t done = 0;
  while (done < bytes) {
    const auto offset = static_cast<off_t>(index * kPageSize + done);
    iovec vec{to + done, bytes - done};
    auto got = host_call([&] { return ::preadv2(fd, &vec, 1, offset, RWF_NOWAIT); });
    if (got.is(Errno::Again) || got.is(Errno::OpNotSupp)) {
      // Not in the host's cache: a worker waits for the disk, and this vCPU does something else.
      ssize_t result = 0;
      int error = 0;
      irq::run_blocking("hostfs_read", [&] {
        result = ::pread(fd, vec.iov_base, vec.iov_len, offset);
        error = errno;
      });
      got = result < 0 ? Result<std::int64_t>(Err(errno_from_host(error)))
                       : Result<std::int64_t>(std::int64_t{result});
    }
    if (!got) return Err(got.error());
    if (*got == 0) break;  // the end of the file: the rest stays zero
    done += static_cast<std::uint64_t>(*got);
  }
  return {};
}

Result<void> HostCache::store_page(std::uint64_t index, Pfn pfn, std::uint64_t bytes) {
  const int fd = TRY(io_fd(true));
  const std::byte *const from = phys().data(pfn);
  for (std::uint64_t done = 0; done < bytes;) {
    const auto offset = static_cast<off_t>(index * kPageSize + done);
    const auto written =
        TRY(host_call([&] { return ::pwrite(fd, from + done, bytes - done, offset); }));
    if (written == 0) return Err(Errno::Io);
    done += static_cast<std::uint64_t>(written);
  }
  return {};
}

// --- inode

HostInode::HostInode(HostSuperBlock &sb, UniqueFd fd, const struct stat &st)
    : Inode(sb, st.st_ino), fd_(std::move(fd)), host_device_(st.st_dev) {
  host_mtime_ = st.st_mtim;
  if (S_ISREG(st.st_mode)) cache_ = make_ref<HostCache>(fd_.get());
  take_over(st);
}

HostInode::~HostInode() { super().forget(*this); }

std::string HostInode::self_path() const { return fd_path(fd_.get()); }

void HostInode::take_over(const struct stat &st) {
  mode = st.st_mode;
  uid = st.st_uid;
  gid = st.st_gid;
  nlink = static_cast<std::uint32_t>(st.st_nlink);
  rdev = DeviceNumber::decode(st.st_rdev);
  atime = from_host(st.st_atim);
  mtime = from_host(st.st_mtim);
  ctime = from_host(st.st_ctim);
  const bool changed =
      !same(host_mtime_, st.st_mtim) || size_ != static_cast<std::uint64_t>(st.st_size);
  host_mtime_ = st.st_mtim;
  size_ = static_cast<std::uint64_t>(st.st_size);
  if (!cache_) return;
  cache_->set_size(size_);
  // Pages that a mapping has changed and that are not stored yet are newer than what the host has.
  if (changed && cache_->cached_pages() != 0 && cache_->dirty_pages() == 0) {
    cache_->truncate_range(0, UINT64_MAX & ~kPageMask);
  }
}

Result<void> HostInode::refresh() {
  const struct stat st = TRY(host_stat(fd_.get()));
  host_mtime_ = st.st_mtim;
  size_ = static_cast<std::uint64_t>(st.st_size);
  take_over(st);
  return {};
}

Result<FileStat> HostInode::getattr() {
  const struct stat st = TRY(host_stat(fd_.get()));
  take_over(st);
  FileStat out;
  out.device = sb().device.encode();
  out.inode = number();
  out.mode = mode;
  out.nlink = nlink;
  out.uid = uid;
  out.gid = gid;
  out.rdev = rdev.encode();
  out.size = size_;
  out.block_size = static_cast<std::uint64_t>(st.st_blksize);
  out.blocks = static_cast<std::uint64_t>(st.st_blocks);
  out.atime = atime;
  out.mtime = mtime;
  out.ctime = ctime;
  return out;
}

Result<void> HostInode::set_size(std::uint64_t size) {
  if (!cache_) return Err(Errno::Inval);
  const int fd = TRY(cache_->io_fd(true));
  const std::uint64_t old = size_;
  TRY(host_call([&] { return ::ftruncate(fd, static_cast<off_t>(size)); }));
  size_ = size;
  cache_->set_size(size);
  if (size < old) cache_->truncate_range(size, UINT64_MAX & ~kPageMask);
  return {};
}

Result<void> HostInode::setattr(const SetAttr &change) {
  const std::string path = self_path();
  if (change.uid || change.gid) {
    const auto user = change.uid ? static_cast<uid_t>(*change.uid) : static_cast<uid_t>(-1);
    const auto group = change.gid ? static_cast<gid_t>(*change.gid) : static_cast<gid_t>(-1);
    TRY(host_call([&] { return ::fchownat(fd_.get(), "", user, group, AT_EMPTY_PATH); }));
  }
  if (change.mode) {
    if (is_symlink()) return Err(Errno::OpNotSupp);
    TRY(host_call([&] { return ::chmod(path.c_str(), *change.mode & 07777); }));
  }
  if (change.size) TRY(set_size(*change.size));
  if (change.atime || change.mtime) {
    const struct timespec times[2] = {to_host(change.atime), to_host(change.mtime)};
    TRY(host_call([&] {
      return ::syscall(SYS_utimensat, fd_.get(), "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
    }));
  }
  return refresh();
}

Result<Ref<Inode>> HostInode::lookup(std::string_view name) {
  const std::string host_name = TRY(component(name));
  UniqueFd fd = TRY(host_open(
      [&] { return ::openat(fd_.get(), host_name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC); }));
  const struct stat st = TRY(host_stat(fd.get()));
  return super().inode_for(std::move(fd), st);
}

bool HostInode::revalidate(Inode &directory, std::string_view name) {
  const std::string host_name(name);
  struct stat st {};
  const int parent = static_cast<HostInode &>(directory).fd();
  const auto found =
      host_call([&] { return ::fstatat(parent, host_name.c_str(), &st, AT_SYMLINK_NOFOLLOW); });
  if (!found || st.st_ino != number() || st.st_dev != host_device_) return false;
  take_over(st);
  return true;
}

Result<Ref<Inode>> HostInode::adopt_new(std::string_view name, const Credentials &owner) {
  Ref<Inode> inode = TRY(lookup(name));
  // Without the privilege the file is our own user's, as the host decides; that is no error.
  if (::geteuid() == 0) {
    const std::uint32_t group = (mode & 02000) ? gid : owner.fsgid;
    auto &made = static_cast<HostInode &>(*inode);
    TRY(host_call([&] { return ::fchownat(made.fd(), "", owner.fsuid, group, AT_EMPTY_PATH); }));
    TRY(made.refresh());
  }
  TRY(refresh());
  return inode;
}

Result<Ref<Inode>> HostInode::create(std::string_view name, std::uint32_t new_mode, DeviceNumber,
                                     const Credentials &owner) {
  const std::string host_name = TRY(component(name));
  const auto type = static_cast<FileType>(new_mode & 0170000);
  if (type == FileType::Regular) {
    UniqueFd fd = TRY(host_open([&] {
      return ::openat(fd_.get(), host_name.c_str(),
                      O_CREAT | O_EXCL | O_RDONLY | O_NOFOLLOW | O_CLOEXEC, new_mode & 07777);
    }));
  } else if (type == FileType::Fifo || type == FileType::Socket) {
    TRY(host_call([&] { return ::mknodat(fd_.get(), host_name.c_str(), new_mode, 0); }));
  } else {
    // A device node would be a door to the host's devices for whoever opens it there.
    return Err(Errno::Perm);
  }
  return adopt_new(name, owner);
}

Result<Ref<Inode>> HostInode::mkdir(std::string_view name, std::uint32_t new_mode,
                                    const Credentials &owner) {
  const std::string host_name = TRY(component(name));
  TRY(host_call([&] { return ::mkdirat(fd_.get(), host_name.c_str(), new_mode & 07777); }));
  return adopt_new(name, owner);
}

Result<Ref<Inode>> HostInode::symlink(std::string_view name, std::string_view target,
                                      const Credentials &owner) {
  const std::string host_name = TRY(component(name));
  const std::string text(target);
  TRY(host_call([&] { return ::symlinkat(text.c_str(), fd_.get(), host_name.c_str()); }));
  return adopt_new(name, owner);
}

Result<void> HostInode::link(std::string_view name, Inode &target) {
  const std::string host_name = TRY(component(name));
  auto &host_target = static_cast<HostInode &>(target);
  if (target.is_symlink()) return Err(Errno::Perm);  // its /proc name would be followed too far
  const std::string path = host_target.self_path();
  TRY(host_call([&] {
    return ::linkat(AT_FDCWD, path.c_str(), fd_.get(), host_name.c_str(), AT_SYMLINK_FOLLOW);
  }));
  TRY(host_target.refresh());
  return refresh();
}

Result<void> HostInode::unlink(std::string_view name, Inode &victim) {
  const std::string host_name = TRY(component(name));
  TRY(host_call([&] { return ::unlinkat(fd_.get(), host_name.c_str(), 0); }));
  TRY(static_cast<HostInode &>(victim).refresh());
  return refresh();
}

Result<void> HostInode::rmdir(std::string_view name, Inode &victim) {
  const std::string host_name = TRY(component(name));
  TRY(host_call([&] { return ::unlinkat(fd_.get(), host_name.c_str(), AT_REMOVEDIR); }));
  TRY(static_cast<HostInode &>(victim).refresh());
  return refresh();
}

Result<void> HostInode::rename(std::string_view old_name, Inode &, Inode &new_parent,
                               std::string_view new_name, Inode *, bool exchange) {
  const std::string from = TRY(component(old_name)), to = TRY(component(new_name));
  auto &parent = static_cast<HostInode &>(new_parent);
  TRY(host_call([&] {
    return ::renameat2(fd_.get(), from.c_str(), parent.fd(), to.c_str(),
                       exchange ? RENAME_EXCHANGE : 0);
  }));
  TRY(parent.refresh());
  return refresh();
}

Result<void> HostInode::readdir(std::uint64_t offset, const DirEmitter &emit) {
  if (offset == kEndOffset) return {};
  if (!listing_.valid()) {
    listing_ = TRY(host_open(
        [&] { return ::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }));
  }
  // Taken for the time of this listing: another reader that comes while the lock is given up opens
  // its own.
  UniqueFd listing = std::move(listing_);
  const std::uint64_t start = offset > kOffsetShift ? offset - kOffsetShift : 0;
  TRY(host_call([&] { return ::lseek(listing.get(), static_cast<off_t>(start), SEEK_SET); }));
  alignas(dirent64) std::array<char, 8192> buffer;
  while (true) {
    const auto got =
        TRY(host_call([&] { return ::getdents64(listing.get(), buffer.data(), buffer.size()); }));
    if (got == 0) break;
    bool room = true;
    for (std::int64_t at = 0; at < got && room;) {
      const auto *entry = reinterpret_cast<const dirent64 *>(buffer.data() + at);
      at += entry->d_reclen;
      const std::string_view name(entry->d_name);
      if (name == "." || name == "..") continue;
      const auto next = static_cast<std::uint64_t>(entry->d_off);
      room = emit(name, entry->d_ino, type_of_dirent(entry->d_type),
                  next >= kEndOffset - kOffsetShift ? kEndOffset : next + kOffsetShift);
    }
    if (!room) break;
  }
  listing_ = std::move(listing);
  return {};
}

Result<std::string> HostInode::readlink() {
  std::array<char, 4096> buffer;
  const auto length =
      TRY(host_call([&] { return ::readlinkat(fd_.get(), "", buffer.data(), buffer.size()); }));
  return std::string(buffer.data(), static_cast<std::size_t>(length));
}

Result<void> HostInode::sync(bool data_only) {
  if (!cache_) return {};
  TRY(cache_->write_back(0, UINT64_MAX));
  const int fd = TRY(cache_->io_fd(false));
  int result = 0, error = 0;
  irq::run_blocking("hostfs_sync", [&] {
    result = data_only ? ::fdatasync(fd) : ::fsync(fd);
    error = errno;
  });
  if (result != 0) return Err(errno_from_host(error));
  return {};
}

Result<void> HostInode::fallocate(std::uint32_t fallocate_mode, std::uint64_t offset,
                                  std::uint64_t length) {
  if (!cache_) return Err(Errno::NoDev);
  TRY(cache_->write_back(0, UINT64_MAX));
  const int fd = TRY(cache_->io_fd(true));
  TRY(host_call([&] {
    return ::fallocate(fd, static_cast<int>(fallocate_mode), static_cast<off_t>(offset),
                       static_cast<off_t>(length));
  }));
  // Holes and zeroes are made on the host: what is cached of the file is read again.
  if (fallocate_mode != 0) cache_->truncate_range(0, UINT64_MAX & ~kPageMask);
  return refresh();
}

Result<std::uint64_t> HostInode::seek_data(std::uint64_t offset, bool hole) {
  if (!cache_) return Err(Errno::Inval);
  TRY(cache_->write_back(0, UINT64_MAX));
  const int fd = TRY(cache_->io_fd(false));
  const auto found = TRY(host_call(
      [&] { return ::lseek(fd, static_cast<off_t>(offset), hole ? SEEK_HOLE : SEEK_DATA); }));
  return static_cast<std::uint64_t>(found);
}

// --- open files

namespace {

// A page-cache file whose writes go through to the host before they return.
class HostFile final : public File {
 public:
  HostFile(Ref<HostInode> host_inode, std::uint32_t flags)
      : File(flags), pages_(make_page_cache_file(*host_inode, flags)) {
    inode = std::move(host_inode);
  }

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &offset) override {
    return inner().read(to, offset);
  }
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &offset) override {
    // Appending goes to where the host's file ends now, not where it ended when we last looked.
    if (append()) TRY(host().refresh());
    const std::uint64_t written = TRY(inner().write(from, offset));
    TRY(inode->page_cache()->write_back(offset - written, offset == 0 ? 0 : offset - 1));
    TRY(host().refresh());
    return written;
  }
  bool seekable() const override { return true; }
  Result<std::uint64_t> seek(std::int64_t offset, Whence whence) override {
    if (whence == Whence::End) TRY(inode->getattr());
    File &file = inner();
    file.position = position;
    const std::uint64_t target = TRY(file.seek(offset, whence));
    position = target;
    return target;
  }
  Result<void> mmap(MmapRequest &request) override { return check_and_map(request); }
  // What was written through a mapping reaches the host when the file is closed, as what was
  // written through the descriptor did at once.
  Result<void> flush(Task &) override {
    if (inode->page_cache()->dirty_pages() == 0) return {};
    return inode->page_cache()->write_back(0, UINT64_MAX);
  }
  Result<void> fsync(bool data_only) override { return inode->sync(data_only); }
  Result<void> fallocate(int mode, std::uint64_t offset, std::uint64_t length) override {
    return inner().fallocate(mode, offset, length);
  }
  Result<void> truncate(std::uint64_t size) override { return inner().truncate(size); }
  std::uint32_t poll(PollTable *) override {
    return abi::kPOLLIN | abi::kPOLLOUT | abi::kPOLLRDNORM | abi::kPOLLWRNORM;
  }

 private:
  HostInode &host() { return static_cast<HostInode &>(*inode); }
  // F_SETFL changes our flags; the file within must follow.
  File &inner() {
    pages_->set_flags(flags());
    return *pages_;
  }
  Result<void> check_and_map(MmapRequest &request) {
    TRY(check_mmap_access(*this, request));
    request.cache = Ref<PageCache>(inode->page_cache());
    request.file = Ref<File>(this);
    return {};
  }

  Ref<File> pages_;
};

}  // namespace

Result<Ref<File>> HostInode::open(std::uint32_t flags) {
  if (!is_regular()) return Inode::open(flags);
  const bool write = (flags & abi::kO_ACCMODE) != abi::kO_RDONLY;
  // The host's own permissions decide now, not at the first read or write.
  TRY(cache_->io_fd(write));
  TRY(getattr());
  return Ref<File>(make_ref<HostFile>(Ref<HostInode>(this), flags));
}

}  // namespace hostfs

Result<Ref<SuperBlock>> make_hostfs(UniqueFd directory, const HostfsOptions &options) {
  if (::access("/proc/self/fd", X_OK) != 0) {
    log_err("hostfs: directories of the host need /proc, which this host does not show here");
    return Err(Errno::OpNotSupp);
  }
  // Each name that is in use holds a descriptor: as many as the host lets us have. Modes are the
  // guest's to decide, so our own mask must not take bits away.
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  ::umask(0);
  auto sb = make_ref<hostfs::HostSuperBlock>(options, std::move(directory));
  TRY(sb->read_root());
  return Ref<SuperBlock>(std::move(sb));
}

}  // namespace cowbird
