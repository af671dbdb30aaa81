// What the files of sched/ share: vCPUs, the scheduler's side of a thread, and the core state. Of
// sched/ alone. Everything here is protected by the big kernel lock but where noted.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/host_thread.hpp"
#include "sched/bkl.hpp"
#include "sched/context.hpp"
#include "sched/run_queue.hpp"
#include "sched/scheduler.hpp"
#include "sched/stack.hpp"
#include "sched/thread.hpp"
#include "sched/timer.hpp"

namespace cowbird {

struct Vcpu;

// An execution stack as AddressSanitizer wants to know it; see context_switch in vcpu.cpp.
struct Fiber {
  SavedContext context;
  void *fake_stack = nullptr;
  std::uint64_t low = 0;
  std::uint64_t high = 0;
};

struct Thread::Sched : RunEntity {
  explicit Sched(Thread &owner);

  Thread &thread;
  Fiber fiber;
  StackPointer stack;
  std::function<void()> entry;
  Vcpu *vcpu = nullptr;  // while Running
  bool started = false;
  bool abandoned = false;   // the scheduler was stopped under it
  bool killable = false;    // sleeping Uninterruptible, but fatal signals end it
  bool timed_out = false;   // sleep_timer ended the sleep
  bool wake_token = false;  // a ThreadWaiter was woken while the thread was not asleep
  Timer sleep_timer;
  // Mean CPU time between two sleeps; the first value means "long".
  std::int64_t mean_burst_ns = kNsPerMs;
  std::int64_t burst_ns = 0;
};

struct Vcpu {
  explicit Vcpu(unsigned i);

  const unsigned index;
  HostThread host;
  Fiber idle;  // the host thread's own stack
  Thread *current = nullptr;
  Thread *dead = nullptr;           // has exited; the next one frees its stack
  Context *user_context = nullptr;  // guest code runs
  bool need_resched = false;
  bool idling = false;
  bool waking = false;                  // was told to leave idling and has not got the lock yet
  std::atomic<std::uint32_t> ready{0};  // futex: 0 while parked. No lock.
  Timer slice_timer;
  std::int64_t slice_start = 0;  // cpu_time
  std::int64_t charged = 0;      // cpu_time up to which time was accounted
  std::uint32_t halts = 0;       // clock::halts() then
  scheduler::VcpuStats stats;

  void main();  // the host thread
  void park() NO_THREAD_SAFETY_ANALYSIS;
  void unpark();
  // Accounts the time since the last charge to the current thread, or to idling.
  void charge(std::int64_t now);
  std::int64_t running_vruntime(std::int64_t now) const;
};

// Private members of Thread for sched/.
struct SchedInternals {
  static void set_state(Thread &thread, ThreadState state) { thread.state_ = state; }
  static void set_wait_channel(Thread &thread, const char *name) { thread.wait_channel_ = name; }
};

struct SchedCore {
  std::vector<std::unique_ptr<Vcpu>> vcpus;
  std::atomic<unsigned> vcpu_count{0};
  RunQueue queue;
  RunQueue held_back;   // runnable, but the guest is frozen; empty else
  bool frozen = false;  // sched/freeze.hpp
  List<Thread, &Thread::all_link> threads;
  unsigned idle_count = 0;     // idling and not waking
  unsigned waking_count = 0;   // waking
  unsigned running_count = 0;  // vCPUs with a current thread
  unsigned blocked_count = 0;  // Uninterruptible
  bool stopping = false;
  Timer help_timer;  // wakes idle vCPUs that were not told at once
  SchedCore();
  static SchedCore &instance();
  static SchedCore *made;  // what instance() gives, or nullptr before; for the debugger
};

// The calling host thread's vCPU; any host thread. Never inlined, because a thread that moved to
// another host thread must not use an address of thread-local storage from before.
Vcpu *this_vcpu();

enum class Leave : std::uint8_t { Sleep, Yield, Preempted, Exit };
// Takes the current thread off its vCPU. Its state has been set for Sleep and Exit.
void leave_vcpu(Leave how);
// First thing on a stack that was switched to.
void finish_switch(Fiber &self);
// A thread became runnable: queues it and sees to it that a vCPU runs it.
void enqueue_new(Thread &thread);
void enqueue_woken(Thread &thread);
// Puts a runnable thread on the queue; false when it is held back because the guest is frozen.
inline bool push_runnable(SchedCore &core, Thread::Sched &sched) {
  const bool runs = !core.frozen || sched.thread.runs_while_frozen;
  (runs ? core.queue : core.held_back).push(sched);
  return runs;
}
// Wakes as many idle vCPUs as there are threads for them.
void wake_idle_vcpus(SchedCore &core);
// The vCPU's thread shall give way soon.
void resched(Vcpu &vcpu);
// The caller is about to release the lock on a vCPU: idle vCPUs are told about waiting threads.
void call_for_help(Vcpu &vcpu);

namespace freeze {
// A vCPU gives its thread up while the guest is frozen: whoever waits for that looks again.
void note_thread_left();
// The scheduler stops: nobody holds the guest any more.
void forget();
}  // namespace freeze

namespace load {
// Something is runnable: sampling must go on.
void note_activity();
}  // namespace load

}  // namespace cowbird
