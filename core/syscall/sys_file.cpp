// System calls that open, read and write files.
#include <algorithm>

#include "syscall/file_args.hpp"

namespace cowbird {

namespace {

inline constexpr std::uint32_t kKnownOpenFlags =
    abi::kO_ACCMODE | abi::kO_CREAT | abi::kO_EXCL | abi::kO_NOCTTY | abi::kO_TRUNC |
    abi::kO_APPEND | abi::kO_NONBLOCK | abi::kO_SYNC | abi::kO_ASYNC | abi::kO_DIRECT |
    abi::kO_LARGEFILE | abi::kO_DIRECTORY | abi::kO_NOFOLLOW | abi::kO_NOATIME | abi::kO_CLOEXEC |
    abi::kO_PATH | abi::kO_TMPFILE_BIT;

SysResult open_at(Task &task, int directory_fd, std::uint64_t name_address, std::uint32_t flags,
                  std::uint32_t mode, LookupFlag extra = LookupFlag::None) {
  flags &= kKnownOpenFlags;  // open(2) and openat(2) ignore the others
  const std::string name = TRY(read_path(name_address));
  const WalkContext walk = TRY(walk_from(task, directory_fd, name));
  Ref<File> file = TRY(open_path(walk, name, flags, mode, extra));
  return TRY(install_file(task, std::move(file), flags & abi::kO_CLOEXEC));
}

// The position of a file that several descriptors share: one transfer at a time.
class PositionLock {
 public:
  // `expected_refs`: the caller's and the descriptor table's.
  explicit PositionLock(File &file)
      : file_(file), locked_(file.seekable() && file.ref_count() > 2) {
    if (locked_) file_.position_lock.lock();
  }
  ~PositionLock() {
    if (locked_) file_.position_lock.unlock();
  }
  PositionLock(const PositionLock &) = delete;
  PositionLock &operator=(const PositionLock &) = delete;

 private:
  File &file_;
  bool locked_;
};

// O_SYNC and O_DSYNC, RWF_SYNC and RWF_DSYNC.
Result<void> sync_after_write(File &file, bool data_sync, bool full_sync) {
  const bool wants = data_sync || full_sync || (file.flags() & abi::kO_DSYNC);
  if (!wants || !file.inode || !file.inode->is_regular()) return {};
  const bool full = full_sync || (file.flags() & abi::kO_SYNC) == abi::kO_SYNC;
  return file.fsync(!full);
}

SysResult read_at_position(File &file, IovIter &to) {
  const PositionLock locked(file);
  return static_cast<std::int64_t>(TRY(file.read(to, file.position)));
}

SysResult write_at_position(File &file, IovIter &from) {
  const PositionLock locked(file);
  const auto done = static_cast<std::int64_t>(TRY(file.write(from, file.position)));
  TRY(sync_after_write(file, false, false));
  return done;
}

Result<std::uint64_t> checked_offset(std::int64_t offset, const File &file) {
  if (offset < 0) return Err(Errno::Inval);
  if (!file.seekable()) return Err(Errno::SPipe);
  return static_cast<std::uint64_t>(offset);
}

}  // namespace

SysResult sys_open(Task &task, const SysArgs &args) {
  return open_at(task, abi::kAT_FDCWD, args.u64(0), args.u32(1), args.u32(2));
}

SysResult sys_creat(Task &task, const SysArgs &args) {
  return open_at(task, abi::kAT_FDCWD, args.u64(0), abi::kO_CREAT | abi::kO_WRONLY | abi::kO_TRUNC,
                 args.u32(1));
}

SysResult sys_openat(Task &task, const SysArgs &args) {
  return open_at(task, args.fd(0), args.u64(1), args.u32(2), args.u32(3));
}

SysResult sys_openat2(Task &task, const SysArgs &args) {
  const std::uint64_t size = args.u64(3);
  if (size < sizeof(abi::OpenHow)) return Err(Errno::Inval);
  if (size > kPageSize) return Err(Errno::TooBig);
  const auto how = TRY(args.ptr<abi::OpenHow>(2).read());
  // What a newer caller may know of must be zero.
  std::vector<std::uint8_t> rest(size - sizeof how);
  TRY(copy_in(rest.data(), args.u64(2) + sizeof how, rest.size()));
  if (std::any_of(rest.begin(), rest.end(), [](std::uint8_t b) { return b != 0; }))
    return Err(Errno::TooBig);
  constexpr std::uint64_t kResolve = abi::kRESOLVE_NO_XDEV | abi::kRESOLVE_NO_MAGICLINKS |
                                     abi::kRESOLVE_NO_SYMLINKS | abi::kRESOLVE_BENEATH |
                                     abi::kRESOLVE_IN_ROOT | abi::kRESOLVE_CACHED;
  const bool creates = how.flags & (abi::kO_CREAT | abi::kO_TMPFILE_BIT);
  if ((how.flags & ~std::uint64_t{kKnownOpenFlags}) || (how.resolve & ~kResolve) ||
      (creates ? how.mode & ~07777ull : how.mode) ||
      ((how.resolve & abi::kRESOLVE_BENEATH) && (how.resolve & abi::kRESOLVE_IN_ROOT)))
    return Err(Errno::Inval);
  // Whether a name is cached is not ours to promise: callers try again without the flag.
  if (how.resolve & abi::kRESOLVE_CACHED) return Err(Errno::Again);
  LookupFlag extra = LookupFlag::None;
  const std::pair<std::uint64_t, LookupFlag> bits[] = {
      {abi::kRESOLVE_NO_XDEV, LookupFlag::NoXDev},
      {abi::kRESOLVE_NO_MAGICLINKS, LookupFlag::NoMagicLinks},
      {abi::kRESOLVE_NO_SYMLINKS, LookupFlag::NoSymlinks},
      {abi::kRESOLVE_BENEATH, LookupFlag::Beneath},
      {abi::kRESOLVE_IN_ROOT, LookupFlag::InRoot}};
  for (const auto &[bit, flag] : bits) {
    if (how.resolve & bit) extra = extra | flag;
  }
  const std::string name = TRY(read_path(args.u64(1)));
  // With RESOLVE_IN_ROOT an absolute name starts at the descriptor too.
  const bool in_root = has(extra, LookupFlag::InRoot);
  const WalkContext walk = TRY(walk_from(task, args.fd(0), in_root ? "." : name));
  const auto flags = static_cast<std::uint32_t>(how.flags);
  Ref<File> file = TRY(open_path(walk, name, flags, static_cast<std::uint32_t>(how.mode), extra));
  return TRY(install_file(task, std::move(file), flags & abi::kO_CLOEXEC));
}

SysResult sys_read(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(readable_file(task, args.fd(0)));
  IovIter to = user_buffer(args.u64(1), args.u64(2));
  return read_at_position(*file, to);
}

SysResult sys_write(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(writable_file(task, args.fd(0)));
  IovIter from = user_buffer(args.u64(1), args.u64(2));
  return write_at_position(*file, from);
}

SysResult sys_readv(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(readable_file(task, args.fd(0)));
  IovIter to = TRY(read_iovec(args.u64(1), args.u64(2)));
  if (to.remaining() == 0) return 0;
  return read_at_position(*file, to);
}

SysResult sys_writev(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(writable_file(task, args.fd(0)));
  IovIter from = TRY(read_iovec(args.u64(1), args.u64(2)));
  if (from.remaining() == 0) return 0;
  return write_at_position(*file, from);
}

SysResult sys_pread64(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(readable_file(task, args.fd(0)));
  std::uint64_t offset = TRY(checked_offset(args.s64(3), *file));
  IovIter to = user_buffer(args.u64(1), args.u64(2));
  return static_cast<std::int64_t>(TRY(file->read(to, offset)));
}

SysResult sys_pwrite64(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(writable_file(task, args.fd(0)));
  std::uint64_t offset = TRY(checked_offset(args.s64(3), *file));
  IovIter from = user_buffer(args.u64(1), args.u64(2));
  const auto done = static_cast<std::int64_t>(TRY(file->write(from, offset)));
  TRY(sync_after_write(*file, false, false));
  return done;
}

SysResult sys_preadv(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(readable_file(task, args.fd(0)));
  std::uint64_t offset = TRY(checked_offset(args.s64(3), *file));
  IovIter to = TRY(read_iovec(args.u64(1), args.u64(2)));
  return static_cast<std::int64_t>(TRY(file->read(to, offset)));
}

SysResult sys_pwritev(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(writable_file(task, args.fd(0)));
  std::uint64_t offset = TRY(checked_offset(args.s64(3), *file));
  IovIter from = TRY(read_iovec(args.u64(1), args.u64(2)));
  const auto done = static_cast<std::int64_t>(TRY(file->write(from, offset)));
  TRY(sync_after_write(*file, false, false));
  return done;
}

SysResult sys_preadv2(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(readable_file(task, args.fd(0)));
  if (args.u32(5) & ~abi::kRWF_HIPRI) return Err(Errno::OpNotSupp);
  IovIter to = TRY(read_iovec(args.u64(1), args.u64(2)));
  if (args.s64(3) == -1) return read_at_position(*file, to);
  std::uint64_t offset = TRY(checked_offset(args.s64(3), *file));
  return static_cast<std::int64_t>(TRY(file->read(to, offset)));
}

SysResult sys_pwritev2(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(writable_file(task, args.fd(0)));
  const std::uint32_t flags = args.u32(5);
  if (flags & ~(abi::kRWF_HIPRI | abi::kRWF_DSYNC | abi::kRWF_SYNC)) return Err(Errno::OpNotSupp);
  IovIter from = TRY(read_iovec(args.u64(1), args.u64(2)));
  std::int64_t done = 0;
  if (args.s64(3) == -1) {
    done = TRY(write_at_position(*file, from));
  } else {
    std::uint64_t offset = TRY(checked_offset(args.s64(3), *file));
    done = static_cast<std::int64_t>(TRY(file->write(from, offset)));
  }
  TRY(sync_after_write(*file, flags & abi::kRWF_DSYNC, flags & abi::kRWF_SYNC));
  return done;
}

SysResult sys_lseek(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  const std::uint32_t whence = args.u32(2);
  if (whence > 4) return Err(Errno::Inval);
  const PositionLock locked(*file);
  return static_cast<std::int64_t>(TRY(file->seek(args.s64(1), static_cast<Whence>(whence))));
}

SysResult sys_close(Task &task, const SysArgs &args) {
  auto closed = task.files->close(args.fd(0), task);
  // The descriptor is gone, so the call must not be made again.
  if (!closed && (closed.is(Errno::RestartSys) || closed.is(Errno::RestartNoHand) ||
                  closed.is(Errno::RestartNoIntr)))
    return Err(Errno::Intr);
  TRY(closed);
  return 0;
}

SysResult sys_close_range(Task &task, const SysArgs &args) {
  const std::uint32_t first = args.u32(0), last = args.u32(1), flags = args.u32(2);
  if ((flags & ~(abi::kCLOSE_RANGE_UNSHARE | abi::kCLOSE_RANGE_CLOEXEC)) || first > last)
    return Err(Errno::Inval);
  if ((flags & abi::kCLOSE_RANGE_UNSHARE) && task.files->ref_count() > 1)
    task.files = task.files->clone();
  for (const int fd : task.files->list()) {
    const auto number = static_cast<std::uint32_t>(fd);
    if (number < first || number > last) continue;
    if (flags & abi::kCLOSE_RANGE_CLOEXEC) {
      TRY(task.files->set_close_on_exec(fd, true));
    } else {
      (void)task.files->close(fd, task);  // close_range(2): errors of closing are not told
    }
  }
  return 0;
}

SysResult sys_fsync(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TRY(file->fsync(false));
  return 0;
}

SysResult sys_fdatasync(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TRY(file->fsync(true));
  return 0;
}

SysResult sys_sync(Task &, const SysArgs &) {
  sync_all();
  return 0;
}

SysResult sys_syncfs(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  if (file->inode) TRY(file->inode->sb().sync());
  return 0;
}

SysResult sys_sync_file_range(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  const std::int64_t offset = args.s64(1), length = args.s64(2);
  std::int64_t end = 0;
  if ((args.u32(3) & ~7u) || offset < 0 || length < 0 ||
      __builtin_add_overflow(offset, length, &end))
    return Err(Errno::Inval);
  if (!file->inode) return Err(Errno::SPipe);
  if (PageCache *cache = file->inode->page_cache()) {
    if (args.u32(3) == 0 || cache->is_memory_only()) return 0;
    TRY(cache->write_back(static_cast<std::uint64_t>(offset),
                          length == 0 ? ~0ull : static_cast<std::uint64_t>(end)));
    return 0;
  }
  return Err(Errno::SPipe);
}

SysResult sys_truncate(Task &task, const SysArgs &args) {
  if (args.s64(1) < 0) return Err(Errno::Inval);
  const Path path = TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(0), LookupFlag::Follow));
  TRY(truncate_path(path, args.u64(1), task.credentials));
  return 0;
}

SysResult sys_ftruncate(Task &task, const SysArgs &args) {
  if (args.s64(1) < 0) return Err(Errno::Inval);
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  if (!file->writable()) return Err(Errno::Inval);
  TRY(file->truncate(args.u64(1)));
  return 0;
}

SysResult sys_fallocate(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(writable_file(task, args.fd(0)));
  const std::int64_t offset = args.s64(2), length = args.s64(3);
  std::int64_t end = 0;
  if (offset < 0 || length <= 0) return Err(Errno::Inval);
  if (__builtin_add_overflow(offset, length, &end)) return Err(Errno::FBig);
  if (file->inode && file->inode->type() == FileType::Fifo) return Err(Errno::SPipe);
  if (file->inode && file->inode->is_directory()) return Err(Errno::IsDir);
  TRY(file->fallocate(args.s32(1), args.u64(2), args.u64(3)));
  return 0;
}

SysResult sys_fadvise64(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  if (file->inode && file->inode->type() == FileType::Fifo) return Err(Errno::SPipe);
  if (args.s64(2) < 0 || args.u32(3) > 5) return Err(Errno::Inval);
  constexpr std::uint32_t kDontNeed = 4;
  PageCache *cache = file->inode ? file->inode->page_cache() : nullptr;
  if (args.u32(3) == kDontNeed && cache && !cache->is_memory_only()) {
    TRY(cache->write_back(0, ~0ull));
    cache->drop_clean(cache->cached_pages());
  }
  return 0;
}

SysResult sys_readahead(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(readable_file(task, args.fd(0)));
  PageCache *cache = file->inode ? file->inode->page_cache() : nullptr;
  if (!cache || args.s64(1) < 0) return Err(Errno::Inval);
  const Ref<PageCache> held(cache);
  const std::uint64_t end =
      std::min(cache->size(), args.u64(1) + std::min<std::uint64_t>(args.u64(2), 2 * kMiB));
  for (std::uint64_t at = page_down(args.u64(1)); at < end; at += kPageSize) {
    auto page = cache->get_page(at >> kPageShift);
    if (!page) break;  // reading ahead is a wish
    phys().put(*page);
  }
  return 0;
}

}  // namespace cowbird
