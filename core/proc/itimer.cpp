// Interval timers. A periodic timer is armed again when its signal is taken, so that a short period
// cannot flood the kernel; what was missed is the overrun.
#include "proc/itimer.hpp"

#include <algorithm>

#include "abi/signal.hpp"
#include "base/log.hpp"
#include "base/rate_limit.hpp"
#include "proc/signal_internal.hpp"
#include "sched/clock.hpp"
#include "sched/scheduler.hpp"

namespace cowbird {
namespace {

// The least time between two looks at CPU timers, and between expiries of a timer whose signal is
// ignored.
constexpr std::int64_t kTickNs = 1 * kNsPerMs;
// A process with threads on several vCPUs uses CPU time faster than time goes by.
constexpr std::int64_t kLongestTickNs = 100 * kNsPerMs;

ResourceUsage cpu_usage(const Process &process) {
  scheduler::update_cpu_times();
  ResourceUsage total = process.usage;
  for (const Task *task : process.tasks) {
    total.user_ns += task->user_ns;
    total.system_ns += task->system_ns;
  }
  return total;
}

void real_expired(Process::Itimers &timers) {
  SignalInfo info;
  info.signal = kSigAlrm;
  info.code = abi::kSI_KERNEL;
  const SendOutcome outcome = post_signal(timers.process, nullptr, info);
  if (timers.real_interval_ns == 0) return;
  if (outcome == SendOutcome::Ignored) {
    timers.real.arm(clock::monotonic_ns() + std::max(timers.real_interval_ns, kTickNs));
  } else {
    timers.real_queued = true;
  }
}

// Moves a periodic expiry behind `now`; returns how many periods went by unseen.
std::int64_t forward(std::int64_t &expiry, std::int64_t interval, std::int64_t now) {
  if (interval == 0 || expiry > now) return 0;
  const std::int64_t missed = (now - expiry) / interval;
  expiry += (missed + 1) * interval;
  return missed;
}

void start_host_timer(PosixTimer &timer) {
  if (timer.expiry_ns == 0 || !timer.timer) return;
  const std::int64_t offset = timer.clock == TimerClock::Realtime ? clock::realtime_offset_ns() : 0;
  timer.timer->arm(timer.expiry_ns - offset);
}

void posix_expired(Process &process, PosixTimer &timer) {
  if (timer.notify == abi::kSIGEV_NONE) {
    if (timer.interval_ns == 0) timer.expiry_ns = 0;
    return;
  }
  if (timer.signal_queued) {
    if (timer.overrun < INT32_MAX) ++timer.overrun;
    return;
  }
  SignalInfo info;
  info.signal = timer.signal;
  info.code = abi::kSI_TIMER;
  info.timer_id = timer.id;
  info.value = timer.value;
  const bool target_gone = timer.target && timer.target->killed;
  const SendOutcome outcome =
      target_gone ? SendOutcome::Ignored : post_signal(process, timer.target.get(), info);
  if (outcome == SendOutcome::Queued) {
    timer.signal_queued = true;
    if (timer.interval_ns == 0) timer.expiry_ns = 0;
    return;
  }
  if (timer.interval_ns == 0) {
    timer.expiry_ns = 0;
    return;
  }
  std::int64_t now = timer_clock_now(process, timer);
  forward(timer.expiry_ns, std::max(timer.interval_ns, kTickNs), now);
  start_host_timer(timer);
}

bool is_cpu_clock(const PosixTimer &timer) {
  return timer.clock == TimerClock::ProcessCpu || timer.clock == TimerClock::ThreadCpu;
}

void send_to_process(Process &process, int signal) {
  SignalInfo info;
  info.signal = signal;
  info.code = abi::kSI_KERNEL;
  post_signal(process, nullptr, info);
}

void check_pair(Process &process, std::int64_t &expiry, std::int64_t interval, std::int64_t now,
                int signal) {
  if (expiry == 0 || now < expiry) return;
  send_to_process(process, signal);
  if (interval == 0) {
    expiry = 0;
  } else {
    forward(expiry, interval, now);
  }
}

// RLIMIT_CPU: SIGXCPU at the soft limit and each second after it, SIGKILL at the hard one.
void check_cpu_limit(Process &process, std::int64_t used) {
  std::int64_t &next = process.itimers->cpu_limit_next_ns;
  if (next == 0 || used < next) return;
  const LimitPair &limit = process.limits[static_cast<std::size_t>(Limit::Cpu)];
  if (limit.hard != kNoLimit && used >= static_cast<std::int64_t>(limit.hard) * kNsPerSec) {
    static RateLimit log_limit(10, kNsPerSec);
    if (log_limit.pass(clock::monotonic_ns())) {
      log_notice("Process {} ({}) is killed: it used more processor time than RLIMIT_CPU allows.",
                 process.pid, process.comm());
    }
    send_to_process(process, kSigKill);
    return;
  }
  send_to_process(process, kSigXcpu);
  next = used + kNsPerSec;
}

// CPU time until the next thing is due; kNoDeadline when nothing is armed.
std::int64_t next_cpu_event(const Process &process) {
  const Process::Itimers &timers = *process.itimers;
  const ResourceUsage used = cpu_usage(process);
  const std::int64_t total = used.user_ns + used.system_ns;
  std::int64_t left = kNoDeadline;
  if (timers.virtual_expiry_ns != 0) {
    left = std::min(left, timers.virtual_expiry_ns - used.user_ns);
  }
  if (timers.prof_expiry_ns != 0) left = std::min(left, timers.prof_expiry_ns - total);
  if (timers.cpu_limit_next_ns != 0) left = std::min(left, timers.cpu_limit_next_ns - total);
  for (const auto &[id, timer] : timers.posix) {
    if (!is_cpu_clock(*timer) || timer->expiry_ns == 0) continue;
    left = std::min(left, timer->expiry_ns - timer_clock_now(process, *timer));
  }
  return left;
}

}  // namespace

Process::Itimers::Itimers(Process &owner)
    : process(owner),
      real([this] { real_expired(*this); }),
      cpu_tick([this] { check_cpu_timers(process); }) {}

std::int64_t process_cpu_ns(const Process &process) {
  const ResourceUsage used = cpu_usage(process);
  return used.user_ns + used.system_ns;
}

void update_cpu_timers(Process &process) {
  if (!process.itimers) return;
  const std::int64_t left = next_cpu_event(process);
  if (left == kNoDeadline) {
    process.itimers->cpu_tick.cancel();
    return;
  }
  const std::int64_t share = left / std::max(1u, scheduler::vcpu_count());
  const std::int64_t wait = std::clamp(share, kTickNs, kLongestTickNs);
  process.itimers->cpu_tick.arm(clock::monotonic_ns() + wait);
}

void check_cpu_timers(Process &process) {
  if (!process.itimers) return;
  Process::Itimers &timers = *process.itimers;
  const ResourceUsage used = cpu_usage(process);
  const std::int64_t total = used.user_ns + used.system_ns;
  check_pair(process, timers.virtual_expiry_ns, timers.virtual_interval_ns, used.user_ns,
             kSigVtalrm);
  check_pair(process, timers.prof_expiry_ns, timers.prof_interval_ns, total, kSigProf);
  check_cpu_limit(process, total);
  for (auto &[id, timer] : timers.posix) {
    if (!is_cpu_clock(*timer) || timer->expiry_ns == 0) continue;
    if (timer_clock_now(process, *timer) >= timer->expiry_ns && !timer->signal_queued) {
      posix_expired(process, *timer);
    }
  }
  update_cpu_timers(process);
}

IntervalSetting get_interval_timer(Process &process, int which) {
  if (!process.itimers) return {};
  const Process::Itimers &timers = *process.itimers;
  if (which == abi::kITIMER_REAL) {
    IntervalSetting setting{timers.real_interval_ns, 0};
    if (timers.real.armed()) {
      setting.value_ns =
          std::max<std::int64_t>(timers.real.deadline_ns() - clock::monotonic_ns(), kNsPerUs);
    } else if (timers.real_queued) {
      setting.value_ns = kNsPerUs;
    }
    return setting;
  }
  const bool is_virtual = which == abi::kITIMER_VIRTUAL;
  const ResourceUsage used = cpu_usage(process);
  const std::int64_t now = is_virtual ? used.user_ns : used.user_ns + used.system_ns;
  const std::int64_t expiry = is_virtual ? timers.virtual_expiry_ns : timers.prof_expiry_ns;
  IntervalSetting setting{is_virtual ? timers.virtual_interval_ns : timers.prof_interval_ns, 0};
  if (expiry != 0) setting.value_ns = std::max<std::int64_t>(expiry - now, kNsPerUs);
  return setting;
}

IntervalSetting set_interval_timer(Process &process, int which, const IntervalSetting &setting) {
  const IntervalSetting old = get_interval_timer(process, which);
  Process::Itimers &timers = process.timers();
  if (which == abi::kITIMER_REAL) {
    timers.real_interval_ns = setting.interval_ns;
    timers.real_queued = false;
    if (setting.value_ns == 0) {
      timers.real.cancel();
    } else {
      timers.real.arm(clock::monotonic_ns() + setting.value_ns);
    }
    return old;
  }
  const bool is_virtual = which == abi::kITIMER_VIRTUAL;
  const ResourceUsage used = cpu_usage(process);
  const std::int64_t now = is_virtual ? used.user_ns : used.user_ns + used.system_ns;
  (is_virtual ? timers.virtual_expiry_ns : timers.prof_expiry_ns) =
      setting.value_ns == 0 ? 0 : now + setting.value_ns;
  (is_virtual ? timers.virtual_interval_ns : timers.prof_interval_ns) = setting.interval_ns;
  update_cpu_timers(process);
  return old;
}

void signal_timer_taken(Process &process, SignalInfo &info) {
  if (!process.itimers) return;
  Process::Itimers &timers = *process.itimers;
  if (info.signal == kSigAlrm && timers.real_queued) {
    timers.real_queued = false;
    std::int64_t expiry = timers.real.deadline_ns();
    const std::int64_t now = clock::monotonic_ns();
    if (expiry == kNoDeadline) expiry = now;
    forward(expiry, timers.real_interval_ns, now);
    timers.real.arm(expiry);
  }
  if (info.code != abi::kSI_TIMER) return;
  const auto entry = timers.posix.find(info.timer_id);
  if (entry == timers.posix.end()) return;
  PosixTimer &timer = *entry->second;
  timer.signal_queued = false;
  if (timer.expiry_ns != 0 && timer.interval_ns != 0) {
    const std::int64_t missed =
        forward(timer.expiry_ns, timer.interval_ns, timer_clock_now(process, timer));
    timer.overrun =
        static_cast<std::int32_t>(std::min<std::int64_t>(timer.overrun + missed, INT32_MAX));
    start_host_timer(timer);
    if (is_cpu_clock(timer)) update_cpu_timers(process);
  }
  info.overrun = timer.last_overrun = std::exchange(timer.overrun, 0);
}

void inherit_timers(const Process &parent, Process &child) {
  const LimitPair &limit = parent.limits[static_cast<std::size_t>(Limit::Cpu)];
  if (limit.soft == kNoLimit) return;
  child.timers().cpu_limit_next_ns = static_cast<std::int64_t>(limit.soft) * kNsPerSec;
  update_cpu_timers(child);
}

void drop_posix_timers(Process &process) {
  if (!process.itimers) return;
  process.itimers->posix.clear();
  update_cpu_timers(process);
}

std::int64_t timer_clock_now(const Process &process, const PosixTimer &timer) {
  switch (timer.clock) {
    case TimerClock::Monotonic:
      return clock::monotonic_ns();
    case TimerClock::Realtime:
      return clock::realtime_ns();
    case TimerClock::ProcessCpu:
      return process_cpu_ns(process);
    case TimerClock::ThreadCpu: {
      for (const Task *task : process.tasks) {
        if (task->tid == timer.cpu_tid) return task->user_ns + task->system_ns;
      }
      return 0;
    }
  }
  return 0;
}

void arm_posix_timer(Process &process, PosixTimer &timer, std::int64_t expiry_ns,
                     std::int64_t interval_ns) {
  timer.expiry_ns = expiry_ns;
  timer.interval_ns = interval_ns;
  timer.overrun = timer.last_overrun = 0;
  if (is_cpu_clock(timer)) {
    update_cpu_timers(process);
    return;
  }
  if (!timer.timer) {
    timer.timer = std::make_unique<Timer>([&process, &timer] { posix_expired(process, timer); });
  }
  if (expiry_ns == 0) {
    timer.timer->cancel();
  } else {
    start_host_timer(timer);
  }
}

}  // namespace cowbird
