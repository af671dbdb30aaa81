// System calls about signals.
#include "abi/signal.hpp"
#include "proc/proc_internal.hpp"
#include "proc/signal_frame.hpp"
#include "proc/signal_internal.hpp"
#include "sched/wait.hpp"
#include "syscall/syscall.hpp"
#include "syscall/times.hpp"

namespace cowbird {
namespace {

constexpr std::size_t kSigsetBytes = 8;

bool is_signal(int signal) { return signal >= 1 && signal <= kSignalCount; }

Result<SignalSet> read_mask(const SysArgs &args, int set_index, int size_index) {
  if (args.u64(size_index) != kSigsetBytes) return Err(Errno::Inval);
  SignalSet mask(TRY(args.ptr<std::uint64_t>(set_index).read()));
  mask.remove(kSigKill);
  mask.remove(kSigStop);
  return mask;
}

SignalInfo user_signal(const Task &task, int signal, int code) {
  SignalInfo info;
  info.signal = signal;
  info.code = code;
  info.pid = task.process->pid;
  info.uid = task.credentials.uid;
  return info;
}

// One target of kill: permission, then the signal (0 only checks).
Result<void> signal_process(Task &task, Process &target, const SignalInfo &info) {
  if (!may_signal(task, target, info.signal)) return Err(Errno::Perm);
  if (info.signal == 0 || target.zombie) return {};
  return send_signal(target, info);
}

// kill(2) of a group or of everybody: success when one was reached.
class ManyTargets {
 public:
  void add(Result<void> result) {
    any_ = true;
    if (result) {
      reached_ = true;
    } else {
      last_error_ = result.error();
    }
  }
  SysResult finish() const {
    if (reached_) return 0;
    return Err(any_ ? last_error_ : Errno::Srch);
  }

 private:
  bool any_ = false, reached_ = false;
  Errno last_error_ = Errno::Srch;
};

SysResult signal_group(Task &task, int pgid, const SignalInfo &info) {
  ManyTargets targets;
  for_each_in_group(pgid, [&](Process &p) { targets.add(signal_process(task, p, info)); });
  return targets.finish();
}

SysResult signal_everybody(Task &task, const SignalInfo &info) {
  ManyTargets targets;
  for_each_process([&](Process &p) {
    if (p.pid > 1 && &p != task.process.get()) targets.add(signal_process(task, p, info));
  });
  return targets.finish();
}

Result<void> signal_thread(Task &task, int tgid, int tid, const SignalInfo &info) {
  const Ref<Task> target = find_task(tid);
  if (!target || (tgid > 0 && target->process->pid != tgid)) return Err(Errno::Srch);
  if (!may_signal(task, *target->process, info.signal)) return Err(Errno::Perm);
  if (info.signal == 0 || target->killed) return {};
  return send_signal(*target, info);
}

// A program may not pretend that the kernel or kill(2) sent a signal to somebody else.
Result<SignalInfo> read_queue_info(const Task &task, const SysArgs &args, int index, int signal,
                                   int target_pid) {
  const auto raw = TRY(args.ptr<abi::Siginfo>(index).read());
  SignalInfo info = decode_siginfo(raw);
  info.signal = signal;
  if ((info.code >= 0 || info.code == abi::kSI_TKILL) && task.process->pid != target_pid) {
    return Err(Errno::Perm);
  }
  return info;
}

Result<std::int64_t> suspend(Task &task, SignalSet mask) {
  task.saved_mask = task.blocked;
  task.set_blocked(mask);
  while (!task.signal_pending()) {
    (void)sleep_until(kNoDeadline, SleepMode::Interruptible, "sigsuspend");
  }
  return Err(Errno::RestartNoHand);
}

void drop_ignored(Process &process, int signal) {
  if (!signal_ignored(process, signal)) return;
  SignalSet set;
  set.add(signal);
  process.pending.remove(set);
  for (Task *task : process.tasks) task->pending.remove(set);
}

Result<void> set_alternate_stack(Task &task, const abi::StackT &stack) {
  if (alternate_stack_state(task.alt_stack, task.regs().rsp) == abi::kSS_ONSTACK) {
    return Err(Errno::Perm);
  }
  const std::uint32_t mode = stack.flags & ~abi::kSS_AUTODISARM;
  if (mode != abi::kSS_DISABLE && mode != abi::kSS_ONSTACK && mode != 0) return Err(Errno::Inval);
  if (mode == abi::kSS_DISABLE) {
    task.alt_stack = Task::AltStack{0, 0, stack.flags};
    return {};
  }
  if (stack.size < abi::kMINSIGSTKSZ) return Err(Errno::NoMem);
  task.alt_stack = Task::AltStack{stack.sp, stack.size, stack.flags};
  return {};
}

}  // namespace

SysResult sys_rt_sigaction(Task &task, const SysArgs &args) {
  const int signal = args.s32(0);
  if (args.u64(3) != kSigsetBytes || !is_signal(signal)) return Err(Errno::Inval);
  const auto wanted = args.ptr<abi::KernelSigaction>(1);
  const auto old = args.ptr<abi::KernelSigaction>(2);
  if (wanted && (signal == kSigKill || signal == kSigStop)) return Err(Errno::Inval);
  abi::KernelSigaction change{};
  if (wanted) change = TRY(wanted.read());
  SignalAction &slot = task.process->handlers->actions[signal - 1];
  const SignalAction before = slot;
  if (wanted) {
    SignalSet mask(change.mask);
    mask.remove(kSigKill);
    mask.remove(kSigStop);
    slot = SignalAction{change.handler, change.flags & abi::kSA_ALL, change.restorer, mask};
    drop_ignored(*task.process, signal);
  }
  if (old) {
    TRY(old.write({before.handler, before.flags, before.restorer, before.mask.bits()}));
  }
  return 0;
}

SysResult sys_rt_sigprocmask(Task &task, const SysArgs &args) {
  if (args.u64(3) != kSigsetBytes) return Err(Errno::Inval);
  const std::uint64_t before = task.blocked.bits();
  if (args.u64(1) != 0) {
    const std::uint64_t bits = TRY(args.ptr<std::uint64_t>(1).read());
    switch (args.s32(0)) {
      case abi::kSIG_BLOCK:
        task.set_blocked(SignalSet(before | bits));
        break;
      case abi::kSIG_UNBLOCK:
        task.set_blocked(SignalSet(before & ~bits));
        break;
      case abi::kSIG_SETMASK:
        task.set_blocked(SignalSet(bits));
        break;
      default:
        return Err(Errno::Inval);
    }
  }
  if (args.u64(2) != 0) TRY(args.ptr<std::uint64_t>(2).write(before));
  return 0;
}

SysResult sys_rt_sigreturn(Task &task, const SysArgs &) {
  if (!return_from_signal(task)) {
    SignalInfo info;
    info.signal = kSigSegv;
    info.code = abi::kSI_KERNEL;
    task.regs().orig_rax = ~0ull;
    force_signal(task, info);
  }
  return static_cast<std::int64_t>(task.regs().rax);
}

SysResult sys_rt_sigpending(Task &task, const SysArgs &args) {
  if (args.u64(1) > kSigsetBytes) return Err(Errno::Inval);
  const SignalSet pending = (task.pending.set() | task.process->pending.set()) & task.blocked;
  const std::uint64_t bits = pending.bits();
  TRY(copy_out(args.u64(0), &bits, args.u64(1)));
  return 0;
}

SysResult sys_rt_sigsuspend(Task &task, const SysArgs &args) {
  return suspend(task, TRY(read_mask(args, 0, 1)));
}

SysResult sys_pause(Task &task, const SysArgs &) {
  while (!task.signal_pending()) {
    (void)sleep_until(kNoDeadline, SleepMode::Interruptible, "pause");
  }
  return Err(Errno::RestartNoHand);
}

SysResult sys_rt_sigtimedwait(Task &task, const SysArgs &args) {
  const SignalSet wanted = TRY(read_mask(args, 0, 3));
  std::int64_t deadline = kNoDeadline;
  if (args.u64(2) != 0) {
    deadline = deadline_after(TRY(to_ns(TRY(args.ptr<abi::Timespec>(2).read()))));
  }
  SignalInfo info;
  bool taken = take_signal(task, wanted, info);
  if (!taken) {
    // Unblocked meanwhile, so that their arrival wakes this task; `real_blocked` keeps ignored and
    // fatal ones from having their usual effect.
    task.real_blocked = task.blocked;
    task.set_blocked(task.blocked & ~wanted);
    Result<void> slept;
    while (!task.signal_pending() && slept) {
      slept = sleep_until(deadline, SleepMode::Interruptible, "sigtimedwait");
    }
    task.set_blocked(task.real_blocked);
    task.real_blocked = SignalSet();
    taken = take_signal(task, wanted, info);
    if (!taken) return Err(!slept && slept.is(Errno::TimedOut) ? Errno::Again : Errno::Intr);
  }
  if (args.u64(1) != 0) TRY(args.ptr<abi::Siginfo>(1).write(encode_siginfo(info)));
  return info.signal;
}

SysResult sys_rt_sigqueueinfo(Task &task, const SysArgs &args) {
  const int signal = args.s32(1);
  const SignalInfo info = TRY(read_queue_info(task, args, 2, signal, args.s32(0)));
  if (signal < 0 || signal > kSignalCount) return Err(Errno::Inval);
  const Ref<Process> target = find_process(args.s32(0));
  if (!target) return Err(Errno::Srch);
  TRY(signal_process(task, *target, info));
  return 0;
}

SysResult sys_rt_tgsigqueueinfo(Task &task, const SysArgs &args) {
  const int tgid = args.s32(0), tid = args.s32(1), signal = args.s32(2);
  if (tgid <= 0 || tid <= 0 || signal < 0 || signal > kSignalCount) return Err(Errno::Inval);
  TRY(signal_thread(task, tgid, tid, TRY(read_queue_info(task, args, 3, signal, tgid))));
  return 0;
}

SysResult sys_kill(Task &task, const SysArgs &args) {
  const int pid = args.s32(0), signal = args.s32(1);
  if (signal < 0 || signal > kSignalCount) return Err(Errno::Inval);
  const SignalInfo info = user_signal(task, signal, abi::kSI_USER);
  if (pid == -1) return signal_everybody(task, info);
  if (pid == INT32_MIN) return Err(Errno::Srch);
  if (pid <= 0) return signal_group(task, pid == 0 ? task.process->pgid : -pid, info);
  Ref<Process> target = find_process(pid);
  if (!target) {
    // A thread's number names its process.
    const Ref<Task> thread = find_task(pid);
    if (!thread) return Err(Errno::Srch);
    target = thread->process;
  }
  TRY(signal_process(task, *target, info));
  return 0;
}

SysResult sys_tkill(Task &task, const SysArgs &args) {
  const int tid = args.s32(0), signal = args.s32(1);
  if (tid <= 0 || signal < 0 || signal > kSignalCount) return Err(Errno::Inval);
  TRY(signal_thread(task, 0, tid, user_signal(task, signal, abi::kSI_TKILL)));
  return 0;
}

SysResult sys_tgkill(Task &task, const SysArgs &args) {
  const int tgid = args.s32(0), tid = args.s32(1), signal = args.s32(2);
  if (tgid <= 0 || tid <= 0 || signal < 0 || signal > kSignalCount) return Err(Errno::Inval);
  TRY(signal_thread(task, tgid, tid, user_signal(task, signal, abi::kSI_TKILL)));
  return 0;
}

SysResult sys_pidfd_send_signal(Task &task, const SysArgs &args) {
  const int signal = args.s32(1);
  if (args.u64(3) != 0 || signal < 0 || signal > kSignalCount) return Err(Errno::Inval);
  const Ref<File> file = TRY(task.files->get(args.fd(0)));
  const Ref<Process> target = process_of_pidfd_or_directory(*file);
  if (!target) return Err(Errno::BadF);
  SignalInfo info = user_signal(task, signal, abi::kSI_USER);
  if (args.u64(2) != 0) {
    info = TRY(read_queue_info(task, args, 2, signal, target->pid));
    if (TRY(args.ptr<abi::Siginfo>(2).read()).signo != signal) return Err(Errno::Inval);
  }
  if (target->zombie && !find_process(target->pid)) return Err(Errno::Srch);
  TRY(signal_process(task, *target, info));
  return 0;
}

SysResult sys_sigaltstack(Task &task, const SysArgs &args) {
  abi::StackT wanted{};
  if (args.u64(0) != 0) wanted = TRY(args.ptr<abi::StackT>(0).read());
  const Task::AltStack before = task.alt_stack;
  const std::uint32_t state =
      alternate_stack_state(before, task.regs().rsp) | (before.flags & abi::kSS_AUTODISARM);
  if (args.u64(0) != 0) TRY(set_alternate_stack(task, wanted));
  if (args.u64(1) != 0) {
    TRY(args.ptr<abi::StackT>(1).write({before.base, state, 0, before.size}));
  }
  return 0;
}

SysResult sys_restart_syscall(Task &task, const SysArgs &) {
  if (!task.restart) return Err(Errno::Intr);
  const auto restart = std::move(task.restart);
  task.restart = nullptr;
  return restart(task);
}

}  // namespace cowbird
