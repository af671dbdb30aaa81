// System calls that make descriptors without a name: eventfd, timerfd, signalfd, memfd, inotify.
#include "abi/epoll.hpp"
#include "abi/inotify.hpp"
#include "abi/poll.hpp"
#include "abi/stat.hpp"
#include "abi/time.hpp"
#include "fs/tmpfs.hpp"
#include "syscall/file_args.hpp"
#include "syscall/times.hpp"
#include "vfs/dentry.hpp"
#include "vfs/eventfd.hpp"
#include "vfs/notify.hpp"

namespace cowbird {

namespace {

inline constexpr std::uint32_t kCommonFlags = abi::kO_CLOEXEC | abi::kO_NONBLOCK;

SysResult event_fd(Task &task, std::uint32_t initial, std::uint32_t flags) {
  if (flags & ~(kCommonFlags | abi::kEFD_SEMAPHORE)) return Err(Errno::Inval);
  return TRY(install_file(
      task, make_eventfd(initial, flags & abi::kEFD_SEMAPHORE, flags & abi::kO_NONBLOCK),
      flags & abi::kO_CLOEXEC));
}

abi::Itimerspec to_guest(const TimerSetting &setting) {
  return {to_timespec(setting.interval_ns), to_timespec(setting.value_ns)};
}

// --- signalfd

abi::SignalFdInfo to_guest(const SignalInfo &from) {
  abi::SignalFdInfo to{};
  to.ssi_signo = static_cast<std::uint32_t>(from.signal);
  to.ssi_errno = from.error;
  to.ssi_code = from.code;
  to.ssi_pid = static_cast<std::uint32_t>(from.pid);
  to.ssi_uid = from.uid;
  to.ssi_fd = from.fd;
  to.ssi_tid = static_cast<std::uint32_t>(from.timer_id);
  to.ssi_band = static_cast<std::uint32_t>(from.band);
  to.ssi_overrun = static_cast<std::uint32_t>(from.overrun);
  to.ssi_status = from.status;
  to.ssi_int = static_cast<std::int32_t>(from.value);
  to.ssi_ptr = from.value;
  to.ssi_utime = static_cast<std::uint64_t>(from.utime);
  to.ssi_stime = static_cast<std::uint64_t>(from.stime);
  to.ssi_addr = from.address;
  to.ssi_addr_lsb = from.address_lsb;
  to.ssi_syscall = from.syscall;
  to.ssi_call_addr = from.call_address;
  to.ssi_arch = from.arch;
  return to;
}

// Reads the signals of whoever reads, not of whoever made it (signalfd(2)).
class SignalFile final : public File {
 public:
  SignalFile(SignalSet set, std::uint32_t flags) : File(abi::kO_RDWR | flags), set_(set) {}
  void change(SignalSet set) {
    set_ = set;
    current_task().process->signalfd_wait.wake_all();
  }

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    if (to.remaining() < sizeof(abi::SignalFdInfo)) return Err(Errno::Inval);
    Task &task = current_task();
    std::uint64_t total = 0;
    while (to.remaining() >= sizeof(abi::SignalFdInfo)) {
      SignalInfo info;
      if (!take_signal(task, set_, info)) {
        if (total > 0) return total;
        if (nonblocking()) return Err(Errno::Again);
        TRY(wait_event(
            task.process->signalfd_wait, [&] { return has_pending(task); },
            SleepMode::Interruptible, "signalfd_read"));
        continue;
      }
      const abi::SignalFdInfo record = to_guest(info);
      TRY(to.copy_to(std::as_bytes(std::span(&record, 1))));
      total += sizeof record;
    }
    return total;
  }
  std::uint32_t poll(PollTable *table) override {
    Thread *thread = current_thread();
    Task *task = thread ? thread->as_task() : nullptr;
    if (!task) return 0;
    if (table) table->wait(task->process->signalfd_wait);
    return has_pending(*task) ? abi::kPOLLIN | abi::kPOLLRDNORM : 0;
  }
  bool can_write() const override { return false; }
  Result<std::uint64_t> seek(std::int64_t, Whence) override { return position; }
  std::string describe() const override { return "anon_inode:[signalfd]"; }

 private:
  bool has_pending(const Task &task) const {
    return !((task.pending.set() | task.process->pending.set()) & set_).empty();
  }
  SignalSet set_;
};

SysResult signal_fd(Task &task, int fd, std::uint64_t mask, std::uint64_t size,
                    std::uint32_t flags) {
  if (size != sizeof(std::uint64_t) || (flags & ~kCommonFlags)) return Err(Errno::Inval);
  SignalSet set(TRY(UserPtr<std::uint64_t>(mask).read()));
  set.remove(kSigKill);
  set.remove(kSigStop);
  if (fd == -1) {
    return TRY(install_file(task, make_ref<SignalFile>(set, flags & abi::kO_NONBLOCK),
                            flags & abi::kO_CLOEXEC));
  }
  const Ref<File> file = TRY(task.files->get(fd));
  auto *signals = dynamic_cast<SignalFile *>(file.get());
  if (!signals) return Err(Errno::Inval);
  signals->change(set);
  return fd;
}

}  // namespace

SysResult sys_eventfd(Task &task, const SysArgs &args) { return event_fd(task, args.u32(0), 0); }
SysResult sys_eventfd2(Task &task, const SysArgs &args) {
  return event_fd(task, args.u32(0), args.u32(1));
}

SysResult sys_timerfd_create(Task &task, const SysArgs &args) {
  if (args.u32(1) & ~kCommonFlags) return Err(Errno::Inval);
  TimerFdClock which;
  switch (args.s32(0)) {
    case abi::kCLOCK_REALTIME:
    case abi::kCLOCK_REALTIME_ALARM:
      which = TimerFdClock::Realtime;
      break;
    case abi::kCLOCK_MONOTONIC:
    case abi::kCLOCK_BOOTTIME:
    case abi::kCLOCK_BOOTTIME_ALARM:
      which = TimerFdClock::Monotonic;
      break;
    default:
      return Err(Errno::Inval);
  }
  return TRY(install_file(task, make_timerfd(which, args.u32(1) & abi::kO_NONBLOCK),
                          args.u32(1) & abi::kO_CLOEXEC));
}

SysResult sys_timerfd_settime(Task &task, const SysArgs &args) {
  if (args.u32(1) & ~abi::kTFD_TIMER_ABSTIME) return Err(Errno::Inval);
  const auto wanted = TRY(args.ptr<abi::Itimerspec>(2).read());
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TimerSetting setting;
  setting.value_ns = TRY(to_ns(wanted.value));
  setting.interval_ns = TRY(to_ns(wanted.interval));
  const TimerSetting old = TRY(timerfd_set(*file, args.u32(1) & abi::kTFD_TIMER_ABSTIME, setting));
  if (args.u64(3) != 0) TRY(args.ptr<abi::Itimerspec>(3).write(to_guest(old)));
  return 0;
}

SysResult sys_timerfd_gettime(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TRY(args.ptr<abi::Itimerspec>(1).write(to_guest(TRY(timerfd_get(*file)))));
  return 0;
}

SysResult sys_signalfd(Task &task, const SysArgs &args) {
  return signal_fd(task, args.fd(0), args.u64(1), args.u64(2), 0);
}
SysResult sys_signalfd4(Task &task, const SysArgs &args) {
  return signal_fd(task, args.fd(0), args.u64(1), args.u64(2), args.u32(3));
}

SysResult sys_memfd_create(Task &task, const SysArgs &args) {
  constexpr std::size_t kMaxName = 249;
  const std::uint32_t flags = args.u32(1);
  if (flags &
      ~(abi::kMFD_CLOEXEC | abi::kMFD_ALLOW_SEALING | abi::kMFD_NOEXEC_SEAL | abi::kMFD_EXEC))
    return Err(Errno::Inval);
  if ((flags & abi::kMFD_NOEXEC_SEAL) && (flags & abi::kMFD_EXEC)) return Err(Errno::Inval);
  auto name = copy_in_string(args.u64(0), kMaxName);
  if (!name) return Err(name.error() == Errno::NameTooLong ? Errno::Inval : name.error());
  const bool no_exec = flags & abi::kMFD_NOEXEC_SEAL;
  Ref<Inode> inode = TRY(make_memfd_inode(no_exec ? 0666 : 0777, task.credentials));
  if (flags & abi::kMFD_ALLOW_SEALING) inode->seals = 0;
  if (no_exec) inode->seals = abi::kF_SEAL_EXEC;
  Ref<File> file = TRY(inode->open(abi::kO_RDWR | abi::kO_LARGEFILE));
  file->credentials = task.credentials;
  name_anonymous_file(*file, "/memfd:" + *name + " (deleted)");
  return TRY(install_file(task, std::move(file), flags & abi::kMFD_CLOEXEC));
}

SysResult sys_inotify_init(Task &task, const SysArgs &) {
  return TRY(install_file(task, TRY(make_inotify(0)), false));
}
SysResult sys_inotify_init1(Task &task, const SysArgs &args) {
  if (args.u32(0) & ~kCommonFlags) return Err(Errno::Inval);
  return TRY(install_file(task, TRY(make_inotify(args.u32(0) & abi::kO_NONBLOCK)),
                          args.u32(0) & abi::kO_CLOEXEC));
}
SysResult sys_inotify_add_watch(Task &task, const SysArgs &args) {
  const std::uint32_t mask = args.u32(2);
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  const LookupFlag how = (mask & abi::kIN_DONT_FOLLOW) ? LookupFlag::None : LookupFlag::Follow;
  const Path path = TRY(lookup_at(task, abi::kAT_FDCWD, args.u64(1), how));
  return TRY(inotify_add_watch(*file, path, mask));
}
SysResult sys_inotify_rm_watch(Task &task, const SysArgs &args) {
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  TRY(inotify_remove_watch(*file, args.s32(1)));
  return 0;
}

}  // namespace cowbird
