// System calls about interval timers.
#include "abi/signal.hpp"
#include "abi/time.hpp"
#include "proc/itimer.hpp"
#include "syscall/syscall.hpp"
#include "syscall/times.hpp"

namespace cowbird {
namespace {

abi::Itimerval to_itimerval(const IntervalSetting &setting) {
  return {to_timeval(setting.interval_ns), to_timeval(setting.value_ns)};
}

bool is_interval_timer(int which) {
  return which >= abi::kITIMER_REAL && which <= abi::kITIMER_PROF;
}

Result<PosixTimer *> find_timer(Task &task, int id) {
  if (!task.process->itimers) return Err(Errno::Inval);
  auto &timers = task.process->itimers->posix;
  const auto entry = timers.find(id);
  if (entry == timers.end()) return Err(Errno::Inval);
  return entry->second.get();
}

struct ClockChoice {
  TimerClock clock;
  int cpu_tid = 0;
};

Result<ClockChoice> choose_clock(Task &task, int clock_id) {
  switch (clock_id) {
    case abi::kCLOCK_REALTIME:
    case abi::kCLOCK_TAI:
    case abi::kCLOCK_REALTIME_ALARM:
      return ClockChoice{TimerClock::Realtime};
    case abi::kCLOCK_MONOTONIC:
    case abi::kCLOCK_BOOTTIME:
    case abi::kCLOCK_BOOTTIME_ALARM:
      return ClockChoice{TimerClock::Monotonic};
    case abi::kCLOCK_PROCESS_CPUTIME_ID:
      return ClockChoice{TimerClock::ProcessCpu};
    case abi::kCLOCK_THREAD_CPUTIME_ID:
      return ClockChoice{TimerClock::ThreadCpu, task.tid};
    default:
      break;
  }
  if (clock_id >= 0)
    return Err(TRY(read_clock(task, clock_id)) >= 0 ? Errno::OpNotSupp : Errno::Inval);
  TRY(read_clock(task, clock_id));
  const int number = ~(clock_id >> 3);
  const bool per_thread = (clock_id & 4) != 0;
  if (per_thread) return ClockChoice{TimerClock::ThreadCpu, number == 0 ? task.tid : number};
  if (number != 0 && number != task.process->pid) return Err(Errno::Inval);
  return ClockChoice{TimerClock::ProcessCpu};
}

Result<void> fill_notification(Task &task, VirtAddr event_address, PosixTimer &timer) {
  if (event_address == 0) {
    timer.notify = abi::kSIGEV_SIGNAL;
    timer.signal = kSigAlrm;
    timer.value = static_cast<std::uint64_t>(timer.id);
    return {};
  }
  const auto event = TRY(UserPtr<abi::Sigevent>(event_address).read());
  timer.notify = event.notify;
  timer.signal = event.signo;
  timer.value = event.value;
  switch (event.notify) {
    case abi::kSIGEV_NONE:
      return {};
    case abi::kSIGEV_SIGNAL | abi::kSIGEV_THREAD_ID:
      timer.target = find_task(event.tid);
      if (!timer.target || timer.target->process != task.process) return Err(Errno::Inval);
      break;
    case abi::kSIGEV_SIGNAL:
    case abi::kSIGEV_THREAD:
      break;
    default:
      return Err(Errno::Inval);
  }
  if (event.signo < 1 || event.signo > kSignalCount) return Err(Errno::Inval);
  return {};
}

abi::Itimerspec current_setting(const Process &process, const PosixTimer &timer) {
  std::int64_t left = 0;
  if (timer.expiry_ns != 0) {
    left = timer.expiry_ns - timer_clock_now(process, timer);
    if (left <= 0 && timer.interval_ns != 0) {
      left = timer.interval_ns - (-left % timer.interval_ns);
    }
    // Armed is never told as disarmed; a one-shot timer without signal that is over is 0.
    if (left <= 0) left = timer.notify == abi::kSIGEV_NONE ? 0 : 1;
  }
  return {to_timespec(timer.interval_ns), to_timespec(left)};
}

}  // namespace

SysResult sys_getitimer(Task &task, const SysArgs &args) {
  if (!is_interval_timer(args.s32(0))) return Err(Errno::Inval);
  TRY(args.ptr<abi::Itimerval>(1).write(
      to_itimerval(get_interval_timer(*task.process, args.s32(0)))));
  return 0;
}

SysResult sys_setitimer(Task &task, const SysArgs &args) {
  if (!is_interval_timer(args.s32(0))) return Err(Errno::Inval);
  abi::Itimerval wanted{};
  if (args.u64(1) != 0) wanted = TRY(args.ptr<abi::Itimerval>(1).read());
  IntervalSetting setting;
  setting.interval_ns = TRY(to_ns(wanted.interval));
  setting.value_ns = TRY(to_ns(wanted.value));
  const IntervalSetting old = set_interval_timer(*task.process, args.s32(0), setting);
  if (args.u64(2) != 0) TRY(args.ptr<abi::Itimerval>(2).write(to_itimerval(old)));
  return 0;
}

SysResult sys_alarm(Task &task, const SysArgs &args) {
  IntervalSetting setting;
  setting.value_ns = std::int64_t{args.u32(0)} * kNsPerSec;
  const IntervalSetting old = set_interval_timer(*task.process, abi::kITIMER_REAL, setting);
  // Rounded to the next second, but never to 0 while it is armed.
  const std::int64_t seconds = (old.value_ns + kNsPerSec / 2) / kNsPerSec;
  return old.value_ns != 0 && seconds == 0 ? 1 : seconds;
}

SysResult sys_timer_create(Task &task, const SysArgs &args) {
  const ClockChoice choice = TRY(choose_clock(task, args.s32(0)));
  Process::Itimers &timers = task.process->timers();
  if (timers.posix.size() >= kMaxPosixTimers) return Err(Errno::Again);
  auto timer = std::make_unique<PosixTimer>();
  while (timers.posix.contains(timers.next_id)) {
    timers.next_id = timers.next_id == INT32_MAX ? 0 : timers.next_id + 1;
  }
  timer->id = timers.next_id;
  timer->clock_id = args.s32(0);
  timer->clock = choice.clock;
  timer->cpu_tid = choice.cpu_tid;
  TRY(fill_notification(task, args.u64(1), *timer));
  TRY(args.ptr<std::int32_t>(2).write(timer->id));
  const int id = timer->id;
  timers.next_id = id == INT32_MAX ? 0 : id + 1;
  timers.posix[id] = std::move(timer);
  return 0;
}

SysResult sys_timer_settime(Task &task, const SysArgs &args) {
  const auto wanted = TRY(args.ptr<abi::Itimerspec>(2).read());
  const std::int64_t interval = TRY(to_ns(wanted.interval));
  const std::int64_t value = TRY(to_ns(wanted.value));
  PosixTimer &timer = *TRY(find_timer(task, args.s32(0)));
  const abi::Itimerspec old = current_setting(*task.process, timer);
  std::int64_t expiry = 0;
  if (value != 0) {
    const bool absolute = (args.s32(1) & abi::kTIMER_ABSTIME) != 0;
    const std::int64_t now = absolute ? 0 : timer_clock_now(*task.process, timer);
    if (__builtin_add_overflow(now, value, &expiry)) expiry = INT64_MAX - 1;
  }
  timer.signal_queued = false;
  arm_posix_timer(*task.process, timer, expiry, value == 0 ? 0 : interval);
  if (args.u64(3) != 0) TRY(args.ptr<abi::Itimerspec>(3).write(old));
  return 0;
}

SysResult sys_timer_gettime(Task &task, const SysArgs &args) {
  const PosixTimer &timer = *TRY(find_timer(task, args.s32(0)));
  TRY(args.ptr<abi::Itimerspec>(1).write(current_setting(*task.process, timer)));
  return 0;
}

SysResult sys_timer_getoverrun(Task &task, const SysArgs &args) {
  return TRY(find_timer(task, args.s32(0)))->last_overrun;
}

SysResult sys_timer_delete(Task &task, const SysArgs &args) {
  TRY(find_timer(task, args.s32(0)));
  task.process->itimers->posix.erase(args.s32(0));
  update_cpu_timers(*task.process);
  return 0;
}

}  // namespace cowbird
