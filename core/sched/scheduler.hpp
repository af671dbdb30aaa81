// The scheduler: vCPUs and the run queue. boot/ starts and stops it; proc/ runs guest code through
// run_user. Needs the big kernel lock unless it says otherwise.
//
// Policy (sched/run_queue.hpp): one queue for all vCPUs, ordered by virtual run time, which passes
// slower for a thread with a lower nice value. A thread that has slept gets a small credit, so that
// it preempts one that computes. A vCPU prefers threads that ran on it last.
//
// Waking another vCPU costs more than most wake-ups save, so an idle vCPU is told only when the
// waker goes to guest code, gives the big kernel lock up or is no vCPU, and a little later still
// when the waker is a thread that usually sleeps soon (as the two ends of a pipe).
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/result.hpp"
#include "sched/thread.hpp"

namespace cowbird::scheduler {

inline constexpr unsigned kMaxVcpus = 64;
inline constexpr std::int64_t kTimeSliceNs = 10'000'000;

// Starts `vcpus` host threads, idle until there is something to run. Called once, without the lock.
Result<void> start(unsigned vcpus);
// Ends them after the current kernel threads have given their vCPU up; threads that have not exited
// are abandoned where they stand. Called without the lock, from a host thread that is no vCPU.
void stop();

unsigned vcpu_count();
// The vCPU the caller runs on, 0..vcpu_count()-1; -1 on other host threads. No lock needed.
int current_vcpu();
// The vCPU that a thread runs on; -1 when it does not.
int vcpu_of(const Thread &thread);

// Brackets of guest code; use run_user().
void enter_user(Context &context);
void leave_user();

// Runs guest code of the current thread: releases the lock, calls run() (which calls
// context.run()), takes the lock again, charges the time, and makes the time slice's end interrupt
// the guest code when others wait. The result is run()'s.
//
// Before each call the thread must see to need_resched() and, after it has yielded, to its signals:
//   for (;;) { cond_resched(); deliver signals; trap = run_user(c, [&] { return c.run(); }); ... }
template <typename Run>
auto run_user(Context &context, Run &&run) {
  enter_user(context);
  if constexpr (std::is_void_v<decltype(run())>) {
    run();
    leave_user();
  } else {
    auto result = run();
    leave_user();
    return result;
  }
}

// If this thread runs guest code now, it is interrupted soon (a signal is to be delivered, it is to
// stop). When it is sleeping interruptibly use wake_interruptible. Any kernel context.
void kick(Thread &thread);

// Yields if need_resched(): on the way to guest code, and inside a kernel thread's long work.
void cond_resched();

// Nanoseconds. irq_ns, the irq thread's time, is charged to vCPU 0.
struct VcpuStats {
  std::int64_t user_ns = 0, nice_ns = 0, system_ns = 0, idle_ns = 0, irq_ns = 0;
  std::uint64_t switches = 0;
};
VcpuStats vcpu_stats(unsigned vcpu);
// Brings the CPU times of threads that run now up to date; else they are those of the last trap.
void update_cpu_times();
// Threads running or waiting for a vCPU, and the load averages (1, 5, 15 minutes) in 1/2048.
unsigned runnable_count();
void load_average(std::uint64_t out[3]);
std::uint64_t context_switches();
// For the irq thread: time it has spent in handlers.
void charge_irq(std::int64_t ns);

// A backtrace source for panic and the debugger: the saved context of a thread that is not running.
bool saved_context(const Thread &thread, SavedContext &out);
// Stack bounds of a thread [low, high).
void stack_bounds(const Thread &thread, std::uint64_t &low, std::uint64_t &high);

}  // namespace cowbird::scheduler
