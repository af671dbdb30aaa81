// System calls about scheduling: priorities, policies, affinity. The scheduler weighs time slices
// by niceness; policies and affinity are checked, kept and shown (docs/system-calls.md says so).
#include <algorithm>

#include "abi/resource.hpp"
#include "abi/sched.hpp"
#include "proc/proc_internal.hpp"
#include "sched/scheduler.hpp"
#include "syscall/syscall.hpp"

namespace cowbird {
namespace {

constexpr int kMinNice = -20, kMaxNice = 19;
constexpr int kMaxRealtimePriority = 99;
constexpr int kIoClassShift = 13;
constexpr int kIoClassRealtime = 1, kIoClassIdle = 3;
constexpr int kIoWhoProcess = 1, kIoWhoGroup = 2, kIoWhoUser = 3;

Result<Ref<Task>> task_or_self(Task &task, int tid) {
  if (tid < 0) return Err(Errno::Inval);
  if (tid == 0) return Ref<Task>(&task);
  Ref<Task> other = find_task(tid);
  if (!other) return Err(Errno::Srch);
  return other;
}

// As above for the calls about affinity, which only look for the number.
Result<Ref<Task>> affinity_target(Task &task, int tid) {
  if (tid < 0) return Err(Errno::Srch);
  return task_or_self(task, tid);
}

bool may_change(const Task &task, const Task &other) {
  return task.credentials.euid == other.credentials.euid ||
         task.credentials.euid == other.credentials.uid ||
         task.credentials.capable(Capability::SysNice);
}

// RLIMIT_NICE counts from 1 (nice 19) to 40 (nice -20).
bool may_raise_to(const Task &task, const Task &target, int nice) {
  if (nice >= target.nice) return true;
  const std::uint64_t limit = target.process->limit(Limit::Nice);
  return static_cast<std::uint64_t>(20 - nice) <= limit ||
         task.credentials.capable(Capability::SysNice);
}

Result<void> set_nice(Task &task, Task &target, int nice) {
  const bool same = task.credentials.euid == target.credentials.euid ||
                    task.credentials.euid == target.credentials.uid;
  if (!same && !task.credentials.capable(Capability::SysNice)) return Err(Errno::Perm);
  if (!may_raise_to(task, target, nice)) return Err(Errno::Access);
  target.nice = nice;
  return {};
}

// Calls `function` for the tasks that getpriority's `which` and `who` mean.
Result<void> for_each_target(Task &task, int which, int who,
                             const std::function<void(Task &)> &function) {
  switch (which) {
    case abi::kPRIO_PROCESS: {
      const Ref<Task> target = who == 0 ? Ref<Task>(&task) : find_task(who);
      if (target) function(*target);
      return {};
    }
    case abi::kPRIO_PGRP:
      for_each_in_group(who == 0 ? task.process->pgid : who, [&](Process &process) {
        for (Task *member : process.tasks) function(*member);
      });
      return {};
    case abi::kPRIO_USER: {
      const std::uint32_t uid = who == 0 ? task.credentials.uid : static_cast<std::uint32_t>(who);
      for_each_task([&](Task &other) {
        if (other.credentials.uid == uid) function(other);
      });
      return {};
    }
    default:
      return Err(Errno::Inval);
  }
}

bool is_fair(int policy) {
  return policy == abi::kSCHED_OTHER || policy == abi::kSCHED_BATCH || policy == abi::kSCHED_IDLE;
}

struct PolicyChange {
  int policy = 0;
  int priority = 0;
  bool reset_on_fork = false;
};

Result<void> set_policy(Task &task, Task &target, const PolicyChange &change) {
  const bool realtime = change.policy == abi::kSCHED_FIFO || change.policy == abi::kSCHED_RR;
  if (!is_fair(change.policy) && !realtime) return Err(Errno::Inval);
  const bool fits = realtime ? change.priority >= 1 && change.priority <= kMaxRealtimePriority
                             : change.priority == 0;
  if (!fits) return Err(Errno::Inval);
  if (!may_change(task, target)) return Err(Errno::Perm);
  // There is no real-time scheduling here, and pretending would break programs that rely on it.
  if (realtime) return Err(Errno::Perm);
  target.policy = change.policy;
  target.reset_on_fork = change.reset_on_fork;
  return {};
}

std::uint64_t present_vcpus() {
  const unsigned count = scheduler::vcpu_count();
  return count >= 64 ? ~0ull : (1ull << count) - 1;
}

}  // namespace

SysResult sys_sched_yield(Task &, const SysArgs &) {
  yield();
  return 0;
}

SysResult sys_getpriority(Task &task, const SysArgs &args) {
  int best = kMaxNice + 1;
  TRY(for_each_target(task, args.s32(0), args.s32(1),
                      [&](Task &target) { best = std::min(best, target.nice); }));
  if (best > kMaxNice) return Err(Errno::Srch);
  // From 40 (nice -20) to 1, so that no result is negative; the C library turns it around.
  return 20 - best;
}

SysResult sys_setpriority(Task &task, const SysArgs &args) {
  const int nice = std::clamp(args.s32(2), kMinNice, kMaxNice);
  bool any = false;
  Result<void> outcome;
  TRY(for_each_target(task, args.s32(0), args.s32(1), [&](Task &target) {
    any = true;
    if (auto set = set_nice(task, target, nice); !set) outcome = set;
  }));
  if (!any) return Err(Errno::Srch);
  TRY(outcome);
  return 0;
}

SysResult sys_sched_setscheduler(Task &task, const SysArgs &args) {
  const Ref<Task> target = TRY(task_or_self(task, args.s32(0)));
  if (args.s32(1) < 0 || args.u64(2) == 0) return Err(Errno::Inval);
  PolicyChange change;
  change.policy = args.s32(1) & ~abi::kSCHED_RESET_ON_FORK;
  change.reset_on_fork = (args.s32(1) & abi::kSCHED_RESET_ON_FORK) != 0;
  change.priority = TRY(args.ptr<abi::SchedParam>(2).read()).priority;
  TRY(set_policy(task, *target, change));
  return 0;
}

SysResult sys_sched_getscheduler(Task &task, const SysArgs &args) {
  const Ref<Task> target = TRY(task_or_self(task, args.s32(0)));
  return target->policy | (target->reset_on_fork ? abi::kSCHED_RESET_ON_FORK : 0);
}

SysResult sys_sched_setparam(Task &task, const SysArgs &args) {
  const Ref<Task> target = TRY(task_or_self(task, args.s32(0)));
  if (args.u64(1) == 0) return Err(Errno::Inval);
  const auto param = TRY(args.ptr<abi::SchedParam>(1).read());
  TRY(set_policy(task, *target, {target->policy, param.priority, target->reset_on_fork}));
  return 0;
}

SysResult sys_sched_getparam(Task &task, const SysArgs &args) {
  TRY(task_or_self(task, args.s32(0)));
  if (args.u64(1) == 0) return Err(Errno::Inval);
  TRY(args.ptr<abi::SchedParam>(1).write({0}));
  return 0;
}

SysResult sys_sched_setattr(Task &task, const SysArgs &args) {
  if (args.u64(1) == 0 || args.s32(0) < 0 || args.u64(2) != 0) return Err(Errno::Inval);
  const auto attr = TRY(args.ptr<abi::SchedAttr>(1).read());
  if (attr.size < sizeof(abi::SchedAttr)) {
    TRY(args.ptr<std::uint32_t>(1).write(sizeof(abi::SchedAttr)));
    return Err(Errno::TooBig);
  }
  if ((attr.flags & ~abi::kSCHED_FLAG_RESET_ON_FORK) != 0) return Err(Errno::Inval);
  const Ref<Task> target = TRY(task_or_self(task, args.s32(0)));
  PolicyChange change;
  change.policy = static_cast<int>(attr.policy);
  change.priority = static_cast<int>(attr.priority);
  change.reset_on_fork = (attr.flags & abi::kSCHED_FLAG_RESET_ON_FORK) != 0;
  TRY(set_policy(task, *target, change));
  if (target->policy != abi::kSCHED_IDLE) {
    TRY(set_nice(task, *target, std::clamp<int>(attr.nice, kMinNice, kMaxNice)));
  }
  return 0;
}

SysResult sys_sched_getattr(Task &task, const SysArgs &args) {
  if (args.u64(1) == 0 || args.u64(2) < sizeof(abi::SchedAttr) || args.u64(2) > kPageSize ||
      args.u64(3) != 0) {
    return Err(Errno::Inval);
  }
  const Ref<Task> target = TRY(task_or_self(task, args.s32(0)));
  abi::SchedAttr attr{};
  attr.size = sizeof(attr);
  attr.policy = static_cast<std::uint32_t>(target->policy);
  attr.nice = target->nice;
  attr.flags = target->reset_on_fork ? abi::kSCHED_FLAG_RESET_ON_FORK : 0;
  TRY(args.ptr<abi::SchedAttr>(1).write(attr));
  return 0;
}

SysResult sys_sched_get_priority_max(Task &, const SysArgs &args) {
  const int policy = args.s32(0);
  if (policy == abi::kSCHED_FIFO || policy == abi::kSCHED_RR) return kMaxRealtimePriority;
  if (is_fair(policy) || policy == abi::kSCHED_DEADLINE) return 0;
  return Err(Errno::Inval);
}

SysResult sys_sched_get_priority_min(Task &, const SysArgs &args) {
  const int policy = args.s32(0);
  if (policy == abi::kSCHED_FIFO || policy == abi::kSCHED_RR) return 1;
  if (is_fair(policy) || policy == abi::kSCHED_DEADLINE) return 0;
  return Err(Errno::Inval);
}

SysResult sys_sched_rr_get_interval(Task &task, const SysArgs &args) {
  TRY(task_or_self(task, args.s32(0)));
  TRY(args.ptr<abi::Timespec>(1).write({0, scheduler::kTimeSliceNs}));
  return 0;
}

SysResult sys_sched_setaffinity(Task &task, const SysArgs &args) {
  const Ref<Task> target = TRY(affinity_target(task, args.s32(0)));
  std::uint64_t mask = 0;
  TRY(copy_in(&mask, args.u64(2), std::min<std::uint64_t>(args.u32(1), sizeof(mask))));
  if (!may_change(task, *target)) return Err(Errno::Perm);
  if ((mask & present_vcpus()) == 0) return Err(Errno::Inval);
  target->affinity = mask & present_vcpus();
  return 0;
}

SysResult sys_sched_getaffinity(Task &task, const SysArgs &args) {
  constexpr std::uint64_t kBytes = sizeof(std::uint64_t);
  if (args.u32(1) < kBytes || args.u32(1) % kBytes != 0) return Err(Errno::Inval);
  const Ref<Task> target = TRY(affinity_target(task, args.s32(0)));
  TRY(args.ptr<std::uint64_t>(2).write(target->affinity & present_vcpus()));
  return kBytes;
}

SysResult sys_getcpu(Task &, const SysArgs &args) {
  const auto cpu = static_cast<std::uint32_t>(std::max(0, scheduler::current_vcpu()));
  if (args.u64(0) != 0) TRY(args.ptr<std::uint32_t>(0).write(cpu));
  if (args.u64(1) != 0) TRY(args.ptr<std::uint32_t>(1).write(0));
  return 0;
}

namespace {

Result<void> for_each_io_target(Task &task, int which, int who,
                                const std::function<void(Task &)> &function) {
  // ioprio_set(2) counts the same three kinds from 1.
  if (which < kIoWhoProcess || which > kIoWhoUser) return Err(Errno::Inval);
  static_assert(kIoWhoProcess - 1 == abi::kPRIO_PROCESS && kIoWhoGroup - 1 == abi::kPRIO_PGRP);
  return for_each_target(task, which - 1, who, function);
}

}  // namespace

SysResult sys_ioprio_set(Task &task, const SysArgs &args) {
  const int io_class = args.s32(2) >> kIoClassShift;
  if (io_class < 0 || io_class > kIoClassIdle) return Err(Errno::Inval);
  if (io_class == kIoClassRealtime && !task.credentials.capable(Capability::SysAdmin)) {
    return Err(Errno::Perm);
  }
  bool any = false, refused = false;
  TRY(for_each_io_target(task, args.s32(0), args.s32(1), [&](Task &target) {
    any = true;
    if (!may_change(task, target)) {
      refused = true;
    } else {
      target.io_priority = args.s32(2);
    }
  }));
  if (!any) return Err(Errno::Srch);
  if (refused) return Err(Errno::Perm);
  return 0;
}

SysResult sys_ioprio_get(Task &task, const SysArgs &args) {
  std::optional<int> best;
  TRY(for_each_io_target(task, args.s32(0), args.s32(1), [&](Task &target) {
    if (!best || target.io_priority < *best) best = target.io_priority;
  }));
  if (!best) return Err(Errno::Srch);
  return *best;
}

}  // namespace cowbird
