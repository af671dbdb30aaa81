// The scheduler: vCPUs and run queues. boot/ starts and stops it; proc/ brackets guest code with
// enter_user/leave_user. Needs the big kernel lock unless it says otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

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

// Runs guest code of the current thread: releases the lock, calls context.run(), takes the lock
// again, charges the time, and makes the time slice's end interrupt the guest code when others
// wait. The result is context.run()'s through `run`.
void run_user(Context &context, const std::function<void()> &run);

// If this thread runs guest code now, it is interrupted soon (a signal is to be delivered, it is to
// stop). When it is sleeping interruptibly use wake_interruptible. Any kernel context.
void kick(Thread &thread);

// A point inside a kernel thread's long work where others may run.
void cond_resched();

struct VcpuStats {
  std::int64_t user_ns, nice_ns, system_ns, idle_ns, irq_ns;
  std::uint64_t switches;
};
VcpuStats vcpu_stats(unsigned vcpu);
// Threads running or waiting for a vCPU, and the load averages (1, 5, 15 minutes) in 1/2048.
unsigned runnable_count();
void load_average(std::uint64_t out[3]);
std::uint64_t context_switches();

// A backtrace source for panic and the debugger: the saved context of a thread that is not running.
bool saved_context(const Thread &thread, SavedContext &out);
// Stack bounds of a thread [low, high).
void stack_bounds(const Thread &thread, std::uint64_t &low, std::uint64_t &high);

}  // namespace cowbird::scheduler
