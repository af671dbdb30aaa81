// clone(2): new tasks and processes, and the first one.
#include "abi/signal.hpp"
#include "abi/wait.hpp"
#include "base/log.hpp"
#include "mm/user_access.hpp"
#include "proc/itimer.hpp"
#include "proc/proc_internal.hpp"
#include "proc/signal_internal.hpp"
#include "proc/trace.hpp"
#include "sched/clock.hpp"

namespace cowbird {
namespace {

using namespace abi;  // NOLINT: the flags read like the manual page

bool has_flag(const CloneRequest &request, std::uint64_t flag) {
  return (request.flags & flag) != 0;
}

// The combinations that clone(2) refuses.
Result<void> check_flags(const Task &parent, const CloneRequest &r) {
  if (has_flag(r, kNamespaceFlags)) {
    // A kernel without name spaces; without the right to make one, the answer is the usual EPERM.
    const bool allowed = parent.credentials.capable(Capability::SysAdmin);
    return Err(allowed || has_flag(r, kCLONE_NEWUSER) ? Errno::Inval : Errno::Perm);
  }
  if (has_flag(r, kCLONE_INTO_CGROUP)) return Err(Errno::Inval);
  if (has_flag(r, kCLONE_THREAD) && !has_flag(r, kCLONE_SIGHAND)) return Err(Errno::Inval);
  if (has_flag(r, kCLONE_SIGHAND) && !has_flag(r, kCLONE_VM)) return Err(Errno::Inval);
  if (has_flag(r, kCLONE_SIGHAND) && has_flag(r, kCLONE_CLEAR_SIGHAND)) return Err(Errno::Inval);
  if (has_flag(r, kCLONE_PIDFD) && has_flag(r, kCLONE_THREAD)) return Err(Errno::Inval);
  if (has_flag(r, kCLONE_PIDFD) && has_flag(r, kCLONE_DETACHED)) return Err(Errno::Inval);
  if (has_flag(r, kCLONE_PARENT) && parent.process->pid == 1) return Err(Errno::Inval);
  if (r.exit_signal < 0 || r.exit_signal > kSignalCount) return Err(Errno::Inval);
  return {};
}

Result<void> check_limits(const Task &parent) {
  if (task_count() >= max_tasks()) return Err(Errno::Again);
  const Credentials &who = parent.credentials;
  const std::uint64_t limit = parent.process->limit(Limit::NProc);
  if (limit == kNoLimit || who.uid == 0) return {};
  if (who.capable(Capability::SysResource) || who.capable(Capability::SysAdmin)) return {};
  return tasks_of_user(who.uid) >= limit ? Result<void>(Err(Errno::Again)) : Result<void>();
}

void copy_identity(const Task &parent, Task &child) {
  child.credentials = parent.credentials;
  child.set_comm(parent.comm);
  child.blocked = parent.blocked;
  child.timer_slack_ns = parent.timer_slack_ns;
  child.personality = parent.personality;
  child.oom_score_adj = parent.oom_score_adj;
  child.affinity = parent.affinity;
  child.io_priority = parent.io_priority;
  child.nice = parent.nice;
  child.policy = parent.policy;
  if (parent.reset_on_fork) {
    child.policy = 0;
    if (child.nice < 0) child.nice = 0;
  }
  child.start_time_ns = clock::monotonic_ns();
}

Result<void> copy_mm(Task &parent, Task &child, const CloneRequest &request) {
  const bool shares = has_flag(request, kCLONE_VM);
  Ref<Mm> mm = parent.mm;
  if (!shares) {
    mm = TRY(parent.mm->fork());
    if (!mm->exe) mm->exe = parent.mm->exe;
    // A program that runs is not open for writing, so this cannot fail.
    if (mm->exe) --mm->exe->inode->write_count;
  }
  attach_mm(child, std::move(mm));
  child.context = TRY(guest_platform().new_context(child.mm->host()));
  UserRegs &regs = child.regs();
  regs = parent.regs();
  regs.rax = 0;
  regs.orig_rax = ~0ull;
  if (request.stack != 0) regs.rsp = request.stack;
  if (has_flag(request, kCLONE_SETTLS)) regs.fs_base = request.tls;
  std::vector<std::byte> xstate(guest_platform().xstate_size());
  parent.context->get_xstate(xstate);
  TRY(child.context->set_xstate(xstate));
  // A thread on the parent's memory must not inherit the alternate stack; after vfork it may.
  if (!shares || has_flag(request, kCLONE_VFORK)) child.alt_stack = parent.alt_stack;
  return {};
}

Ref<Process> make_child_process(Task &parent, const CloneRequest &request) {
  Process &from = *parent.process;
  Ref<Process> process = make_process();
  process->limits = from.limits;
  process->pgid = from.pgid;
  process->sid = from.sid;
  process->controlling_tty = from.controlling_tty;
  process->dumpable = from.dumpable;
  process->membarrier_registered = from.membarrier_registered;
  process->start_time_ns = clock::monotonic_ns();
  if (has_flag(request, kCLONE_PARENT)) {
    process->parent = from.parent;
    process->parent_tid = from.parent_tid;
    process->exit_signal = from.exit_signal;
  } else {
    process->parent = Ref<Process>(&from);
    process->parent_tid = parent.tid;
    process->exit_signal = request.exit_signal;
  }
  process->handlers = has_flag(request, kCLONE_SIGHAND) ? from.handlers : from.handlers->clone();
  if (has_flag(request, kCLONE_CLEAR_SIGHAND)) {
    for (SignalAction &action : process->handlers->actions) {
      if (action.handler != kSIG_IGN) action = SignalAction{};
    }
  }
  return process;
}

// Undoes what a child that never ran holds.
void abandon(Task &child) {
  child.context.reset();
  if (child.mm) release_mm(child);
  if (child.files && child.files->ref_count() == 1) child.files->close_all(current_task());
}

// Where the child's number goes, before it runs.
Result<void> write_tids(Task &child, const CloneRequest &request) {
  const std::int32_t tid = child.tid;
  if (has_flag(request, kCLONE_PARENT_SETTID)) {
    TRY(copy_out(request.parent_tid, &tid, sizeof(tid)));
  }
  if (has_flag(request, kCLONE_CHILD_CLEARTID)) child.clear_child_tid = request.child_tid;
  if (has_flag(request, kCLONE_CHILD_SETTID)) {
    // As on Linux, an address that cannot be written is the child's problem.
    (void)copy_out_mm(*child.mm, request.child_tid, &tid, sizeof(tid));
  }
  return {};
}

Result<int> install_pidfd(Task &parent, const Ref<Process> &process, const CloneRequest &request) {
  Ref<File> file = make_pidfd(process, 02);
  const int fd =
      TRY(parent.files->install(std::move(file), true, parent.process->limit(Limit::NoFile)));
  const std::int32_t value = fd;
  if (auto written = copy_out(request.pidfd, &value, sizeof(value)); !written) {
    (void)parent.files->close(fd, parent);
    return Err(written.error());
  }
  return fd;
}

struct NewChild {
  Ref<Task> task;
  Ref<Process> process;  // a new one, or the parent's
};

Result<void> build_child(Task &parent, const CloneRequest &request, NewChild &child) {
  Task &task = *child.task;
  const bool is_thread = has_flag(request, kCLONE_THREAD);
  child.process = is_thread ? parent.process : make_child_process(parent, request);
  task.process = child.process;
  copy_identity(parent, task);
  TRY(copy_mm(parent, task, request));
  task.files = has_flag(request, kCLONE_FILES) ? parent.files : parent.files->clone();
  task.fs = has_flag(request, kCLONE_FS) ? parent.fs : parent.fs->clone();
  TRY(task.prepare(task_main));
  // Sleeps are over but for the copies to guest memory: nobody else may take the number meanwhile,
  // so the task is published first.
  task.tid = TRY(allocate_pid());
  if (!is_thread) child.process->pid = task.tid;
  publish_task(task);
  int pidfd = -1;
  auto copied = [&]() -> Result<void> {
    if (has_flag(request, kCLONE_PIDFD)) {
      pidfd = TRY(install_pidfd(parent, child.process, request));
    }
    return write_tids(task, request);
  }();
  if (!copied) {
    if (pidfd >= 0) (void)parent.files->close(pidfd, parent);
    retire_task(task);
  }
  return copied;
}

void start_child(Task &parent, const CloneRequest &request, NewChild &child) {
  Process &process = *child.process;
  process.tasks.push_back(child.task.get());
  if (!has_flag(request, kCLONE_THREAD)) {
    // The parent's parent may have died while the child was made (CLONE_PARENT).
    if (!process.parent || process.parent->zombie) process.parent = Ref<Process>(init_process());
    // So may a terminal have been hung up, which looks for those that it controls in the table.
    const Process &from = *parent.process;
    process.pgid = from.pgid;
    process.sid = from.sid;
    process.controlling_tty = from.controlling_tty;
    process.parent->children.push_back(child.process);
    publish_process(process);
    process.vfork_done = !has_flag(request, kCLONE_VFORK);
    inherit_timers(*parent.process, process);
  }
  if (parent.trace) {
    trace::child_made(parent, *child.task, has_flag(request, kCLONE_THREAD),
                      has_flag(request, kCLONE_VFORK));
  }
  child.task->start();
}

}  // namespace

Result<std::int64_t> clone_task(Task &parent, const CloneRequest &request) {
  TRY(check_flags(parent, request));
  TRY(check_limits(parent));
  NewChild child;
  child.task = TaskFactory::make(parent.comm);
  if (auto built = build_child(parent, request, child); !built) {
    abandon(*child.task);
    return Err(built.error() == Errno::RestartSys ? Errno::RestartNoIntr : built.error());
  }
  // A signal that would kill the parent, or another thread's execve, comes first.
  if (parent.killed) {
    retire_task(*child.task);
    abandon(*child.task);
    return Err(Errno::RestartNoIntr);
  }
  start_child(parent, request, child);
  const int tid = child.task->tid;
  child.task.reset();
  if (parent.trace) {
    trace::child_started(parent, *child.process, has_flag(request, kCLONE_VFORK));
  }
  if (has_flag(request, kCLONE_VFORK)) {
    // Killed meanwhile: the child goes on alone, as on Linux.
    (void)wait_event(
        child.process->vfork_wait, [&] { return child.process->vfork_done; }, SleepMode::Killable,
        "vfork");
    if (parent.trace) trace::vfork_done(parent, *child.process);
  }
  return tid;
}

void end_vfork(Process &process) {
  if (process.vfork_done) return;
  process.vfork_done = true;
  process.vfork_wait.wake_all();
}

// --- the first process

namespace {

std::function<void(int)> init_exit_hook;

struct FirstExec {
  ExecRequest request;
  std::function<void(Result<void>)> on_exec;
};

void first_task_main(std::shared_ptr<FirstExec> first) {
  Result<void> result = exec_task(current_task(), std::move(first->request));
  first->on_exec(result);
  first.reset();
  if (!result) exit_process(exit_status_word(127));
  task_main();
}

}  // namespace

void set_init_exit_hook(std::function<void(int exit_status)> hook) {
  init_exit_hook = std::move(hook);
}

const std::function<void(int)> &get_init_exit_hook() { return init_exit_hook; }

Result<Ref<Process>> start_init(Platform &platform, Ref<FsContext> fs, Ref<FdTable> files,
                                ExecRequest request, std::function<void(Result<void>)> on_exec) {
  set_guest_platform(platform);
  Ref<Process> process = make_process();
  Ref<Task> task = TaskFactory::make("init");
  task->process = process;
  task->set_comm("init");
  task->fs = std::move(fs);
  task->files = std::move(files);
  task->credentials = Credentials::kernel();
  process->handlers = make_ref<SignalHandlers>();
  // The program of `cowbird run` is no init: its signals work as anywhere.
  process->unkillable = !init_exit_hook;
  task->start_time_ns = process->start_time_ns = clock::monotonic_ns();
  task->tid = process->pid = TRY(allocate_pid());
  KASSERT(process->pid == 1);
  process->pgid = process->sid = init_exit_hook ? 1 : 0;
  auto first = std::make_shared<FirstExec>(FirstExec{std::move(request), std::move(on_exec)});
  TRY(task->prepare([first = std::move(first)]() mutable { first_task_main(std::move(first)); }));
  process->tasks.push_back(task.get());
  publish_process(*process);
  publish_task(*task);
  task->start();
  return process;
}

}  // namespace cowbird
