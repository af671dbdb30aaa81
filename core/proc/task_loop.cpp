// The loop of every task: guest code runs, traps, is served, and runs again. The hot path of the
// kernel.
#include "abi/signal.hpp"
#include "base/log.hpp"
#include "base/rate_limit.hpp"
#include "proc/itimer.hpp"
#include "proc/oom.hpp"
#include "proc/proc_internal.hpp"
#include "proc/trace.hpp"
#include "sched/clock.hpp"
#include "sched/scheduler.hpp"
#include "syscall/syscall.hpp"

namespace cowbird {
namespace {

constexpr std::uint64_t kX32Bit = 0x40000000;
constexpr std::uint64_t kPageFaultVector = 14;
constexpr std::uint64_t kGeneralProtectionVector = 13;
// Bits of a page fault's error code: the page was there, a write, from user mode, a fetch.
constexpr std::uint64_t kPresent = 1, kWrite = 2, kUser = 4, kFetch = 16;

void fault_signal(Task &task, int signal, int code, VirtAddr address) {
  SignalInfo info;
  info.signal = signal;
  info.code = code;
  info.address = address;
  force_signal(task, info);
}

void record_fault(Task &task, const Trap &trap, bool present) {
  task.fault_address = trap.address;
  task.fault_vector = kPageFaultVector;
  task.fault_error_code = kUser | (present ? kPresent : 0) |
                          (trap.access == FaultAccess::Write ? kWrite : 0) |
                          (trap.access == FaultAccess::Exec ? kFetch : 0);
}

// Nobody is left whose end would give memory back.
void out_of_memory(Task &task) {
  if (task.process->unkillable) {
    panic("Out of memory: process 1 ({}) needs more, and there is no process that could be killed.",
          task.comm);
  }
  log_err("Out of memory: process {} ({}) is killed, as there is no other one that could be.",
          task.process->pid, task.comm);
  fault_signal(task, kSigKill, abi::kSI_KERNEL, 0);
}

void serve_fault(Task &task, const Trap &trap) {
  for (;;) {
    switch (task.mm->handle_fault(trap.address, trap.access)) {
      case FaultOutcome::Resolved:
      case FaultOutcome::Interrupted:
        return;
      case FaultOutcome::NoMapping:
        record_fault(task, trap, false);
        fault_signal(task, kSigSegv, abi::kSEGV_MAPERR, trap.address);
        return;
      case FaultOutcome::NoAccess:
        record_fault(task, trap, true);
        fault_signal(task, kSigSegv, abi::kSEGV_ACCERR, trap.address);
        return;
      case FaultOutcome::BeyondEnd:
      case FaultOutcome::IoError:
        record_fault(task, trap, false);
        fault_signal(task, kSigBus, abi::kBUS_ADRERR, trap.address);
        return;
      case FaultOutcome::OutOfMemory:
        if (wait_for_memory()) break;
        // Who ends already gives its memory back by itself.
        if (!task.killed) out_of_memory(task);
        return;
    }
  }
}

void serve_exception(Task &task, const Trap &trap) {
  task.fault_vector = trap.vector;
  task.fault_error_code = trap.error_code;
  SignalInfo info;
  info.signal = trap.signal;
  info.code = trap.signal_code;
  // What Linux calls si_addr: the instruction for most, nothing for a protection fault.
  info.address = trap.vector == kGeneralProtectionVector ? trap.address : task.regs().rip;
  if (info.signal < 1 || info.signal > kSignalCount) info.signal = kSigSegv;
  force_signal(task, info);
}

void serve_syscall(Task &task, const Trap &trap) {
  if (trap.foreign_abi) [[unlikely]] {
    if ((task.regs().orig_rax & kX32Bit) != 0) {
      task.regs().rax = -static_cast<std::uint64_t>(static_cast<std::uint16_t>(Errno::NoSys));
      return;
    }
    // int $0x80 on a kernel without 32-bit support is a protection fault at the instruction.
    task.regs().orig_rax = ~0ull;
    task.fault_vector = kGeneralProtectionVector;
    task.fault_error_code = 0x80 * 8 + 2;
    fault_signal(task, kSigSegv, abi::kSI_KERNEL, 0);
    return;
  }
  dispatch_syscall(task);
}

// Hostile programs die of this at will, so it must not fill the log; but process 1's death is told.
void log_lost_host_process(const Task &task) {
  static RateLimit limit(10, kNsPerSec);
  const auto missed = limit.pass(clock::monotonic_ns());
  if (!missed && task.process->pid != 1) return;
  if (missed.value_or(0) > 0) log_warn("{} more programs have lost their host process.", *missed);
  log_warn("Process {} ({}) dies, as the host process behind it is gone: {}.", task.process->pid,
           task.comm, task.mm->host().end_reason());
}

void serve(Task &task, const Trap &trap) {
  switch (trap.kind) {
    case TrapKind::SystemCall:
      serve_syscall(task, trap);
      return;
    case TrapKind::PageFault:
      task.regs().orig_rax = ~0ull;
      serve_fault(task, trap);
      return;
    case TrapKind::Exception:
      task.regs().orig_rax = ~0ull;
      serve_exception(task, trap);
      return;
    case TrapKind::Interrupted:
      task.regs().orig_rax = ~0ull;
      return;
    case TrapKind::Dead:
      log_lost_host_process(task);
      exit_process(kSigKill);
  }
}

// The same for a task that a tracer follows.
__attribute__((noinline)) void serve_traced(Task &task, const Trap &trap) {
  trace::left_guest_code(task, trap);
  if (trap.kind == TrapKind::SystemCall && !trap.foreign_abi) {
    if (trace::enter_system_call(task)) serve(task, trap);
    trace::leave_system_call(task);
    return;
  }
  if (trap.kind == TrapKind::Exception && trace::take_exception(task, trap)) {
    task.regs().orig_rax = ~0ull;
    return;
  }
  serve(task, trap);
}

bool restarts(const abi::UserRegs &regs) {
  const auto result = static_cast<std::int64_t>(regs.rax);
  return result <= -static_cast<std::int64_t>(Errno::RestartSys) &&
         result >= -static_cast<std::int64_t>(Errno::RestartBlock);
}

}  // namespace

void task_main() {
  Task &task = current_task();
  for (;;) {
    scheduler::cond_resched();
    // An interrupted call is set up again even when the signal has gone elsewhere since.
    const bool in_call = task.regs().orig_rax != ~0ull;
    if (task.needs_attention() || (in_call && (restarts(task.regs()) || task.saved_mask)))
        [[unlikely]] {
      deliver_signals(task);
    }
    task.mm->reap_retired();
    // execve replaces the context, so it is looked up at each turn.
    Context &context = *task.context;
    const Trap trap = scheduler::run_user(context, [&context] { return context.run(); });
    if (task.trace) [[unlikely]] {
      serve_traced(task, trap);
    } else {
      serve(task, trap);
    }
  }
}

}  // namespace cowbird
