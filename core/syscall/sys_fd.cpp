// System calls on descriptors: dup, fcntl, flock, ioctl.
#include <deque>
#include <memory>

#include "abi/ioctl.hpp"
#include "abi/poll.hpp"
#include "syscall/file_args.hpp"
#include "vfs/caller.hpp"
#include "vfs/file_lock.hpp"
#include "vfs/pipe.hpp"

namespace cowbird {

namespace {

// O_ASYNC: sits on the file's queues as a poller does, and sends the signal.
class AsyncWatch final : public PollTable {
 public:
  AsyncWatch(File &file, int fd) : file_(file), fd_(fd) { file.poll(this); }
  void wait(WaitQueue &queue) override {
    entries_.emplace_back(&AsyncWatch::on_wake, this);
    queue.add(entries_.back());
  }

 private:
  static bool on_wake(WaitEntry &entry, std::uint32_t events) {
    auto *self = static_cast<AsyncWatch *>(entry.data());
    if (self->file_.async_owner != 0) {
      const File &file = self->file_;
      caller::send_io_signal({file.async_owner, file.async_signal, self->fd_,
                              events ? events : abi::kPOLLIN, file.async_uid, file.async_euid});
    }
    return false;
  }
  File &file_;  // owns this
  int fd_;
  std::deque<WaitEntry> entries_;
};

// Pipes, sockets and terminals. Others keep the flag without an effect, as on Linux; and a signalfd
// (or an epoll of one) is woken by signals, each of which would bring the next.
bool can_be_async(const File &file) {
  if (!file.inode) return false;
  const FileType type = file.inode->type();
  return type == FileType::Fifo || type == FileType::Socket || type == FileType::CharDevice;
}

void set_async(File &file, int fd, bool on) {
  if (on && !file.async_watch && can_be_async(file)) {
    file.async_watch = std::make_shared<AsyncWatch>(file, fd);
  } else if (!on) {
    file.async_watch.reset();
  }
}

// Files of the page cache, block devices, and pipes, which then keep packets apart.
bool can_be_direct(const File &file) {
  if (!file.inode) return false;
  const FileType type = file.inode->type();
  return type == FileType::Fifo || type == FileType::BlockDevice ||
         (file.inode->is_regular() && file.inode->page_cache());
}

// memfd_create(2) and tmpfs.
bool can_be_sealed(const File &file) {
  return file.inode && file.inode->is_regular() && file.inode->page_cache() &&
         file.inode->page_cache()->is_memory_only();
}

Result<void> set_status_flags(File &file, int fd, std::uint32_t wanted) {
  constexpr std::uint32_t kChangeable =
      abi::kO_APPEND | abi::kO_NONBLOCK | abi::kO_ASYNC | abi::kO_DIRECT | abi::kO_NOATIME;
  if ((wanted & abi::kO_NOATIME) && !(file.flags() & abi::kO_NOATIME)) {
    const Credentials &credentials = caller::credentials();
    if (file.inode && file.inode->uid != credentials.fsuid &&
        !credentials.capable(Capability::Fowner))
      return Err(Errno::Perm);
  }
  if ((wanted & abi::kO_DIRECT) && !can_be_direct(file)) return Err(Errno::Inval);
  set_async(file, fd, wanted & abi::kO_ASYNC);
  file.set_flags((file.flags() & ~kChangeable) | (wanted & kChangeable));
  return {};
}

// struct flock's range in bytes of the file. Inval, Overflow.
Result<RecordLock> decode_lock(const File &file, const abi::Flock &flock) {
  RecordLock lock;
  switch (flock.l_type) {
    case abi::kF_RDLCK:
      lock.kind = LockKind::Read;
      break;
    case abi::kF_WRLCK:
      lock.kind = LockKind::Write;
      break;
    case abi::kF_UNLCK:
      lock.kind = LockKind::Unlock;
      break;
    default:
      return Err(Errno::Inval);
  }
  std::int64_t base = 0;
  if (flock.l_whence == 1) {
    base = static_cast<std::int64_t>(file.position);
  } else if (flock.l_whence == 2) {
    base = file.inode ? static_cast<std::int64_t>(file.inode->size()) : 0;
  } else if (flock.l_whence != 0) {
    return Err(Errno::Inval);
  }
  std::int64_t start = 0, end = 0;
  if (__builtin_add_overflow(base, flock.l_start, &start)) return Err(Errno::Overflow);
  if (flock.l_len < 0) {
    end = start - 1;
    if (__builtin_add_overflow(start, flock.l_len, &start)) return Err(Errno::Inval);
  } else if (flock.l_len > 0) {
    if (__builtin_add_overflow(start, flock.l_len - 1, &end)) return Err(Errno::Overflow);
  }
  if (start < 0) return Err(Errno::Inval);
  lock.start = static_cast<std::uint64_t>(start);
  lock.end = flock.l_len == 0 ? ~0ull : static_cast<std::uint64_t>(end);
  return lock;
}

SysResult record_lock(Task &task, File &file, std::uint32_t command, UserPtr<abi::Flock> pointer) {
  const bool open_file_lock = command >= abi::kF_OFD_GETLK && command <= abi::kF_OFD_SETLKW;
  const FdTable *owner = open_file_lock ? nullptr : task.files.get();
  abi::Flock flock = TRY(pointer.read());
  if (open_file_lock && flock.l_pid != 0) return Err(Errno::Inval);
  const RecordLock wanted = TRY(decode_lock(file, flock));
  if (command == abi::kF_GETLK || command == abi::kF_OFD_GETLK) {
    if (wanted.kind == LockKind::Unlock) return Err(Errno::Inval);
    const RecordLock found = test_record_lock(file, owner, wanted);
    if (found.kind == LockKind::Unlock) {
      flock.l_type = abi::kF_UNLCK;
    } else {
      flock.l_type = found.kind == LockKind::Read ? abi::kF_RDLCK : abi::kF_WRLCK;
      flock.l_whence = 0;
      flock.l_start = static_cast<std::int64_t>(found.start);
      flock.l_len = found.end == ~0ull ? 0 : static_cast<std::int64_t>(found.end - found.start + 1);
      flock.l_pid = found.pid;
    }
    TRY(pointer.write(flock));
    return 0;
  }
  if (wanted.kind == LockKind::Read && !file.readable()) return Err(Errno::BadF);
  if (wanted.kind == LockKind::Write && !file.writable()) return Err(Errno::BadF);
  const bool wait = command == abi::kF_SETLKW || command == abi::kF_OFD_SETLKW;
  TRY(set_record_lock(file, owner, wanted, wait));
  return 0;
}

SysResult add_seals(File &file, std::uint32_t seals) {
  constexpr std::uint32_t kKnown = abi::kF_SEAL_SEAL | abi::kF_SEAL_SHRINK | abi::kF_SEAL_GROW |
                                   abi::kF_SEAL_WRITE | abi::kF_SEAL_FUTURE_WRITE;
  if (!file.writable()) return Err(Errno::Perm);
  if (seals & ~kKnown) return Err(Errno::Inval);
  if (file.inode->seals & abi::kF_SEAL_SEAL) return Err(Errno::Perm);
  if ((seals & abi::kF_SEAL_WRITE) && file.inode->page_cache() &&
      file.inode->page_cache()->has_shared_writable_mapping())
    return Err(Errno::Busy);
  file.inode->seals |= seals;
  return 0;
}

// `owner`: a process or thread, negative a process group, 0 nobody. Srch.
Result<void> set_owner(File &file, int owner) {
  bool found = owner == 0 || (owner > 0 && (find_task(owner) || find_process(owner)));
  if (owner < 0) for_each_in_group(-owner, [&](Process &) { found = true; });
  if (!found) return Err(Errno::Srch);
  file.async_owner = owner;
  file.async_uid = caller::credentials().uid;
  file.async_euid = caller::credentials().euid;
  return {};
}

SysResult set_owner_ex(File &file, UserPtr<abi::FOwnerEx> pointer) {
  const abi::FOwnerEx owner = TRY(pointer.read());
  if (owner.type < 0 || owner.type > 2 || owner.pid < 0) return Err(Errno::Inval);
  TRY(set_owner(file, owner.type == 2 ? -owner.pid : owner.pid));
  return 0;
}

SysResult pipe_size(Task &task, File &file, std::uint32_t command, std::uint64_t argument) {
  Pipe *pipe = pipe_of(file);
  if (!pipe) return Err(Errno::BadF);
  if (command == abi::kF_GETPIPE_SZ) return static_cast<std::int64_t>(pipe->capacity() * kPageSize);
  SleepLock locked(pipe->mutex());
  return static_cast<std::int64_t>(TRY(pipe->resize(argument & 0xffffffffu, task.credentials)));
}

SysResult fcntl_owner(File &file, std::uint32_t command, const SysArgs &args) {
  switch (command) {
    case abi::kF_SETOWN:
      if (args.s32(2) == INT32_MIN) return Err(Errno::Inval);
      TRY(set_owner(file, args.s32(2)));
      return 0;
    case abi::kF_GETOWN:
      return file.async_owner;
    case abi::kF_SETOWN_EX:
      return set_owner_ex(file, args.ptr<abi::FOwnerEx>(2));
    case abi::kF_GETOWN_EX: {
      const int owner = file.async_owner;
      TRY(args.ptr<abi::FOwnerEx>(2).write({owner < 0 ? 2 : 1, owner < 0 ? -owner : owner}));
      return 0;
    }
    case abi::kF_SETSIG:
      if (args.u64(2) > static_cast<std::uint64_t>(kSignalCount)) return Err(Errno::Inval);
      file.async_signal = args.s32(2);
      return 0;
    default:  // F_GETSIG
      return file.async_signal;
  }
}

SysResult duplicate(Task &task, Ref<File> file, int to, bool close_on_exec) {
  TRY(task.files->install_at(to, std::move(file), close_on_exec, task.process->limit(Limit::NoFile),
                             task));
  return to;
}

}  // namespace

SysResult sys_dup(Task &task, const SysArgs &args) {
  return TRY(install_file(task, TRY(task.files->get(args.fd(0), true)), false));
}

SysResult sys_dup2(Task &task, const SysArgs &args) {
  Ref<File> file = TRY(task.files->get(args.fd(0), true));
  if (args.fd(0) == args.fd(1)) return args.fd(1);
  return duplicate(task, std::move(file), args.fd(1), false);
}

SysResult sys_dup3(Task &task, const SysArgs &args) {
  if (args.u32(2) & ~abi::kO_CLOEXEC) return Err(Errno::Inval);
  if (args.fd(0) == args.fd(1)) return Err(Errno::Inval);
  Ref<File> file = TRY(task.files->get(args.fd(0), true));
  return duplicate(task, std::move(file), args.fd(1), args.u32(2) & abi::kO_CLOEXEC);
}

SysResult sys_fcntl(Task &task, const SysArgs &args) {
  const int fd = args.fd(0);
  const std::uint32_t command = args.u32(1);
  const Ref<File> file = TRY(task.files->get(fd, true));
  switch (command) {
    case abi::kF_DUPFD:
    case abi::kF_DUPFD_CLOEXEC: {
      const std::uint64_t limit = task.process->limit(Limit::NoFile);
      if (args.s32(2) < 0 || args.u32(2) >= limit) return Err(Errno::Inval);
      return TRY(install_file(task, file, command == abi::kF_DUPFD_CLOEXEC, args.s32(2)));
    }
    case abi::kF_GETFD:
      return TRY(task.files->close_on_exec(fd)) ? abi::kFD_CLOEXEC : 0;
    case abi::kF_SETFD:
      TRY(task.files->set_close_on_exec(fd, args.u32(2) & abi::kFD_CLOEXEC));
      return 0;
    case abi::kF_GETFL:
      return file->flags();
    default:
      break;
  }
  if (file->is_path_only()) return Err(Errno::BadF);
  switch (command) {
    case abi::kF_SETFL:
      TRY(set_status_flags(*file, fd, args.u32(2)));
      return 0;
    case abi::kF_GETLK:
    case abi::kF_SETLK:
    case abi::kF_SETLKW:
    case abi::kF_OFD_GETLK:
    case abi::kF_OFD_SETLK:
    case abi::kF_OFD_SETLKW:
      return record_lock(task, *file, command, args.ptr<abi::Flock>(2));
    case abi::kF_SETOWN:
    case abi::kF_GETOWN:
    case abi::kF_SETOWN_EX:
    case abi::kF_GETOWN_EX:
    case abi::kF_SETSIG:
    case abi::kF_GETSIG:
      return fcntl_owner(*file, command, args);
    case abi::kF_SETPIPE_SZ:
    case abi::kF_GETPIPE_SZ:
      return pipe_size(task, *file, command, args.u64(2));
    case abi::kF_ADD_SEALS:
      if (!can_be_sealed(*file)) return Err(Errno::Inval);
      return add_seals(*file, args.u32(2));
    case abi::kF_GET_SEALS:
      if (!can_be_sealed(*file)) return Err(Errno::Inval);
      return file->inode->seals;
    case abi::kF_GETLEASE:
      return abi::kF_UNLCK;  // nobody has one
    default:
      return Err(Errno::Inval);
  }
}

SysResult sys_flock(Task &task, const SysArgs &args) {
  constexpr std::int32_t kLockMand = 32;  // mandatory share locks, which Linux has given up
  if (args.s32(1) & kLockMand) return 0;
  const bool wait = !(args.s32(1) & abi::kLOCK_NB);
  LockKind kind;
  switch (args.s32(1) & ~abi::kLOCK_NB) {
    case abi::kLOCK_SH:
      kind = LockKind::Read;
      break;
    case abi::kLOCK_EX:
      kind = LockKind::Write;
      break;
    case abi::kLOCK_UN:
      kind = LockKind::Unlock;
      break;
    default:
      return Err(Errno::Inval);
  }
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TRY(flock_file(*file, kind, wait));
  return 0;
}

SysResult sys_ioctl(Task &task, const SysArgs &args) {
  const int fd = args.fd(0);
  const std::uint32_t command = args.u32(1);
  const Ref<File> file = TRY(task.files->get(fd));
  switch (command) {
    case abi::kFIOCLEX:
    case abi::kFIONCLEX:
      TRY(task.files->set_close_on_exec(fd, command == abi::kFIOCLEX));
      return 0;
    case abi::kFIONBIO:
    case abi::kFIOASYNC: {
      const std::uint32_t bit = command == abi::kFIONBIO ? abi::kO_NONBLOCK : abi::kO_ASYNC;
      const bool on = TRY(args.ptr<std::int32_t>(2).read()) != 0;
      TRY(set_status_flags(*file, fd, on ? file->flags() | bit : file->flags() & ~bit));
      return 0;
    }
    case abi::kFIONREAD:
      if (file->inode && file->inode->is_regular()) {
        const auto left = static_cast<std::int64_t>(file->inode->size()) -
                          static_cast<std::int64_t>(file->position);
        TRY(args.ptr<std::int32_t>(2).write(static_cast<std::int32_t>(left)));
        return 0;
      }
      break;
    case abi::kFIGETBSZ: {
      std::uint64_t bytes = kPageSize;  // of what lives in memory, as pipes do
      if (file->inode) bytes = TRY(file->inode->sb().statfs()).block_size;
      if (bytes == 0) return Err(Errno::Inval);
      TRY(args.ptr<std::int32_t>(2).write(static_cast<std::int32_t>(bytes)));
      return 0;
    }
    case abi::kFIOQSIZE:
      if (file->inode && (file->inode->is_regular() || file->inode->is_directory())) {
        TRY(args.ptr<std::int64_t>(2).write(static_cast<std::int64_t>(file->inode->size())));
        return 0;
      }
      break;
    default:
      break;
  }
  return file->ioctl(task, command, args.u64(2));
}

}  // namespace cowbird
