// Sending signals, and group stops.
#include "proc/signal.hpp"

#include "abi/signal.hpp"
#include "base/log.hpp"
#include "proc/itimer.hpp"
#include "proc/signal_internal.hpp"
#include "proc/trace.hpp"
#include "sched/scheduler.hpp"

namespace cowbird {
namespace {

SignalSet stop_signals() {
  SignalSet set;
  for (const int signal : {kSigStop, kSigTstp, kSigTtin, kSigTtou}) set.add(signal);
  return set;
}

void remove_everywhere(Process &process, SignalSet signals) {
  process.pending.remove(signals);
  for (Task *task : process.tasks) task->pending.remove(signals);
}

bool has_default_action(const Process &process, int signal) {
  return process.handlers->actions[signal - 1].handler == abi::kSIG_DFL;
}

// A blocked signal is kept even when it is ignored now: its disposition may change.
bool dropped(const Process &process, const Task &task, int signal) {
  if (task.blocked.has(signal) || task.real_blocked.has(signal)) return false;
  if (process.unkillable && has_default_action(process, signal)) return true;
  // A tracer sees also what the program ignores.
  if (task.trace && signal != kSigKill) return false;
  return signal_ignored(process, signal);
}

bool wants(const Task &task, int signal) {
  if (signal == kSigKill) return true;
  // A stopped thread sees only SIGKILL; what else comes waits for SIGCONT (signal(7)).
  if (task.state() == ThreadState::Stopped || task.state() == ThreadState::Traced) return false;
  return !task.killed && !task.blocked.has(signal);
}

Task *choose_receiver(Process &process, Task *target, int signal) {
  if (target != nullptr) return wants(*target, signal) ? target : nullptr;
  Task *leader = process.representative();
  if (leader != nullptr && wants(*leader, signal)) return leader;
  for (Task *task : process.tasks) {
    if (wants(*task, signal)) return task;
  }
  return nullptr;
}

bool kills(const Process &process, const Task &receiver, int signal) {
  if (signal == kSigKill) return true;
  return has_default_action(process, signal) && !receiver.trace &&
         default_action(signal) == DefaultAction::Terminate && !receiver.real_blocked.has(signal);
}

void wake_for_signal(Task &task) {
  if (!wake_interruptible(task)) scheduler::kick(task);
}

}  // namespace

bool signal_ignored(const Process &process, int signal) {
  const SignalAction &action = process.handlers->actions[signal - 1];
  if (action.handler == abi::kSIG_IGN) return true;
  if (action.handler != abi::kSIG_DFL) return false;
  return default_action(signal) == DefaultAction::Ignore ||
         default_action(signal) == DefaultAction::Continue;
}

void wake_task_hard(Task &task) {
  if (&task == current_thread() || wake_interruptible(task)) return;
  if (task.state() == ThreadState::Stopped || task.state() == ThreadState::Traced) {
    wake(task);
  } else {
    scheduler::kick(task);
  }
}

void begin_process_exit(Process &process, int status) {
  if (process.exiting) return;
  process.exiting = true;
  process.exit_status = status;
  process.stop_requested = false;
  for (Task *task : process.tasks) {
    task->killed = true;
    wake_task_hard(*task);
  }
}

SendOutcome post_signal(Process &process, Task *target, const SignalInfo &info, bool forced) {
  const int signal = info.signal;
  KASSERT(signal >= 1 && signal <= kSignalCount);
  Task *first = target != nullptr ? target : process.representative();
  if (process.zombie || first == nullptr) return SendOutcome::Ignored;
  if (stop_signals().has(signal)) {
    SignalSet cont;
    cont.add(kSigCont);
    remove_everywhere(process, cont);
  } else if (signal == kSigCont) {
    remove_everywhere(process, stop_signals());
    continue_process(process);
  }
  if (!forced && dropped(process, *first, signal)) return SendOutcome::Ignored;
  PendingSignals &queue = target != nullptr ? target->pending : process.pending;
  const bool was_pending = queue.set().has(signal);
  // A program may say that code of its own signals; there is one of each standard signal only.
  const bool unlimited = forced || (info.code == abi::kSI_KERNEL && signal < kSigRtMin);
  const std::size_t limit = unlimited ? SIZE_MAX : process.limit(Limit::SigPending);
  if (!queue.add(info, limit)) {
    if (signal >= kSigRtMin) return SendOutcome::Full;
    if (was_pending) return SendOutcome::AlreadyPending;
  }
  process.signalfd_wait.wake_all();
  Task *receiver = choose_receiver(process, target, signal);
  if (receiver == nullptr) return SendOutcome::Queued;
  if (kills(process, *receiver, signal)) {
    begin_process_exit(process, signal);
  } else {
    wake_for_signal(*receiver);
  }
  return SendOutcome::Queued;
}

Result<void> send_signal(Process &process, const SignalInfo &info) {
  if (post_signal(process, nullptr, info) == SendOutcome::Full) return Err(Errno::Again);
  return {};
}

Result<void> send_signal(Task &task, const SignalInfo &info) {
  if (post_signal(*task.process, &task, info) == SendOutcome::Full) return Err(Errno::Again);
  return {};
}

void send_kernel_signal(Process &process, int signal) {
  SignalInfo info;
  info.signal = signal;
  info.code = abi::kSI_KERNEL;
  post_signal(process, nullptr, info);
}

bool send_group_signal(int pgid, const SignalInfo &info) {
  bool any = false;
  for_each_in_group(pgid, [&](Process &process) {
    any = true;
    post_signal(process, nullptr, info);
  });
  return any;
}

void force_signal(Task &task, const SignalInfo &info) {
  SignalAction &action = task.process->handlers->actions[info.signal - 1];
  const bool blocked = task.blocked.has(info.signal);
  if (blocked || action.handler == abi::kSIG_IGN) {
    action = SignalAction{};
    task.blocked.remove(info.signal);
  }
  if (action.handler == abi::kSIG_DFL) task.process->unkillable = false;
  post_signal(*task.process, &task, info, true);
}

bool may_signal(const Task &sender, const Process &target, int signal) {
  if (sender.process.get() == &target) return true;
  const Credentials &own = sender.credentials;
  const Credentials &other = target.credentials();
  if (own.euid == other.suid || own.euid == other.uid || own.uid == other.suid ||
      own.uid == other.uid) {
    return true;
  }
  if (own.capable(Capability::Kill)) return true;
  return signal == kSigCont && sender.process->sid == target.sid;
}

bool take_signal(Task &task, SignalSet allowed, SignalInfo &info) {
  if (!task.pending.take(allowed, info) && !task.process->pending.take(allowed, info)) return false;
  signal_timer_taken(*task.process, info);
  return true;
}

// --- stops

void notify_parent_of_stop(Process &process, int code) {
  const Ref<Process> parent = process.parent;
  if (!parent) return;
  parent->child_wait.wake_all();
  const SignalAction &action = parent->handlers->actions[kSigChld - 1];
  if (action.handler == abi::kSIG_IGN || (action.flags & abi::kSA_NOCLDSTOP) != 0) return;
  const ResourceUsage usage = process.total_usage();
  SignalInfo info;
  info.signal = kSigChld;
  info.code = code;
  info.pid = process.pid;
  info.uid = process.credentials().uid;
  info.status = code == abi::kCLD_CONTINUED ? kSigCont : process.stop_signal;
  info.utime = usage.user_ns;
  info.stime = usage.system_ns;
  post_signal(*parent, nullptr, info);
}

void check_stop_complete(Process &process) {
  if (!process.stop_requested || process.stopped || process.tasks.empty()) return;
  if (process.stopped_tasks < process.tasks.size()) return;
  process.stopped = true;
  process.stop_reported = false;
  process.continued_unreported = false;
  notify_parent_of_stop(process, abi::kCLD_STOPPED);
}

void continue_process(Process &process) {
  if (!process.stop_requested) return;
  process.stop_requested = false;
  const bool was_stopped = std::exchange(process.stopped, false);
  process.stop_reported = true;
  for (Task *task : process.tasks) {
    if (task->state() == ThreadState::Stopped) wake(*task);
  }
  if (!was_stopped) return;
  process.continued_unreported = true;
  notify_parent_of_stop(process, abi::kCLD_CONTINUED);
}

}  // namespace cowbird
