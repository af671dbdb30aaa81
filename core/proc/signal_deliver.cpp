// Delivering signals on the way back to guest code.
#include "abi/signal.hpp"
#include "abi/wait.hpp"
#include "base/log.hpp"
#include "proc/restart.hpp"
#include "proc/signal_frame.hpp"
#include "proc/signal_internal.hpp"
#include "proc/trace.hpp"
#include "sched/wait.hpp"

namespace cowbird {
namespace {

constexpr std::uint64_t kNrRestartSyscall = 219;
constexpr std::uint64_t kSyscallInstructionLength = 2;

bool in_syscall(const abi::UserRegs &regs) { return regs.orig_rax != ~0ull; }

void apply_restart(abi::UserRegs &regs, Restart restart) {
  switch (restart) {
    case Restart::None:
      return;
    case Restart::Interrupt:
      regs.rax = -static_cast<std::uint64_t>(static_cast<std::uint16_t>(Errno::Intr));
      return;
    case Restart::Again:
      regs.rax = regs.orig_rax;
      break;
    case Restart::Block:
      regs.rax = kNrRestartSyscall;
      break;
  }
  regs.rip -= kSyscallInstructionLength;
}

// The task stands still until SIGCONT or its death.
void stop_here(Task &task) {
  Process &process = *task.process;
  ++process.stopped_tasks;
  check_stop_complete(process);
  while (process.stop_requested && !task.killed) {
    sleep_stopped(ThreadState::Stopped, "do_signal_stop");
  }
  --process.stopped_tasks;
}

void begin_stop(Task &task, int signal) {
  Process &process = *task.process;
  if (process.stop_requested) return;
  process.stop_requested = true;
  process.stop_signal = signal;
  for (Task *other : process.tasks) {
    if (other == &task) continue;
    // Interruptible sleeps end, so that the thread comes to a stop as well.
    wake_task_hard(*other);
  }
}

void die_of_signal(Task &task, const SignalInfo &info) {
  const bool core = default_action(info.signal) == DefaultAction::Core;
  if (core && info.code > 0) {
    log_info("{}[{}] died of signal {} at ip {:#x} sp {:#x}, address {:#x}.", task.comm, task.tid,
             info.signal, task.regs().rip, task.regs().rsp, info.address);
  }
  exit_process(info.signal);
}

// False when the signal has no effect. Does not return when it is fatal.
void default_effect(Task &task, const SignalInfo &info) {
  Process &process = *task.process;
  const DefaultAction action = default_action(info.signal);
  if (action == DefaultAction::Ignore || action == DefaultAction::Continue) return;
  if (process.unkillable) return;
  if (action == DefaultAction::Stop) {
    if (info.signal != kSigStop && process_group_orphaned(process.pgid)) return;
    begin_stop(task, info.signal);
    return;
  }
  die_of_signal(task, info);
}

void enter_handler(Task &task, const SignalInfo &info) {
  SignalAction &slot = task.process->handlers->actions[info.signal - 1];
  const SignalAction action = slot;
  if ((slot.flags & abi::kSA_RESETHAND) != 0) slot.handler = abi::kSIG_DFL;
  abi::UserRegs &regs = task.regs();
  if (in_syscall(regs)) {
    apply_restart(regs, decide_restart(static_cast<std::int64_t>(regs.rax), true, action.flags));
  }
  const SignalSet saved = task.saved_mask ? *task.saved_mask : task.blocked;
  if (!push_signal_frame(task, info, action, saved)) {
    // A handler for SIGSEGV whose frame does not fit cannot run either.
    if (info.signal == kSigSegv) slot = SignalAction{};
    SignalInfo fault;
    fault.signal = kSigSegv;
    fault.code = abi::kSI_KERNEL;
    force_signal(task, fault);
    return;
  }
  // The frame holds a call that was interrupted as it shall go on; no further restart.
  regs.orig_rax = ~0ull;
  task.saved_mask.reset();
  SignalSet mask = task.blocked | action.mask;
  if ((action.flags & abi::kSA_NODEFER) == 0) mask.add(info.signal);
  task.set_blocked(mask);
}

}  // namespace

namespace {

// Everything but what a tracer does last.
void deliver_pending(Task &task) {
  Process &process = *task.process;
  bool handled = false;
  for (;;) {
    if (task.killed) {
      // A thread group that execs (or a killed thread of one that goes on) ends this thread alone.
      if (process.exiting) exit_process(process.exit_status);
      exit_task(kSigKill);
    }
    if (process.stop_requested) {
      stop_here(task);
      continue;
    }
    SignalInfo info;
    if (task.trace && trace::stand_still(task)) continue;
    if (!take_signal(task, ~task.blocked, info)) break;
    if (task.trace && !trace::filter_signal(task, info)) continue;
    const std::uint64_t handler = process.handlers->actions[info.signal - 1].handler;
    if (handler == abi::kSIG_IGN) continue;
    if (handler == abi::kSIG_DFL) {
      default_effect(task, info);
      continue;
    }
    enter_handler(task, info);
    handled = true;
    if (task.trace) trace::entered_handler(task);
  }
  if (handled) return;
  abi::UserRegs &regs = task.regs();
  if (in_syscall(regs)) {
    apply_restart(regs, decide_restart(static_cast<std::int64_t>(regs.rax), false, 0));
    regs.orig_rax = ~0ull;
  }
  if (task.saved_mask) {
    const SignalSet mask = *task.saved_mask;
    task.saved_mask.reset();
    task.set_blocked(mask);
  }
}

}  // namespace

void deliver_signals(Task &task) {
  deliver_pending(task);
  if (task.trace) trace::enter_guest_code(task);
}

}  // namespace cowbird
