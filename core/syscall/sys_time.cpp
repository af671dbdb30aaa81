// System calls about clocks and sleeping.
#include <algorithm>

#include "abi/resource.hpp"
#include "proc/itimer.hpp"
#include "proc/proc_internal.hpp"
#include "sched/scheduler.hpp"
#include "sched/wait.hpp"
#include "syscall/syscall.hpp"
#include "syscall/times.hpp"

namespace cowbird {
namespace {

// The low bits of a CPU clock's id (clock_getcpuclockid(3)): what is measured, and of whom.
constexpr int kCpuClockWhich = 3;
constexpr int kCpuClockPerThread = 4;
constexpr int kCpuProf = 0, kCpuVirt = 1, kCpuSched = 2;
// The resolution of the coarse clocks and of times(2).
constexpr std::int64_t kCoarseNs = 4 * kNsPerMs;

abi::Timezone timezone_setting{};

Result<std::int64_t> pick(int which, std::int64_t user_ns, std::int64_t system_ns) {
  switch (which) {
    case kCpuVirt:
      return user_ns;
    case kCpuProf:
    case kCpuSched:
      return user_ns + system_ns;
    default:
      return Err(Errno::Inval);
  }
}

// Clocks with negative numbers: the CPU time of a process or of a thread of one's own process.
Result<std::int64_t> read_cpu_clock(Task &task, int clock_id) {
  const int which = clock_id & kCpuClockWhich;
  const int number = ~(clock_id >> 3);
  if ((clock_id & kCpuClockPerThread) != 0) {
    const Ref<Task> other = number == 0 ? Ref<Task>(&task) : find_task(number);
    if (!other || other->process != task.process) return Err(Errno::Inval);
    scheduler::update_cpu_times();
    return pick(which, other->user_ns, other->system_ns);
  }
  const Ref<Process> process = number == 0 ? task.process : find_process(number);
  if (!process) return Err(Errno::Inval);
  const ResourceUsage usage = process->total_usage();
  return pick(which, usage.user_ns, usage.system_ns);
}

bool can_sleep_on(int clock_id) {
  switch (clock_id) {
    case abi::kCLOCK_REALTIME:
    case abi::kCLOCK_MONOTONIC:
    case abi::kCLOCK_BOOTTIME:
    case abi::kCLOCK_REALTIME_ALARM:
    case abi::kCLOCK_BOOTTIME_ALARM:
    case abi::kCLOCK_TAI:
      return true;
    default:
      return false;
  }
}

bool is_realtime(int clock_id) {
  return clock_id == abi::kCLOCK_REALTIME || clock_id == abi::kCLOCK_REALTIME_ALARM ||
         clock_id == abi::kCLOCK_TAI || clock_id == abi::kCLOCK_REALTIME_COARSE;
}

// Sleeps to the deadline; a relative sleep reports what was left and can go on.
Result<std::int64_t> sleep_relative(Task &task, std::int64_t deadline, VirtAddr remaining) {
  for (;;) {
    if (clock::monotonic_ns() >= deadline) return 0;
    const auto slept = sleep_until(deadline, SleepMode::Interruptible, "hrtimer_nanosleep");
    if (slept.is(Errno::TimedOut)) return 0;
    if (slept) continue;
    const std::int64_t left = deadline - clock::monotonic_ns();
    if (left <= 0) return 0;
    if (remaining != 0) TRY(UserPtr<abi::Timespec>(remaining).write(to_timespec(left)));
    task.restart = [deadline, remaining](Task &self) {
      return sleep_relative(self, deadline, remaining);
    };
    return Err(Errno::RestartBlock);
  }
}

Result<std::int64_t> sleep_absolute(std::int64_t wanted, bool realtime) {
  for (;;) {
    // Looked at anew each time: the clock may be set while somebody sleeps.
    const std::int64_t deadline = realtime ? wanted - clock::realtime_offset_ns() : wanted;
    if (clock::monotonic_ns() >= deadline) return 0;
    const auto slept = sleep_until(deadline, SleepMode::Interruptible, "hrtimer_nanosleep");
    if (!slept && !slept.is(Errno::TimedOut)) return Err(Errno::RestartNoHand);
  }
}

// CPU time passes only while somebody else runs, so this looks again and again.
Result<std::int64_t> sleep_on_cpu_clock(Task &task, int clock_id, std::int64_t until) {
  constexpr std::int64_t kLook = 2 * kNsPerMs;
  for (;;) {
    const std::int64_t left = until - TRY(read_cpu_clock(task, clock_id));
    if (left <= 0) return 0;
    const auto slept = sleep_until(deadline_after(std::max(left, kLook)), SleepMode::Interruptible,
                                   "cpu_nanosleep");
    if (!slept && !slept.is(Errno::TimedOut)) return Err(Errno::RestartNoHand);
  }
}

Result<void> may_set_time(const Task &task) {
  if (!task.credentials.capable(Capability::SysTime)) return Err(Errno::Perm);
  return {};
}

SysResult read_timex(VirtAddr address) {
  auto timex = TRY(UserPtr<abi::Timex>(address).read());
  // This clock follows the host's and is not disciplined from inside.
  if (timex.modes != 0) return Err(Errno::OpNotSupp);
  timex = abi::Timex{};
  timex.status = abi::kSTA_UNSYNC;
  timex.maxerror = timex.esterror = 16'000'000;
  timex.precision = 1;
  timex.tolerance = 500ll << 16;
  timex.tick = 10'000;
  timex.time = to_timeval(clock::realtime_ns());
  TRY(UserPtr<abi::Timex>(address).write(timex));
  return abi::kTIME_ERROR;
}

}  // namespace

Result<std::int64_t> read_clock(Task &task, int clock_id) {
  if (clock_id < 0) return read_cpu_clock(task, clock_id);
  switch (clock_id) {
    case abi::kCLOCK_REALTIME:
    case abi::kCLOCK_REALTIME_COARSE:
    case abi::kCLOCK_REALTIME_ALARM:
    case abi::kCLOCK_TAI:
      return clock::realtime_ns();
    case abi::kCLOCK_MONOTONIC:
    case abi::kCLOCK_MONOTONIC_RAW:
    case abi::kCLOCK_MONOTONIC_COARSE:
    case abi::kCLOCK_BOOTTIME:
    case abi::kCLOCK_BOOTTIME_ALARM:
      return clock::monotonic_ns();
    case abi::kCLOCK_PROCESS_CPUTIME_ID:
      return process_cpu_ns(*task.process);
    case abi::kCLOCK_THREAD_CPUTIME_ID:
      scheduler::update_cpu_times();
      return task.user_ns + task.system_ns;
    default:
      return Err(Errno::Inval);
  }
}

SysResult sys_clock_gettime(Task &task, const SysArgs &args) {
  const std::int64_t now = TRY(read_clock(task, args.s32(0)));
  TRY(args.ptr<abi::Timespec>(1).write(to_timespec(now)));
  return 0;
}

SysResult sys_clock_getres(Task &task, const SysArgs &args) {
  TRY(read_clock(task, args.s32(0)));
  const bool coarse =
      args.s32(0) == abi::kCLOCK_REALTIME_COARSE || args.s32(0) == abi::kCLOCK_MONOTONIC_COARSE;
  if (args.u64(1) != 0) {
    TRY(args.ptr<abi::Timespec>(1).write(to_timespec(coarse ? kCoarseNs : 1)));
  }
  return 0;
}

SysResult sys_clock_settime(Task &task, const SysArgs &args) {
  if (args.s32(0) != abi::kCLOCK_REALTIME) return Err(Errno::Inval);
  const std::int64_t ns = TRY(to_ns(TRY(args.ptr<abi::Timespec>(1).read())));
  TRY(may_set_time(task));
  clock::set_realtime(ns);
  return 0;
}

SysResult sys_clock_nanosleep(Task &task, const SysArgs &args) {
  const int clock_id = args.s32(0), flags = args.s32(1);
  const bool cpu = clock_id < 0 || clock_id == abi::kCLOCK_PROCESS_CPUTIME_ID;
  if (clock_id == abi::kCLOCK_THREAD_CPUTIME_ID) return Err(Errno::Inval);
  if (!cpu && !can_sleep_on(clock_id))
    return Err(TRY(read_clock(task, clock_id)) >= 0 ? Errno::OpNotSupp : Errno::Inval);
  if ((flags & ~abi::kTIMER_ABSTIME) != 0) return Err(Errno::Inval);
  const std::int64_t ns = TRY(to_ns(TRY(args.ptr<abi::Timespec>(2).read())));
  const bool absolute = (flags & abi::kTIMER_ABSTIME) != 0;
  if (cpu) {
    // -6 is the caller's process in the numbering of CPU clocks.
    const int id = clock_id < 0 ? clock_id : -6;
    return sleep_on_cpu_clock(task, id, absolute ? ns : TRY(read_cpu_clock(task, id)) + ns);
  }
  if (absolute) return sleep_absolute(ns, is_realtime(clock_id));
  return sleep_relative(task, deadline_after(ns), args.u64(3));
}

SysResult sys_nanosleep(Task &task, const SysArgs &args) {
  const std::int64_t ns = TRY(to_ns(TRY(args.ptr<abi::Timespec>(0).read())));
  return sleep_relative(task, deadline_after(ns), args.u64(1));
}

SysResult sys_time(Task &, const SysArgs &args) {
  const std::int64_t now = clock::realtime_ns() / kNsPerSec;
  if (args.u64(0) != 0) TRY(args.ptr<std::int64_t>(0).write(now));
  return now;
}

SysResult sys_gettimeofday(Task &, const SysArgs &args) {
  if (args.u64(0) != 0) TRY(args.ptr<abi::Timeval>(0).write(to_timeval(clock::realtime_ns())));
  if (args.u64(1) != 0) TRY(args.ptr<abi::Timezone>(1).write(timezone_setting));
  return 0;
}

SysResult sys_settimeofday(Task &task, const SysArgs &args) {
  std::int64_t ns = 0;
  if (args.u64(0) != 0) ns = TRY(to_ns(TRY(args.ptr<abi::Timeval>(0).read())));
  abi::Timezone zone = timezone_setting;
  if (args.u64(1) != 0) zone = TRY(args.ptr<abi::Timezone>(1).read());
  TRY(may_set_time(task));
  if (zone.minuteswest > 15 * 60 || zone.minuteswest < -15 * 60) return Err(Errno::Inval);
  timezone_setting = zone;
  if (args.u64(0) != 0) clock::set_realtime(ns);
  return 0;
}

SysResult sys_adjtimex(Task &, const SysArgs &args) { return read_timex(args.u64(0)); }

SysResult sys_clock_adjtime(Task &, const SysArgs &args) {
  if (args.s32(0) != abi::kCLOCK_REALTIME) return Err(Errno::OpNotSupp);
  return read_timex(args.u64(1));
}

SysResult sys_times(Task &task, const SysArgs &args) {
  constexpr std::int64_t kTick = kNsPerSec / abi::kUSER_HZ;
  const ResourceUsage own = task.process->total_usage();
  const ResourceUsage &children = task.process->children_usage;
  if (args.u64(0) != 0) {
    TRY(args.ptr<abi::Tms>(0).write({own.user_ns / kTick, own.system_ns / kTick,
                                     children.user_ns / kTick, children.system_ns / kTick}));
  }
  return clock::monotonic_ns() / kTick;
}

}  // namespace cowbird
