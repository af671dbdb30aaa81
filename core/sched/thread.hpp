// Kernel threads: a guard-paged stack and a saved context, scheduled on vCPUs. A guest thread's
// kernel side (proc/task.hpp) is a kernel thread too. All functions need the big kernel lock unless
// they say otherwise; kernel code is never preempted, it gives the vCPU up in schedule(), yield(),
// the wait functions (sched/wait.hpp) and around guest code.
//
// States: Runnable (on a run queue) -> Running (on a vCPU) -> Sleeping/Stopped -> Runnable ... ->
// Dead.
//
// A kernel thread may continue on another host thread after every point where it can sleep. So
// thread_local variables must not be used across such a point, and that includes errno: read it in
// the function that made the host call, and let that function not sleep (the compiler keeps
// errno's address in a register).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "base/list.hpp"
#include "base/ref.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace cowbird {

class Context;     // engine/platform.hpp
class Mm;          // mm/mm.hpp
class SleepMutex;  // sched/wait.hpp
class Task;        // proc/task.hpp

// Without the guard below it. AddressSanitizer makes frames several times larger.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr std::size_t kKernelStackSize = 512 * kKiB;
#else
inline constexpr std::size_t kKernelStackSize = 64 * kKiB;
#endif

enum class ThreadState : std::uint8_t {
  Runnable,         // R: on a run queue
  Running,          // R: on a vCPU
  Interruptible,    // S: sleeping; a signal wakes it
  Uninterruptible,  // D: sleeping; only its event wakes it
  Stopped,          // T: job control stop
  Traced,           // t: stopped by a tracer
  Dead,             // X: has exited; its stack is not in use any more
  New,              // R, as Linux shows it: in the making, on no run queue yet
};
// The letter of ps(1) and /proc/PID/stat. (A zombie is a property of the task, not of the thread.)
char thread_state_letter(ThreadState state);

// What a switched-out thread needs to go on: callee-saved registers are on its stack.
struct SavedContext {
  std::uint64_t rsp = 0;
};

// What /proc/PID/io counts: bytes and calls of read(2), write(2) and their kin, and bytes that were
// fetched from storage or have to go there.
struct IoCounters {
  std::uint64_t read_bytes = 0, written_bytes = 0, read_calls = 0, write_calls = 0;
  std::uint64_t storage_read_bytes = 0, storage_written_bytes = 0;
  void add(const IoCounters &other) {
    read_bytes += other.read_bytes;
    written_bytes += other.written_bytes;
    read_calls += other.read_calls;
    write_calls += other.write_calls;
    storage_read_bytes += other.storage_read_bytes;
    storage_written_bytes += other.storage_written_bytes;
  }
};

class Thread : public RefCounted<Thread> {
 public:
  using Id = std::uint64_t;
  virtual ~Thread();

  // A new kernel thread, runnable at once. `entry` runs on its own stack with the big kernel lock
  // held; when it returns the thread exits. Fails with NoMem.
  static Result<Ref<Thread>> spawn(std::string name, std::function<void()> entry);

  // For Task: creates the stack; start() makes it runnable. The scheduler holds a reference from
  // start() until the thread has exited.
  Result<void> prepare(std::function<void()> entry);
  void start();

  Id id() const { return id_; }
  const std::string &name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }
  ThreadState state() const { return state_; }
  // What a sleeping thread waits for, as in /proc/PID/wchan: a literal such as "pipe_read".
  const char *wait_channel() const { return wait_channel_; }
  virtual Task *as_task() { return nullptr; }
  // A signal is pending that ends interruptible sleeps; false for pure kernel threads.
  virtual bool signal_pending() const { return false; }
  // Only a fatal signal ends a killable sleep.
  virtual bool fatal_signal_pending() const { return false; }
  // The thread is about to leave its vCPU: it sleeps, stops or was preempted. A task tells its
  // Context to stop spinning (Context::park). Called with the big kernel lock held; must not sleep.
  virtual void on_switch_out() {}

  // CPU time, in nanoseconds of the guest's clock.
  std::int64_t user_ns = 0;
  std::int64_t system_ns = 0;
  std::int64_t start_time_ns = 0;
  std::uint64_t voluntary_switches = 0;
  std::uint64_t involuntary_switches = 0;
  IoCounters io;
  int nice = 0;  // -20..19, weighs the time slice
  // Goes on while the guest stands still (sched/freeze.hpp): for threads that serve the operator.
  // Set before start() or by the thread itself.
  bool runs_while_frozen = false;

  // The guest address space that user pointers refer to while this thread runs
  // (mm/user_access.hpp); nullptr for kernel threads. Not owned: the task holds the reference.
  Mm *active_mm = nullptr;

  // The sleeping lock that the thread waits for; nullptr when it waits for something else.
  SleepMutex *blocked_on = nullptr;

  // Owned by the scheduler.
  struct Sched;
  Sched &sched() { return *sched_; }
  ListNode all_link;  // list of all kernel threads

 protected:
  explicit Thread(std::string name);

 private:
  friend struct SchedInternals;
  friend struct DebugLayout;
  Id id_;
  std::string name_;
  ThreadState state_ = ThreadState::New;
  const char *wait_channel_ = nullptr;
  Sched *sched_;
};

// The thread that runs on the calling vCPU; constant for the caller, though its host thread is not.
// No lock needed. nullptr on host threads that are no vCPU.
Thread *current_thread();

// Makes a sleeping or stopped thread runnable; false when it was not asleep. From any kernel
// context, also the irq thread.
bool wake(Thread &thread);
// As wake(), but only when a signal ends this sleep (signal delivery): an interruptible one, or a
// killable one when fatal_signal_pending().
bool wake_interruptible(Thread &thread);
// Gives the vCPU to another runnable thread, if there is one, even if it is not the caller's turn
// to wait (sched_yield(2)).
void yield();
// True when the current thread should yield before it goes back to guest code.
bool need_resched();
// The current thread ends; its stack is freed later by another thread. What its entry function
// holds on its stack is not destroyed.
[[noreturn]] void thread_exit();

// Calls `function` for each kernel thread.
void for_each_thread(const std::function<void(Thread &)> &function);

}  // namespace cowbird
