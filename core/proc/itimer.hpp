// Interval timers of a process: setitimer(2), alarm(2), timer_create(2), RLIMIT_CPU. Needs the big
// kernel lock.
#pragma once

#include <map>

#include "abi/time.hpp"
#include "proc/task.hpp"
#include "sched/timer.hpp"

namespace cowbird {

inline constexpr std::size_t kMaxPosixTimers = 1024;

struct IntervalSetting {
  std::int64_t interval_ns = 0;
  std::int64_t value_ns = 0;  // until the next expiry; 0: not armed
};

// What a timer measures.
enum class TimerClock : std::uint8_t { Monotonic, Realtime, ProcessCpu, ThreadCpu };

// A timer of timer_create(2). CPU clocks are looked at by check_cpu_timers.
struct PosixTimer {
  int id = 0;
  int clock_id = 0;
  TimerClock clock = TimerClock::Monotonic;
  int notify = 0;
  int signal = 0;
  std::uint64_t value = 0;
  Ref<Task> target;            // SIGEV_THREAD_ID
  int cpu_tid = 0;             // ThreadCpu
  std::int64_t expiry_ns = 0;  // on the clock's own scale; 0: not armed
  std::int64_t interval_ns = 0;
  bool signal_queued = false;
  std::int32_t overrun = 0, last_overrun = 0;
  std::unique_ptr<Timer> timer;
};

struct Process::Itimers {
  explicit Itimers(Process &owner);
  Process &process;
  // ITIMER_REAL
  Timer real;
  std::int64_t real_interval_ns = 0;
  bool real_queued = false;
  // ITIMER_VIRTUAL and ITIMER_PROF: the CPU time at which they expire; 0: not armed.
  std::int64_t virtual_expiry_ns = 0, virtual_interval_ns = 0;
  std::int64_t prof_expiry_ns = 0, prof_interval_ns = 0;
  // RLIMIT_CPU: when the next SIGXCPU is due; 0: no limit.
  std::int64_t cpu_limit_next_ns = 0;
  Timer cpu_tick;
  std::map<int, std::unique_ptr<PosixTimer>> posix;
  int next_id = 0;
};

// getitimer, setitimer; `which` is ITIMER_*, checked by the caller.
IntervalSetting get_interval_timer(Process &process, int which);
IntervalSetting set_interval_timer(Process &process, int which, const IntervalSetting &setting);

// The timer whose signal this was goes on (ITIMER_REAL, timer_create); fills in the overrun.
void signal_timer_taken(Process &process, SignalInfo &info);
// Sends what is due of CPU timers and limits, and arms the tick that looks again.
void check_cpu_timers(Process &process);
// After a change of what they look at.
void update_cpu_timers(Process &process);
// fork: limits go on, timers do not.
void inherit_timers(const Process &parent, Process &child);
// execve: timer_create's timers go, interval timers stay.
void drop_posix_timers(Process &process);

// The time now on a timer's clock, its own scale.
std::int64_t timer_clock_now(const Process &process, const PosixTimer &timer);
// Arms (expiry 0: disarms) on the clock's scale.
void arm_posix_timer(Process &process, PosixTimer &timer, std::int64_t expiry_ns,
                     std::int64_t interval_ns);
std::int64_t process_cpu_ns(const Process &process);

}  // namespace cowbird
