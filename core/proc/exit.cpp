// The end of tasks and processes.
#include <algorithm>

#include "abi/futex.hpp"
#include "abi/signal.hpp"
#include "abi/wait.hpp"
#include "base/log.hpp"
#include "mm/user_access.hpp"
#include "proc/futex.hpp"
#include "proc/itimer.hpp"
#include "proc/proc_internal.hpp"
#include "proc/signal_internal.hpp"
#include "proc/trace.hpp"
#include "tty/tty.hpp"

namespace cowbird {

const std::function<void(int)> &get_init_exit_hook();

namespace {

// A robust mutex's word: marks the owner as dead and wakes one waiter.
void release_robust_futex(Task &task, VirtAddr address, bool pending) {
  if ((address & 3) != 0) return;
  for (;;) {
    const auto old = load_user_u32(address);
    if (!old) return;
    // The owner died between taking its name off and waking: somebody must be woken all the same.
    if (pending && *old == 0) {
      futex_wake_address(*task.mm, address, 1);
      return;
    }
    if ((*old & abi::kFUTEX_TID_MASK) != static_cast<std::uint32_t>(task.tid)) return;
    const std::uint32_t wanted = (*old & abi::kFUTEX_WAITERS) | abi::kFUTEX_OWNER_DIED;
    const auto seen = cmpxchg_user_u32(address, *old, wanted);
    if (!seen) return;
    if (*seen != *old) continue;
    if ((*old & abi::kFUTEX_WAITERS) != 0) futex_wake_address(*task.mm, address, 1);
    return;
  }
}

}  // namespace

// get_robust_list(2); the list is the guest's, so it is bounded.
void exit_robust_list(Task &task) {
  const VirtAddr head_address = std::exchange(task.robust_list, 0);
  if (head_address == 0 || !task.mm) return;
  const auto head = UserPtr<abi::RobustListHead>(head_address).read();
  if (!head) return;
  const auto futex_of = [&](std::uint64_t entry) {
    return (entry & ~1ull) + static_cast<std::uint64_t>(head->futex_offset);
  };
  std::uint64_t entry = head->next;
  for (unsigned i = 0; i < abi::kROBUST_LIST_LIMIT && (entry & ~1ull) != head_address; ++i) {
    const auto next = UserPtr<std::uint64_t>(entry & ~1ull).read();
    if ((entry & ~1ull) != (head->pending & ~1ull)) {
      release_robust_futex(task, futex_of(entry), false);
    }
    if (!next) return;
    entry = *next;
  }
  if ((head->pending & ~1ull) != 0) release_robust_futex(task, futex_of(head->pending), true);
}

namespace {

// set_tid_address(2): pthread_join waits for this word. Not when the memory goes anyway.
void clear_tid(Task &task) {
  const VirtAddr address = std::exchange(task.clear_child_tid, 0);
  if (address == 0 || !task.mm || task.mm->users < 2) return;
  const std::uint32_t zero = 0;
  if (copy_out(address, &zero, sizeof(zero))) futex_wake_address(*task.mm, address, 1);
}

Ref<Process> find_reaper(const Process &process) {
  for (Ref<Process> p = process.parent; p; p = p->parent) {
    if (p->is_subreaper && !p->zombie && !p->exiting) return p;
  }
  return Ref<Process>(init_process());
}

void send_to_group(int pgid, int signal) {
  SignalInfo info;
  info.signal = signal;
  info.code = abi::kSI_KERNEL;
  send_group_signal(pgid, info);
}

bool group_has_stopped(int pgid) {
  bool any = false;
  for_each_in_group(pgid, [&](Process &process) { any = any || process.stopped; });
  return any;
}

// A group that has become orphaned with stopped members gets SIGHUP and SIGCONT.
void signal_orphaned_group(int pgid) {
  if (!process_group_orphaned(pgid) || !group_has_stopped(pgid)) return;
  send_to_group(pgid, kSigHup);
  send_to_group(pgid, kSigCont);
}

void send_parent_death_signal(Process &child) {
  for (Task *task : std::vector<Task *>(child.tasks)) {
    if (task->parent_death_signal == 0) continue;
    SignalInfo info;
    info.signal = task->parent_death_signal;
    info.code = abi::kSI_USER;
    (void)send_signal(*task, info);
  }
}

void reparent_children(Process &process) {
  if (process.children.empty()) return;
  const Ref<Process> reaper = find_reaper(process);
  const std::vector<Ref<Process>> children = std::move(process.children);
  process.children.clear();
  for (const Ref<Process> &child : children) {
    const int old_group_parent = process.pgid;
    child->parent = reaper;
    child->parent_tid = reaper->pid;
    child->exit_signal = kSigChld;
    reaper->children.push_back(child);
    send_parent_death_signal(*child);
    if (child->zombie && notify_parent_of_exit(*child)) {
      reap_process(*child);
      continue;
    }
    if (child->pgid != old_group_parent && child->sid == process.sid) {
      signal_orphaned_group(child->pgid);
    }
  }
}

void end_of_init(const Process &process) {
  if (const auto &hook = get_init_exit_hook()) {
    hook(process.exit_status);
    return;
  }
  if ((process.exit_status & 0x7f) != 0) {
    panic("Process 1 ({}) was killed by signal {}; a guest cannot go on without it.",
          process.exit_comm, process.exit_status & 0x7f);
  }
  panic("Process 1 ({}) exited with status {}; a guest cannot go on without it.", process.exit_comm,
        (process.exit_status >> 8) & 0xff);
}

// The last task has ended.
void end_process(Process &process) {
  process.itimers.reset();
  if (process.trace) trace::process_exited(process);
  if (process.pid == process.sid) tty_end_session(process);
  process.controlling_tty = nullptr;
  if (process.pid == 1) {
    end_of_init(process);
    process.zombie = true;
    return;
  }
  reparent_children(process);
  process.zombie = true;
  process.stopped = process.stop_requested = false;
  // Only when it was the group's connection with the rest of its session.
  if (process.parent && process.parent->pgid != process.pgid &&
      process.parent->sid == process.sid) {
    signal_orphaned_group(process.pgid);
  }
  end_vfork(process);
  process.exit_wait.wake_all();
  if (notify_parent_of_exit(process)) reap_process(process);
}

void add_usage(Process &process, const Task &task) {
  ResourceUsage own;
  own.user_ns = task.user_ns;
  own.system_ns = task.system_ns;
  own.minor_faults = task.minor_faults;
  own.major_faults = task.major_faults;
  own.voluntary_switches = task.voluntary_switches;
  own.involuntary_switches = task.involuntary_switches;
  own.io = task.io;
  process.usage.add(own);
}

void release_files(Task &task) {
  const Ref<FdTable> files = std::move(task.files);
  task.files.reset();
  if (files && files->ref_count() == 1) files->close_all(task);
}

// Everything of a task's death but giving up the thread. All references on the way are dropped
// here: thread_exit() does not unwind the stack.
void end_task(Task &task) {
  Process &process = *task.process;
  task.killed = true;
  if (task.trace) trace::task_exited(task);
  exit_robust_list(task);
  clear_tid(task);
  task.context.reset();
  release_mm(task);
  if (process.tasks.size() == 1) end_vfork(process);
  release_files(task);
  task.fs.reset();
  add_usage(process, task);
  std::erase(process.tasks, &task);
  if (process.tasks.empty()) {
    process.exit_comm = task.comm;
    process.exit_credentials = task.credentials;
  }
  retire_task(task);
  check_stop_complete(process);
  process.exec_wait.wake_all();
  if (process.tasks.empty()) end_process(process);
}

}  // namespace

bool notify_parent_of_exit(Process &process) {
  const Ref<Process> parent = process.parent;
  if (!parent) return true;
  bool nobody_waits = false;
  int signal = process.exit_signal;
  const SignalAction &action = parent->handlers->actions[kSigChld - 1];
  if (signal == kSigChld) {
    const bool ignored = action.handler == abi::kSIG_IGN;
    nobody_waits = ignored || (action.flags & abi::kSA_NOCLDWAIT) != 0;
    if (ignored) signal = 0;
  }
  if (signal != 0) {
    const ResourceUsage usage = process.total_usage();
    const int status = process.exit_status;
    SignalInfo info;
    info.signal = signal;
    info.pid = process.pid;
    info.uid = process.credentials().uid;
    info.utime = usage.user_ns;
    info.stime = usage.system_ns;
    info.code = (status & 0x7f) == 0 ? abi::kCLD_EXITED
                                     : ((status & 0x80) != 0 ? abi::kCLD_DUMPED : abi::kCLD_KILLED);
    info.status = (status & 0x7f) == 0 ? (status >> 8) & 0xff : status & 0x7f;
    post_signal(*parent, nullptr, info);
  }
  parent->child_wait.wake_all();
  return nobody_waits;
}

void reap_process(Process &process) {
  const Ref<Process> keep(&process);
  if (const Ref<Process> parent = process.parent) {
    // A parent that ignores SIGCHLD gets no usage of children that it did not wait for; wait adds
    // it.
    std::erase(parent->children, keep);
  }
  process.parent.reset();
  retire_process(process);
}

[[noreturn]] void exit_task(int status) {
  {
    Task &task = current_task();
    Process &process = *task.process;
    if (process.tasks.size() == 1 && !process.exiting) {
      process.exiting = true;
      process.exit_status = status;
    }
    end_task(task);
  }
  thread_exit();
}

[[noreturn]] void exit_process(int status) {
  Process &process = *current_task().process;
  // execve in another thread has already decided that this one ends alone.
  if (process.exec_task == nullptr || process.exec_task == &current_task()) {
    begin_process_exit(process, status);
  }
  exit_task(process.exiting ? process.exit_status : status);
}

}  // namespace cowbird
