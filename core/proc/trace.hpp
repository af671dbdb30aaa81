// Tracing of guest tasks, in the manner of ptrace(2): a Tracer is told when a task of a process
// that it traces meets an event, the task stands still (ThreadState::Traced) until it is resumed,
// and meanwhile registers, memory and breakpoints are the tracer's. The debug agent
// (core/debug_agent/) is a tracer; a system call ptrace would be another. Needs the big kernel lock
// everywhere.
//
// Where a task stops: on its way back to guest code (signals, breakpoints, steps, the return of a
// system call, execve, a requested stop), at the entry of a system call, and inside clone(2) after
// the child was made. A task whose stop nobody asked for but which shall not run guest code now is
// "held": it sleeps on in its system call and stands still on its way back.
//
// Nobody attached: Task::trace is null, one pointer test in a trap, and Task::trace_attention is
// false, one byte more in a test that every trap makes anyway.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>

#include "abi/registers.hpp"
#include "base/ref.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "proc/signal.hpp"

namespace cowbird {

class Mm;
class Process;
class Task;
struct Trap;

enum class TraceEvent : std::uint8_t {
  Signal,      // `info` is about to be delivered; resume() says what becomes of it
  Breakpoint,  // at `address`, which is the task's rip
  Step,
  SyscallEntry,   // `number`
  SyscallReturn,  // `number`
  Fork,           // `child` is traced too, and held
  Vfork,
  VforkDone,
  Exec,
  Created,    // a new thread, before its first instruction
  Requested,  // request_stop()
};

struct TraceStop {
  TraceEvent event = TraceEvent::Requested;
  SignalInfo info;
  std::uint64_t address = 0;
  std::uint64_t number = 0;
  int child = 0;
};

// Called with the big kernel lock held; must not sleep.
class Tracer {
 public:
  // By the task itself, which is about to stand still.
  virtual void task_stopped(Task &task, const TraceStop &stop) = 0;
  virtual void task_exited(Task &task) = 0;
  // The last task has ended; the process is traced no more. `status` is wait(2)'s.
  virtual void process_exited(Process &process, int status) = 0;

 protected:
  ~Tracer() = default;
};

// The breakpoints of one address space: int3 instructions in its memory and what was there before.
// Processes that share memory (vfork) share it.
class TraceBreakpoints : public RefCounted<TraceBreakpoints> {
 public:
  // Exist when there is one; Fault when the memory cannot be written.
  Result<void> insert(Mm &mm, VirtAddr address);
  // NoEnt when there is none.
  Result<void> remove(Mm &mm, VirtAddr address);
  void remove_all(Mm &mm);
  // Out of the memory and back, while a process runs in it that is not traced.
  void lift(Mm &mm);
  void lower(Mm &mm);
  void lift_one(Mm &mm, VirtAddr address) { put_original(mm, address); }
  void lower_one(Mm &mm, VirtAddr address) { put_int3(mm, address); }
  bool has(VirtAddr address) const { return !lifted_ && original_.contains(address); }
  std::size_t size() const { return original_.size(); }
  // For a fork child, whose memory is a copy.
  Ref<TraceBreakpoints> copy() const;
  // Takes the original bytes out of the memory of a fork child that is not traced.
  void restore_in(Mm &mm) const;
  // What the program has, in bytes that were read; and the part of bytes that are to be written
  // that belongs under a breakpoint.
  void hide(VirtAddr address, std::span<std::byte> bytes) const;
  void write_under(VirtAddr address, std::span<std::byte> bytes);

 private:
  void put_original(Mm &mm, VirtAddr address);
  void put_int3(Mm &mm, VirtAddr address);
  std::map<VirtAddr, std::byte> original_;
  bool lifted_ = false;
};

// Process::trace.
class TracedProcess : public RefCounted<TracedProcess> {
 public:
  explicit TracedProcess(Tracer &t) : tracer(t) {}
  Tracer &tracer;
  // What stops tasks besides signals, breakpoints and steps. Without `forks` a child is not traced.
  bool forks = false, execs = false, threads = false;
  bool syscalls = false;
  std::set<std::uint64_t> syscall_numbers;  // empty: all
  SignalSet pass;                           // delivered without a stop
  Ref<TraceBreakpoints> breakpoints = make_ref<TraceBreakpoints>();
};

// Task::trace.
class TracedTask : public RefCounted<TracedTask> {
 public:
  explicit TracedTask(Ref<TracedProcess> p) : process(std::move(p)) {}
  Ref<TracedProcess> process;
  bool stopped = false;
  TraceStop stop;  // while stopped; `info` may be changed
  std::deque<TraceStop> pending;

 private:
  friend struct TraceInternals;
  bool held = false;
  bool stop_requested = false;
  bool step = false;
  bool held_for_step = false;  // another task steps over a breakpoint
  bool waits_to_step_over = false;
  bool flag_set = false;  // we have set TF
  VirtAddr range_low = 0, range_high = 0;
  VirtAddr stepping_over = 0;
  int resume_signal = 0;
  int unreported = 0;  // the tracer has sent this signal itself
  std::uint64_t caught_call = ~0ull;
};

struct TraceResume {
  bool step = false;
  // Steps on while rip is in [low, high).
  VirtAddr range_low = 0, range_high = 0;
  // Delivered; 0: none. After a Signal stop, that signal or another or none.
  int signal = 0;
  // When rip is at a breakpoint: past it first, while the other tasks of the memory wait.
  bool step_over = false;
};

namespace trace {

// All tasks of the process are traced from now on; none is stopped by that. Perm when it is traced
// already, Srch when it has ended.
Result<void> attach(Process &process, Tracer &tracer);
// Breakpoints leave its memory and its tasks go on; a signal that stopped one is delivered, but for
// faults. No task of it may run guest code now (sched/freeze.hpp): one that steps could not be
// told. May sleep, as all functions that write memory.
void detach(Process &process);

// The next time that the task would run guest code it stops with Requested; an interruptible sleep
// ends for that, as for a signal.
void request_stop(Task &task);
bool stop_requested(const Task &task);
void hold(Task &task, bool held);
bool is_held(const Task &task);
// A stopped task goes on. For one that is not, the signal is sent and the step set up.
void resume(Task &task, const TraceResume &how);

// Registers are those that guest code has or had last. Busy while it runs guest code; Srch before
// exec has given it any.
Result<abi::UserRegs> registers(Task &task);
Result<void> set_registers(Task &task, const abi::UserRegs &registers);
// The task is inside a system call: changes of its registers are overwritten when it ends.
bool in_system_call(const Task &task);

// Bytes done from the front; Fault when none. The process need not be traced to be read. Writing
// reaches also private memory that the program may only read, which gets a copy of its own.
Result<std::size_t> read_memory(Process &process, VirtAddr address, std::span<std::byte> out);
Result<std::size_t> write_memory(Process &process, VirtAddr address,
                                 std::span<const std::byte> data);
Result<void> insert_breakpoint(Process &process, VirtAddr address);
Result<void> remove_breakpoint(Process &process, VirtAddr address);

// --- called by proc/, for traced tasks only (Task::trace is set)
// After each trap.
void left_guest_code(Task &task, const Trap &trap);
// False: the call is not to be made.
bool enter_system_call(Task &task);
void leave_system_call(Task &task);
// True when a breakpoint or a step of the tracer caused it; it is no signal of the program then.
bool take_exception(Task &task, const Trap &trap);
// On the way to guest code: true when the task stood still and everything must be looked at again.
bool stand_still(Task &task);
// False when the tracer takes the signal away; `info` may be another one afterwards.
bool filter_signal(Task &task, SignalInfo &info);
void entered_handler(Task &task);
void enter_guest_code(Task &task);
// In clone, by the parent: before the child starts, and after.
void child_made(Task &parent, Task &child, bool is_thread, bool is_vfork);
void child_started(Task &parent, Process &child, bool is_vfork);
void vfork_done(Task &parent, Process &child);
void executed(Task &task);
void task_exited(Task &task);
void process_exited(Process &process);

}  // namespace trace
}  // namespace cowbird
