// System calls that wait for readiness: poll, select, epoll.
#include <algorithm>

#include "abi/epoll.hpp"
#include "abi/poll.hpp"
#include "syscall/file_args.hpp"
#include "syscall/times.hpp"
#include "vfs/epoll.hpp"
#include "vfs/poll.hpp"

namespace cowbird {

namespace {

// The signal mask that ppoll, pselect6 and epoll_pwait set while they wait.
class WaitMask {
 public:
  static Result<WaitMask> create(Task &task, std::uint64_t mask, std::uint64_t size) {
    WaitMask waiting(task);
    if (mask == 0) return waiting;
    if (size != sizeof(std::uint64_t)) return Err(Errno::Inval);
    const std::uint64_t bits = TRY(UserPtr<std::uint64_t>(mask).read());
    waiting.old_ = task.blocked;
    task.set_blocked(SignalSet(bits));
    return waiting;
  }
  // After the wait. A signal that came must be delivered under the wait's mask: its frame takes the
  // old one along.
  void finish(bool interrupted) {
    if (!old_) return;
    if (interrupted) {
      task_->saved_mask = old_;
    } else {
      task_->set_blocked(*old_);
    }
  }

 private:
  explicit WaitMask(Task &task) : task_(&task) {}
  Task *task_;
  std::optional<SignalSet> old_;
};

// Interrupted waits end with EINTR when a handler runs, whatever its SA_RESTART says (signal(7)).
Errno interrupted_wait(Errno error) {
  return error == Errno::RestartSys ? Errno::RestartNoHand : error;
}

// 0 is "do not sleep" to the wait functions.
std::int64_t deadline_of(std::int64_t relative_ns) {
  return relative_ns == 0 ? 0 : deadline_after(relative_ns);
}

Result<std::vector<abi::PollFd>> read_poll_fds(Task &task, std::uint64_t address,
                                               std::uint64_t count) {
  if (count > std::min<std::uint64_t>(task.process->limit(Limit::NoFile), FdTable::kMaxDescriptors))
    return Err(Errno::Inval);
  return UserPtr<abi::PollFd>(address).read_array(count);
}

Result<std::int64_t> poll_until(Task &task, std::uint64_t address, std::uint64_t count,
                                std::int64_t deadline) {
  std::vector<abi::PollFd> fds = TRY(read_poll_fds(task, address, count));
  std::vector<PollItem> items(fds.size());
  std::int64_t invalid = 0;
  for (std::size_t i = 0; i < fds.size(); ++i) {
    fds[i].revents = 0;
    if (fds[i].fd < 0) continue;
    auto file = task.files->get(fds[i].fd);
    if (!file) {
      fds[i].revents = static_cast<std::int16_t>(abi::kPOLLNVAL);
      ++invalid;
      continue;
    }
    items[i].file = *std::move(file);
    items[i].events = static_cast<std::uint16_t>(fds[i].events);
  }
  const std::size_t ready = TRY(poll_files(items, invalid > 0 ? 0 : deadline));
  for (std::size_t i = 0; i < fds.size(); ++i) {
    if (items[i].file) fds[i].revents = static_cast<std::int16_t>(items[i].revents);
    TRY(UserPtr<abi::PollFd>(address).at(i).write(fds[i]));
  }
  return static_cast<std::int64_t>(ready) + invalid;
}

// poll(2) after a stop goes on with the time that is left.
SysResult poll_restartable(Task &task, std::uint64_t address, std::uint64_t count,
                           std::int64_t deadline) {
  auto polled = poll_until(task, address, count, deadline);
  if (!polled.is(Errno::RestartSys)) return polled;
  task.restart = [=](Task &again) { return poll_restartable(again, address, count, deadline); };
  return Err(Errno::RestartBlock);
}

// --- select

using FdWords = std::vector<std::uint64_t>;

struct SelectSets {
  FdWords read, write, except;
};

Result<FdWords> read_set(std::uint64_t address, std::size_t words) {
  if (address == 0) return FdWords(words, 0);
  return UserPtr<std::uint64_t>(address).read_array(words);
}

bool in_set(const FdWords &set, std::size_t fd) { return (set[fd / 64] >> (fd % 64)) & 1; }

inline constexpr std::uint32_t kSelectRead =
    abi::kPOLLIN | abi::kPOLLRDNORM | abi::kPOLLRDBAND | abi::kPOLLHUP | abi::kPOLLERR;
inline constexpr std::uint32_t kSelectWrite =
    abi::kPOLLOUT | abi::kPOLLWRNORM | abi::kPOLLWRBAND | abi::kPOLLERR;

Result<std::int64_t> select_files(Task &task, std::size_t count, SelectSets &sets,
                                  std::int64_t deadline) {
  std::vector<PollItem> items;
  std::vector<std::size_t> numbers;
  for (std::size_t fd = 0; fd < count; ++fd) {
    std::uint32_t events = 0;
    if (in_set(sets.read, fd)) events |= kSelectRead;
    if (in_set(sets.write, fd)) events |= kSelectWrite;
    if (in_set(sets.except, fd)) events |= abi::kPOLLPRI;
    if (events == 0) continue;
    items.push_back({TRY(task.files->get(static_cast<int>(fd))), events, 0});
    numbers.push_back(fd);
  }
  // poll reports hang-ups and errors unasked; for select they count only in the sets they belong
  // to, which every asked-for read or write set does.
  TRY(poll_files(items, deadline));
  SelectSets out{FdWords(sets.read.size(), 0), FdWords(sets.read.size(), 0),
                 FdWords(sets.read.size(), 0)};
  std::int64_t bits = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::size_t fd = numbers[i];
    auto take = [&](const FdWords &asked, FdWords &result, std::uint32_t events) {
      if (!in_set(asked, fd) || !(items[i].revents & events)) return;
      result[fd / 64] |= 1ull << (fd % 64);
      ++bits;
    };
    take(sets.read, out.read, kSelectRead);
    take(sets.write, out.write, kSelectWrite);
    take(sets.except, out.except, abi::kPOLLPRI);
  }
  sets = std::move(out);
  return bits;
}

Result<std::int64_t> select_call(Task &task, const SysArgs &args, std::int64_t deadline) {
  if (args.s32(0) < 0) return Err(Errno::Inval);
  const std::vector<int> open = task.files->list();
  const std::size_t highest = open.empty() ? 0 : static_cast<std::size_t>(open.back()) + 1;
  // Bits above the highest descriptor are looked at in the words that hold open ones only, as the
  // kernel's table bounds them.
  const std::size_t count = std::min(static_cast<std::size_t>(args.s32(0)),
                                     std::max<std::size_t>((highest + 63) / 64 * 64, 64));
  const std::size_t words = (count + 63) / 64;
  SelectSets sets{TRY(read_set(args.u64(1), words)), TRY(read_set(args.u64(2), words)),
                  TRY(read_set(args.u64(3), words))};
  const std::int64_t bits = TRY(select_files(task, count, sets, deadline));
  const std::pair<std::uint64_t, const FdWords *> outputs[] = {
      {args.u64(1), &sets.read}, {args.u64(2), &sets.write}, {args.u64(3), &sets.except}};
  for (const auto &[address, set] : outputs) {
    if (address != 0) TRY(UserPtr<std::uint64_t>(address).write_array(*set));
  }
  return bits;
}

std::int64_t time_left(std::int64_t deadline) {
  return deadline == 0 ? 0 : std::max<std::int64_t>(0, deadline - clock::monotonic_ns());
}

// --- epoll

SysResult wait_for_events(Task &task, const SysArgs &args, std::int64_t deadline) {
  const std::int32_t max = args.s32(2);
  if (max <= 0 || static_cast<std::size_t>(max) > INT32_MAX / sizeof(abi::EpollEvent))
    return Err(Errno::Inval);
  const Ref<File> epoll = TRY(task.files->get(args.fd(0)));
  auto events = epoll_wait(*epoll, static_cast<std::size_t>(max), deadline);
  if (!events) return Err(interrupted_wait(events.error()));
  for (std::size_t i = 0; i < events->size(); ++i) {
    TRY(args.ptr<abi::EpollEvent>(1).at(i).write((*events)[i]));
  }
  return static_cast<std::int64_t>(events->size());
}

SysResult wait_for_events_masked(Task &task, const SysArgs &args, std::int64_t deadline) {
  WaitMask mask = TRY(WaitMask::create(task, args.u64(4), args.u64(5)));
  SysResult result = wait_for_events(task, args, deadline);
  mask.finish(result.is(Errno::RestartNoHand));
  return result;
}

std::int64_t milliseconds(std::int32_t ms) {
  return ms < 0 ? kNoDeadline : deadline_of(ms * kNsPerMs);
}

Result<std::int64_t> optional_deadline(UserPtr<abi::Timespec> pointer) {
  if (!pointer) return kNoDeadline;
  return deadline_of(TRY(to_ns(TRY(pointer.read()))));
}

}  // namespace

SysResult sys_poll(Task &task, const SysArgs &args) {
  return poll_restartable(task, args.u64(0), args.u64(1), milliseconds(args.s32(2)));
}

SysResult sys_ppoll(Task &task, const SysArgs &args) {
  const std::int64_t deadline = TRY(optional_deadline(args.ptr<abi::Timespec>(2)));
  WaitMask mask = TRY(WaitMask::create(task, args.u64(3), args.u64(4)));
  auto polled = poll_until(task, args.u64(0), args.u64(1), deadline);
  mask.finish(polled.is(Errno::RestartSys));
  if (args.u64(2) != 0 && deadline != kNoDeadline) {
    // The raw call tells what is left; that it cannot is no error of the wait.
    (void)args.ptr<abi::Timespec>(2).write(to_timespec(time_left(deadline)));
  }
  if (!polled) return Err(interrupted_wait(polled.error()));
  return polled;
}

SysResult sys_select(Task &task, const SysArgs &args) {
  std::int64_t deadline = kNoDeadline;
  if (args.u64(4) != 0) deadline = deadline_of(TRY(to_ns(TRY(args.ptr<abi::Timeval>(4).read()))));
  auto selected = select_call(task, args, deadline);
  if (args.u64(4) != 0) (void)args.ptr<abi::Timeval>(4).write(to_timeval(time_left(deadline)));
  if (!selected) return Err(interrupted_wait(selected.error()));
  return selected;
}

SysResult sys_pselect6(Task &task, const SysArgs &args) {
  const std::int64_t deadline = TRY(optional_deadline(args.ptr<abi::Timespec>(4)));
  abi::PselectMask user_mask{};
  if (args.u64(5) != 0) user_mask = TRY(args.ptr<abi::PselectMask>(5).read());
  WaitMask mask = TRY(WaitMask::create(task, user_mask.mask, user_mask.size));
  auto selected = select_call(task, args, deadline);
  mask.finish(selected.is(Errno::RestartSys));
  if (args.u64(4) != 0) (void)args.ptr<abi::Timespec>(4).write(to_timespec(time_left(deadline)));
  if (!selected) return Err(interrupted_wait(selected.error()));
  return selected;
}

SysResult sys_epoll_create(Task &task, const SysArgs &args) {
  if (args.s32(0) <= 0) return Err(Errno::Inval);
  return TRY(install_file(task, make_epoll(), false));
}

SysResult sys_epoll_create1(Task &task, const SysArgs &args) {
  if (args.u32(0) & ~abi::kEPOLL_CLOEXEC) return Err(Errno::Inval);
  return TRY(install_file(task, make_epoll(), args.u32(0) & abi::kEPOLL_CLOEXEC));
}

SysResult sys_epoll_ctl(Task &task, const SysArgs &args) {
  abi::EpollEvent event{};
  if (args.s32(1) != abi::kEPOLL_CTL_DEL) event = TRY(args.ptr<abi::EpollEvent>(3).read());
  const Ref<File> epoll = TRY(task.files->get(args.fd(0)));
  const Ref<File> target = TRY(task.files->get(args.fd(2)));
  TRY(epoll_control(*epoll, args.s32(1), args.fd(2), target, event));
  return 0;
}

SysResult sys_epoll_wait(Task &task, const SysArgs &args) {
  return wait_for_events(task, args, milliseconds(args.s32(3)));
}

SysResult sys_epoll_pwait(Task &task, const SysArgs &args) {
  return wait_for_events_masked(task, args, milliseconds(args.s32(3)));
}

SysResult sys_epoll_pwait2(Task &task, const SysArgs &args) {
  return wait_for_events_masked(task, args, TRY(optional_deadline(args.ptr<abi::Timespec>(3))));
}

}  // namespace cowbird
