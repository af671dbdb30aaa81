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

// Reads and counts for /proc/PID/io; the same for writes.
Result<std::uint64_t> counted_read(File &file, IovIter &to, std::uint64_t &offset) {
  auto done = file.read(to, offset);
  IoCounters &io = current_task().io;
  ++io.read_calls;
  if (done) io.read_bytes += *done;
  return done;
}
Result<std::uint64_t> counted_write(File &file, IovIter &from, std::uint64_t &offset) {
  auto done = file.write(from, offset);
  IoCounters &io = current_task().io;
  ++io.write_calls;
  if (done) io.written_bytes += *done;
  return done;
}

SysResult read_at_position(File &file, IovIter &to) {
  const PositionLock locked(file);
  if (file.seekable()) TRY(check_range(file.position, to.remaining()));
  return static_cast<std::int64_t>(TRY(counted_read(file, to, file.position)));
}

SysResult write_at_position(File &file, IovIter &from) {
  const PositionLock locked(file);
  if (file.seekable()) TRY(check_range(file.position, from.remaining()));
  const auto done = static_cast<std::int64_t>(TRY(counted_write(file, from, file.position)));
  TRY(sync_after_write(file, false, false));
  return done;
}

// The file of pread, pwrite and their kin. In this order: Inval, BadF (no such descriptor), SPipe.
Result<Ref<File>> file_with_offset(Task &task, int fd, std::int64_t offset) {
  if (offset < 0) return Err(Errno::Inval);
  Ref<File> file = TRY(task.files->get(fd));
  if (!file->seekable()) return Err(Errno::SPipe);
  return file;
}

SysResult read_at(File &file, IovIter &to, std::uint64_t offset) {
  TRY(check_range(offset, to.remaining()));
  return static_cast<std::int64_t>(TRY(counted_read(file, to, offset)));
}

SysResult write_at(File &file, IovIter &from, std::uint64_t offset) {
  TRY(check_range(offset, from.remaining()));
  const auto done = static_cast<std::int64_t>(TRY(counted_write(file, from, offset)));
  TRY(sync_after_write(file, false, false));
  return done;
}

// preadv2 and pwritev2 use the file's own position for the offset -1.
Result<Ref<File>> file_with_offset_or_position(Task &task, int fd, std::int64_t offset) {
  return offset == -1 ? task.files->get(fd) : file_with_offset(task, fd, offset);
}

// fallocate(2)'s combinations: OpNotSupp, Inval.
Result<void> check_fallocate_mode(std::uint32_t mode) {
  constexpr std::uint32_t kKeepSize = 1, kPunchHole = 2, kCollapse = 8, kZero = 0x10,
                          kInsert = 0x20, kUnshare = 0x40;
  constexpr std::uint32_t kKnown = kKeepSize | kPunchHole | kCollapse | kZero | kInsert | kUnshare;
  if (mode & ~kKnown) return Err(Errno::OpNotSupp);
  if ((mode & (kPunchHole | kZero)) == (kPunchHole | kZero)) return Err(Errno::OpNotSupp);
  if ((mode & kPunchHole) && !(mode & kKeepSize)) return Err(Errno::OpNotSupp);
  if ((mode & kCollapse) && mode != kCollapse) return Err(Errno::Inval);
  if ((mode & kInsert) && mode != kInsert) return Err(Errno::Inval);
  if ((mode & kUnshare) && (mode & ~(kUnshare | kKeepSize))) return Err(Errno::Inval);
  return {};
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
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TRY(check_readable(*file));
  IovIter to = TRY(user_buffer(args.u64(1), args.u64(2)));
  return read_at_position(*file, to);
}

SysResult sys_write(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TRY(check_writable(*file));
  IovIter from = TRY(user_buffer(args.u64(1), args.u64(2)));
  return write_at_position(*file, from);
}

SysResult sys_readv(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TRY(check_readable(*file));
  IovIter to = TRY(read_iovec(args.u64(1), args.u64(2)));
  if (to.remaining() == 0) return 0;
  return read_at_position(*file, to);
}

SysResult sys_writev(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TRY(check_writable(*file));
  IovIter from = TRY(read_iovec(args.u64(1), args.u64(2)));
  if (from.remaining() == 0) return 0;
  return write_at_position(*file, from);
}

SysResult sys_pread64(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(file_with_offset(task, args.fd(0), args.s64(3)));
  TRY(check_readable(*file));
  IovIter to = TRY(user_buffer(args.u64(1), args.u64(2)));
  return read_at(*file, to, args.u64(3));
}

SysResult sys_pwrite64(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(file_with_offset(task, args.fd(0), args.s64(3)));
  TRY(check_writable(*file));
  IovIter from = TRY(user_buffer(args.u64(1), args.u64(2)));
  return write_at(*file, from, args.u64(3));
}

SysResult sys_preadv(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(file_with_offset(task, args.fd(0), args.s64(3)));
  TRY(check_readable(*file));
  IovIter to = TRY(read_iovec(args.u64(1), args.u64(2)));
  if (to.remaining() == 0) return 0;
  return read_at(*file, to, args.u64(3));
}

SysResult sys_pwritev(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(file_with_offset(task, args.fd(0), args.s64(3)));
  TRY(check_writable(*file));
  IovIter from = TRY(read_iovec(args.u64(1), args.u64(2)));
  if (from.remaining() == 0) return 0;
  return write_at(*file, from, args.u64(3));
}

SysResult sys_preadv2(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(file_with_offset_or_position(task, args.fd(0), args.s64(3)));
  TRY(check_readable(*file));
  IovIter to = TRY(read_iovec(args.u64(1), args.u64(2)));
  if (to.remaining() == 0) return 0;
  if (args.u32(5) & ~abi::kRWF_HIPRI) return Err(Errno::OpNotSupp);
  if (args.s64(3) == -1) return read_at_position(*file, to);
  return read_at(*file, to, args.u64(3));
}

SysResult sys_pwritev2(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(file_with_offset_or_position(task, args.fd(0), args.s64(3)));
  TRY(check_writable(*file));
  IovIter from = TRY(read_iovec(args.u64(1), args.u64(2)));
  if (from.remaining() == 0) return 0;
  const std::uint32_t flags = args.u32(5);
  if (flags & ~(abi::kRWF_HIPRI | abi::kRWF_DSYNC | abi::kRWF_SYNC)) return Err(Errno::OpNotSupp);
  const std::int64_t done =
      TRY(args.s64(3) == -1 ? write_at_position(*file, from) : write_at(*file, from, args.u64(3)));
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
  const FileType type = file->inode ? file->inode->type() : FileType{};
  if (type != FileType::Regular && type != FileType::BlockDevice && type != FileType::Directory)
    return Err(Errno::SPipe);
  PageCache *cache = file->inode->page_cache();
  if (!cache || args.u32(3) == 0 || cache->is_memory_only()) return 0;
  TRY(cache->write_back(static_cast<std::uint64_t>(offset),
                        length == 0 ? ~0ull : static_cast<std::uint64_t>(end)));
  return 0;
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
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  const std::int64_t offset = args.s64(2), length = args.s64(3);
  if (offset < 0 || length <= 0) return Err(Errno::Inval);
  TRY(check_fallocate_mode(args.u32(1)));
  if (!file->writable()) return Err(Errno::BadF);
  const FileType type = file->inode ? file->inode->type() : FileType{};
  if (type == FileType::Fifo) return Err(Errno::SPipe);
  if (type == FileType::Directory) return Err(Errno::IsDir);
  if (type != FileType::Regular && type != FileType::BlockDevice) return Err(Errno::NoDev);
  std::int64_t end = 0;
  if (__builtin_add_overflow(offset, length, &end)) return Err(Errno::FBig);
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
  const FileType type = file->inode ? file->inode->type() : FileType{};
  if (type != FileType::Regular && type != FileType::BlockDevice) return Err(Errno::Inval);
  PageCache *cache = file->inode->page_cache();
  if (!cache || args.s64(1) < 0) return 0;
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
