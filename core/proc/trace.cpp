#include "proc/trace.hpp"

#include <algorithm>
#include <array>

#include "abi/signal.hpp"
#include "base/log.hpp"
#include "engine/platform.hpp"
#include "mm/phys_memory.hpp"
#include "mm/user_access.hpp"
#include "proc/signal_internal.hpp"
#include "proc/task.hpp"
#include "sched/scheduler.hpp"
#include "sched/wait.hpp"

namespace cowbird {

constexpr std::byte kInt3{0xcc};
constexpr std::uint8_t kDebugVector = 1, kBreakpointVector = 3;
constexpr std::byte kInt{0xcd};

// --- breakpoints

Result<void> TraceBreakpoints::insert(Mm &mm, VirtAddr address) {
  if (original_.contains(address)) return Err(Errno::Exist);
  std::byte before{};
  TRY(copy_in_mm(mm, &before, address, 1));
  if (!lifted_) TRY(poke_mm(mm, address, &kInt3, 1));
  original_[address] = before;
  return {};
}

Result<void> TraceBreakpoints::remove(Mm &mm, VirtAddr address) {
  if (!original_.contains(address)) return Err(Errno::NoEnt);
  if (!lifted_) put_original(mm, address);
  original_.erase(address);
  return {};
}

void TraceBreakpoints::remove_all(Mm &mm) {
  lift(mm);
  original_.clear();
  lifted_ = false;
}

// What cannot be written was unmapped by the program meanwhile, and the int3 with it.
void TraceBreakpoints::put_original(Mm &mm, VirtAddr address) {
  const auto found = original_.find(address);
  if (found == original_.end()) return;
  std::byte now{};
  if (!copy_in_mm(mm, &now, address, 1) || now != kInt3) return;
  static_cast<void>(poke_mm(mm, address, &found->second, 1));
}

void TraceBreakpoints::put_int3(Mm &mm, VirtAddr address) {
  const auto found = original_.find(address);
  if (found == original_.end()) return;
  std::byte now{};
  // Another file may be mapped there by now.
  if (!copy_in_mm(mm, &now, address, 1) || now != found->second) return;
  static_cast<void>(poke_mm(mm, address, &kInt3, 1));
}

void TraceBreakpoints::lift(Mm &mm) {
  if (lifted_) return;
  for (const auto &[address, byte] : original_) put_original(mm, address);
  lifted_ = true;
}

void TraceBreakpoints::lower(Mm &mm) {
  if (!lifted_) return;
  lifted_ = false;
  for (const auto &[address, byte] : original_) put_int3(mm, address);
}

Ref<TraceBreakpoints> TraceBreakpoints::copy() const {
  auto made = make_ref<TraceBreakpoints>();
  made->original_ = original_;
  made->lifted_ = lifted_;
  return made;
}

void TraceBreakpoints::restore_in(Mm &mm) const {
  if (lifted_) return;
  Ref<TraceBreakpoints> own = copy();
  own->remove_all(mm);
}

void TraceBreakpoints::hide(VirtAddr address, std::span<std::byte> bytes) const {
  if (lifted_) return;
  for (auto it = original_.lower_bound(address);
       it != original_.end() && it->first - address < bytes.size(); ++it) {
    std::byte &byte = bytes[it->first - address];
    if (byte == kInt3) byte = it->second;
  }
}

void TraceBreakpoints::write_under(VirtAddr address, std::span<std::byte> bytes) {
  for (auto it = original_.lower_bound(address);
       it != original_.end() && it->first - address < bytes.size(); ++it) {
    std::byte &byte = bytes[it->first - address];
    it->second = byte;
    if (!lifted_) byte = kInt3;
  }
}

// --- tasks

struct TraceInternals {
  // Whether the task has something to do on its way to guest code.
  static void update(Task &task) {
    const TracedTask *t = task.trace.get();
    task.trace_attention =
        t != nullptr && (t->held || t->held_for_step || t->stop_requested || t->step ||
                         t->stepping_over != 0 || !t->pending.empty());
  }
  static void start(Task &task, const Ref<TracedProcess> &process) {
    task.trace = make_ref<TracedTask>(process);
  }
  static void push(Task &task, TraceStop stop) {
    task.trace->pending.push_back(stop);
    update(task);
  }
  static void set_held(Task &task, bool held) {
    task.trace->held = held;
    update(task);
    if (!held && !task.trace->stopped && task.state() == ThreadState::Traced) wake(task);
  }
  static bool held(const Task &task) { return task.trace->held; }
  static bool must_wait(const Task &task) {
    return task.trace && !task.killed && (task.trace->held || task.trace->held_for_step);
  }

  static void request(Task &task) {
    if (task.trace->stopped) return;
    task.trace->stop_requested = true;
    update(task);
    if (!wake_interruptible(task)) scheduler::kick(task);
  }
  static bool requested(const TracedTask &t) { return t.stop_requested; }

  // Every task of the memory but this one waits while it steps over a breakpoint.
  static void hold_others(Task &task, bool held) {
    for_each_task([&](Task &other) {
      if (&other == &task || other.mm != task.mm || !other.trace) return;
      other.trace->held_for_step = held;
      update(other);
      if (held) {
        scheduler::kick(other);
      } else if (!must_wait(other) && !other.trace->stopped &&
                 other.state() == ThreadState::Traced) {
        wake(other);
      }
    });
  }
  // The task whose turn it is steps over the breakpoint at its rip.
  static void lift_and_step(Task &task) {
    TracedTask &t = *task.trace;
    t.stepping_over = task.regs().rip;
    t.held_for_step = t.waits_to_step_over = false;
    t.process->breakpoints->lift_one(*task.mm, t.stepping_over);
    update(task);
  }
  static void begin_step_over(Task &task) {
    if (!task.trace->process->breakpoints->has(task.regs().rip)) return;
    // One at a time: the others would pass unseen.
    if (neighbour(task, [](const TracedTask &t) { return t.stepping_over != 0; })) {
      task.trace->waits_to_step_over = true;
      return;
    }
    hold_others(task, true);
    lift_and_step(task);
  }
  static void end_step_over(Task &task) {
    TracedTask &t = *task.trace;
    t.waits_to_step_over = false;
    if (t.stepping_over == 0) return;
    const VirtAddr at = std::exchange(t.stepping_over, 0);
    if (task.mm) t.process->breakpoints->lower_one(*task.mm, at);
    update(task);
    Task *next = neighbour(
        task, [](const TracedTask &other) { return other.waits_to_step_over && !other.stopped; });
    if (!next) {
      hold_others(task, false);
      return;
    }
    t.held_for_step = true;
    update(task);
    lift_and_step(*next);
    if (next->state() == ThreadState::Traced && !must_wait(*next)) wake(*next);
  }
  // A traced task of the same memory of which this is true.
  template <typename Condition>
  static Task *neighbour(const Task &task, Condition &&condition) {
    Task *found = nullptr;
    for_each_task([&](Task &other) {
      if (&other != &task && other.mm == task.mm && other.trace && condition(*other.trace)) {
        found = &other;
      }
    });
    return found;
  }

  static void resume(Task &task, const TraceResume &how) {
    TracedTask &t = *task.trace;
    t.held = false;
    t.step = how.step;
    t.range_low = how.range_low;
    t.range_high = how.range_high;
    const bool was_stopped = t.stopped;
    const bool at_signal = was_stopped && t.stop.event == TraceEvent::Signal;
    if (at_signal) {
      t.resume_signal = how.signal;
    } else if (how.signal != 0) {
      SignalInfo info;
      info.signal = how.signal;
      t.unreported = how.signal;
      post_signal(*task.process, &task, info);
    }
    t.stopped = false;
    if (how.step_over && was_stopped) begin_step_over(task);
    update(task);
    if (task.state() == ThreadState::Traced && !must_wait(task)) wake(task);
  }

  // The task stands still until it is resumed, detached or killed.
  static void stop(Task &task, TraceStop stop) {
    Ref<TracedTask> t = task.trace;
    end_step_over(task);
    t->stopped = true;
    t->step = false;
    t->stop_requested = false;
    t->stop = stop;
    t->resume_signal = 0;
    update(task);
    t->process->tracer.task_stopped(task, t->stop);
    while (t->stopped && !task.killed) sleep_stopped(ThreadState::Traced, "ptrace_stop");
  }

  static void end(Task &task) {
    const Ref<TracedTask> t = std::move(task.trace);
    task.trace.reset();
    update(task);
    if (!t) return;
    if (t->flag_set && task.context) task.regs().eflags &= ~abi::kFlagTf;
    // A fault comes again if its cause is still there; it may have been the tracer's own doing.
    if (t->stopped && t->stop.event == TraceEvent::Signal && !is_fault(t->stop.info)) {
      t->resume_signal = t->stop.info.signal;
    }
    t->stopped = t->held = false;
    if (task.state() == ThreadState::Traced) wake(task);
  }

  static bool is_fault(const SignalInfo &info) {
    const bool can_be = info.signal == kSigSegv || info.signal == kSigBus ||
                        info.signal == kSigIll || info.signal == kSigFpe || info.signal == kSigTrap;
    return can_be && info.code > 0;
  }

  static void left_guest(Task &task, bool by_call) {
    TracedTask &t = *task.trace;
    if (!std::exchange(t.flag_set, false)) return;
    task.regs().eflags &= ~abi::kFlagTf;
    if (by_call) task.regs().r11 &= ~abi::kFlagTf;
  }
  static bool wants_step(const TracedTask &t) { return t.step; }
  static void enter_guest(Task &task) {
    TracedTask &t = *task.trace;
    const bool step = t.step || t.stepping_over != 0;
    if (!step || (task.regs().eflags & abi::kFlagTf) != 0) return;  // or the program steps itself
    task.regs().eflags |= abi::kFlagTf;
    t.flag_set = true;
  }
  static bool in_range(const Task &task) {
    const TracedTask &t = *task.trace;
    const VirtAddr rip = task.context->regs().rip;
    return rip >= t.range_low && rip < t.range_high;
  }
  static bool debug_trap(Task &task) {
    TracedTask &t = *task.trace;
    const bool ours = t.flag_set;
    left_guest(task, false);
    if (!ours) return false;
    end_step_over(task);
    if (t.step && !in_range(task)) step_done(task);
    return true;
  }
  static void step_done(Task &task) {
    task.trace->step = false;
    TraceStop stop;
    stop.event = TraceEvent::Step;
    stop.info.signal = kSigTrap;
    stop.info.code = kTrapTrace;
    stop.info.address = task.regs().rip;
    push(task, stop);
  }
  static bool breakpoint_trap(Task &task) {
    const VirtAddr at = task.regs().rip - 1;
    if (!task.trace->process->breakpoints->has(at)) return false;
    task.regs().rip = at;
    TraceStop stop;
    stop.event = TraceEvent::Breakpoint;
    stop.address = at;
    stop.info.signal = kSigTrap;
    stop.info.code = abi::kSI_KERNEL;
    task.trace->step = false;
    push(task, stop);
    return true;
  }
  static bool stale(const Task &task, const TraceStop &stop) {
    return stop.event == TraceEvent::Breakpoint &&
           (!task.trace->process->breakpoints->has(stop.address) ||
            task.context->regs().rip != stop.address);
  }
  static bool stand_still(Task &task) {
    TracedTask &t = *task.trace;
    if (must_wait(task)) {
      while (must_wait(task)) sleep_stopped(ThreadState::Traced, "ptrace_stop");
      return true;
    }
    if (!t.pending.empty()) {
      const TraceStop next = t.pending.front();
      t.pending.pop_front();
      update(task);
      if (!stale(task, next)) stop(task, next);
      return true;
    }
    if (t.stop_requested) {
      stop(task, TraceStop{});
      return true;
    }
    return false;
  }

  static bool filter(Task &task, SignalInfo &info) {
    Ref<TracedTask> t = task.trace;
    if (info.signal == kSigKill || t->process->pass.has(info.signal)) return true;
    if (t->unreported == info.signal) {
      t->unreported = 0;
      return true;
    }
    TraceStop at;
    at.event = TraceEvent::Signal;
    at.info = info;
    stop(task, at);
    if (task.killed || t->resume_signal == 0) return false;
    if (t->resume_signal == info.signal) {
      info = t->stop.info;
      info.signal = t->resume_signal;
    } else {
      info = SignalInfo{};
      info.signal = t->resume_signal;
    }
    return true;
  }

  static bool catches(const TracedProcess &process, std::uint64_t number) {
    return process.syscalls &&
           (process.syscall_numbers.empty() || process.syscall_numbers.contains(number));
  }
  static bool enter_call(Task &task) {
    const std::uint64_t number = task.regs().orig_rax;
    if (!catches(*task.trace->process, number)) return true;
    TraceStop at;
    at.event = TraceEvent::SyscallEntry;
    at.number = number;
    stop(task, at);
    if (task.trace) task.trace->caught_call = number;
    return !task.killed && task.regs().orig_rax != ~0ull;
  }
  static void leave_call(Task &task) {
    TracedTask &t = *task.trace;
    const std::uint64_t number = std::exchange(t.caught_call, ~0ull);
    if (number != ~0ull && catches(*t.process, number)) {
      TraceStop stop;
      stop.event = TraceEvent::SyscallReturn;
      stop.number = number;
      push(task, stop);
    }
    if (t.step && !in_range(task)) step_done(task);
  }
  static void forget_memory(Task &task) {
    TracedTask &t = *task.trace;
    if (std::exchange(t.stepping_over, 0) != 0) hold_others(task, false);
    t.pending.clear();
    t.flag_set = false;
    t.range_low = t.range_high = 0;
    update(task);
  }

 private:
  static constexpr int kTrapTrace = 2;  // TRAP_TRACE
};

namespace trace {
namespace {

using Internals = TraceInternals;

Mm *memory_of(const Process &process) {
  for (const Task *task : process.tasks) {
    if (task->mm) return task->mm.get();
  }
  return nullptr;
}

// Nobody else's breakpoints are in this memory.
bool owns_breakpoints(const TracedProcess &process) {
  return process.breakpoints->ref_count() == 1;
}

}  // namespace

Result<void> attach(Process &process, Tracer &tracer) {
  if (process.trace) return Err(Errno::Perm);
  if (process.zombie || process.tasks.empty()) return Err(Errno::Srch);
  process.trace = make_ref<TracedProcess>(tracer);
  for (Task *task : process.tasks) Internals::start(*task, process.trace);
  return {};
}

void detach(Process &process) {
  if (!process.trace) return;
  const Ref<Process> keep(&process);
  const Ref<TracedProcess> traced = std::move(process.trace);
  process.trace.reset();
  for (Task *task : process.tasks) {
    if (task->trace) Internals::end_step_over(*task);
  }
  if (Ref<Mm> mm(memory_of(process)); mm && owns_breakpoints(*traced)) {
    traced->breakpoints->remove_all(*mm);
  }
  for (Task *task : process.tasks) Internals::end(*task);
}

void request_stop(Task &task) { Internals::request(task); }

bool stop_requested(const Task &task) { return Internals::requested(*task.trace); }

void hold(Task &task, bool held) {
  if (task.trace) Internals::set_held(task, held);
}

bool is_held(const Task &task) { return task.trace && Internals::held(task); }

void resume(Task &task, const TraceResume &how) {
  if (task.trace) Internals::resume(task, how);
}

Result<abi::UserRegs> registers(Task &task) {
  if (!task.context) return Err(Errno::Srch);
  if (task.state() == ThreadState::Running && &task != current_thread()) return Err(Errno::Busy);
  abi::UserRegs regs = task.regs();
  regs.cs = abi::kUserCs;
  regs.ss = abi::kUserSs;
  return regs;
}

Result<void> set_registers(Task &task, const abi::UserRegs &registers) {
  if (!task.context) return Err(Errno::Srch);
  if (task.state() == ThreadState::Running) return Err(Errno::Busy);
  // Arithmetic flags, TF, DF, RF and AC; the others are the processor's.
  constexpr std::uint64_t kUserFlags = 0x00050dd5;
  abi::UserRegs &regs = task.regs();
  const std::uint64_t flags = (regs.eflags & ~kUserFlags) | (registers.eflags & kUserFlags);
  regs = registers;
  regs.eflags = flags;
  regs.cs = abi::kUserCs;
  regs.ss = abi::kUserSs;
  regs.ds = regs.es = regs.fs = regs.gs = 0;
  return {};
}

bool in_system_call(const Task &task) { return task.syscall_number != ~0ull; }

Result<std::size_t> read_memory(Process &process, VirtAddr address, std::span<std::byte> out) {
  const Ref<Mm> mm(memory_of(process));
  if (!mm) return Err(Errno::Srch);
  std::size_t done = 0;
  // Page by page, so that what can be read before a hole is.
  while (done < out.size()) {
    const VirtAddr at = address + done;
    const std::size_t count =
        std::min<std::size_t>(kPageSize - (at & kPageMask), out.size() - done);
    if (!copy_in_mm(*mm, out.data() + done, at, count)) break;
    done += count;
  }
  if (done == 0 && !out.empty()) return Err(Errno::Fault);
  if (process.trace) process.trace->breakpoints->hide(address, out.first(done));
  return done;
}

Result<std::size_t> write_memory(Process &process, VirtAddr address,
                                 std::span<const std::byte> data) {
  const Ref<Mm> mm(memory_of(process));
  if (!mm) return Err(Errno::Srch);
  std::size_t done = 0;
  while (done < data.size()) {
    const VirtAddr at = address + done;
    const std::size_t count =
        std::min<std::size_t>(kPageSize - (at & kPageMask), data.size() - done);
    std::array<std::byte, kPageSize> bytes;
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(done), count, bytes.begin());
    const std::span<std::byte> piece = std::span(bytes).first(count);
    if (process.trace) process.trace->breakpoints->write_under(at, piece);
    if (!poke_mm(*mm, at, piece.data(), count)) break;
    done += count;
  }
  if (done == 0 && !data.empty()) return Err(Errno::Fault);
  return done;
}

Result<void> insert_breakpoint(Process &process, VirtAddr address) {
  const Ref<Mm> mm(memory_of(process));
  if (!process.trace || !mm) return Err(Errno::Srch);
  return process.trace->breakpoints->insert(*mm, address);
}

Result<void> remove_breakpoint(Process &process, VirtAddr address) {
  const Ref<Mm> mm(memory_of(process));
  if (!process.trace || !mm) return Err(Errno::Srch);
  return process.trace->breakpoints->remove(*mm, address);
}

void left_guest_code(Task &task, const Trap &trap) {
  // A debug exception is looked at first, because it depends on whose flag it was.
  if (trap.kind == TrapKind::Exception && trap.vector == kDebugVector) return;
  Internals::left_guest(task, trap.kind == TrapKind::SystemCall);
  // The instruction is done, and the call may take long.
  if (trap.kind == TrapKind::SystemCall) Internals::end_step_over(task);
}

bool enter_system_call(Task &task) { return Internals::enter_call(task); }

void leave_system_call(Task &task) {
  if (task.trace) Internals::leave_call(task);
}

namespace {

// A task may meet a tracer's int3 just when that is taken out, here or with the whole trace: the
// instruction that is there now has not been executed. One of the program's own is still there.
bool met_what_is_gone(Task &task) {
  const VirtAddr behind = task.regs().rip;
  std::array<std::byte, 2> code{};  // int3, or int with its number
  if (!task.mm || !copy_in_mm(*task.mm, code.data(), behind - code.size(), code.size()))
    return false;
  if (code[1] == kInt3 || (code[0] == kInt && code[1] == std::byte{kBreakpointVector}))
    return false;
  task.regs().rip = behind - 1;
  return true;
}

}  // namespace

bool take_exception(Task &task, const Trap &trap) {
  if (trap.vector == kBreakpointVector)
    return (task.trace && Internals::breakpoint_trap(task)) || met_what_is_gone(task);
  if (!task.trace) return false;
  if (trap.vector != kDebugVector) return false;
  return Internals::debug_trap(task);
}

bool stand_still(Task &task) { return Internals::stand_still(task); }

bool filter_signal(Task &task, SignalInfo &info) { return Internals::filter(task, info); }

void entered_handler(Task &task) {
  if (Internals::wants_step(*task.trace)) Internals::step_done(task);
}

void enter_guest_code(Task &task) { Internals::enter_guest(task); }

void child_made(Task &parent, Task &child, bool is_thread, bool is_vfork) {
  const Ref<TracedProcess> from = parent.trace->process;
  if (is_thread) {
    Internals::start(child, from);
    if (!from->threads) return;
    TraceStop stop;
    stop.event = TraceEvent::Created;
    Internals::push(child, stop);
    return;
  }
  const bool shares = child.mm == parent.mm;
  if (!from->forks) {
    if (!shares) {
      from->breakpoints->restore_in(*child.mm);
    } else if (is_vfork) {
      from->breakpoints->lift(*child.mm);
    }
    return;
  }
  auto traced = make_ref<TracedProcess>(from->tracer);
  traced->forks = from->forks;
  traced->execs = from->execs;
  traced->threads = from->threads;
  traced->syscalls = from->syscalls;
  traced->syscall_numbers = from->syscall_numbers;
  traced->pass = from->pass;
  traced->breakpoints = shares ? from->breakpoints : from->breakpoints->copy();
  child.process->trace = traced;
  Internals::start(child, traced);
  Internals::set_held(child, true);
}

void child_started(Task &parent, Process &child, bool is_vfork) {
  if (!parent.trace || !child.trace) return;
  TraceStop at;
  at.event = is_vfork ? TraceEvent::Vfork : TraceEvent::Fork;
  at.child = child.pid;
  Internals::stop(parent, at);
}

void vfork_done(Task &parent, Process &child) {
  if (!parent.trace) return;
  if (parent.mm) parent.trace->process->breakpoints->lower(*parent.mm);
  if (!parent.trace->process->forks) return;
  TraceStop stop;
  stop.event = TraceEvent::VforkDone;
  stop.child = child.pid;
  Internals::push(parent, stop);
}

void executed(Task &task) {
  TracedProcess &process = *task.trace->process;
  Internals::forget_memory(task);
  process.breakpoints = make_ref<TraceBreakpoints>();
  if (!process.execs) return;
  TraceStop stop;
  stop.event = TraceEvent::Exec;
  Internals::push(task, stop);
}

void task_exited(Task &task) {
  const Ref<TracedProcess> process = task.trace->process;
  Internals::end_step_over(task);
  Internals::end(task);
  process->tracer.task_exited(task);
}

void process_exited(Process &process) {
  const Ref<TracedProcess> traced = std::move(process.trace);
  process.trace.reset();
  traced->tracer.process_exited(process, process.exit_status);
}

}  // namespace trace
}  // namespace cowbird
