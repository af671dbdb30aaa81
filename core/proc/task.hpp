// Tasks and processes. A Task is a guest thread: a kernel thread whose loop runs guest code and
// serves its system calls. A Process (Linux: thread group) is what its tasks share: pid, signal
// dispositions, children, limits, timers. Needs the big kernel lock everywhere.
//
// Lifetime: a Process is in the pid table until it is reaped; a Task until it has exited. Both are
// reference counted, so a pointer obtained by lookup stays good across sleeps when held in a Ref.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/list.hpp"
#include "base/ref.hpp"
#include "base/result.hpp"
#include "engine/platform.hpp"
#include "mm/mm.hpp"
#include "proc/signal.hpp"
#include "sched/thread.hpp"
#include "sched/timer.hpp"
#include "sched/wait.hpp"
#include "vfs/fd_table.hpp"
#include "vfs/path.hpp"

namespace cowbird {

class Tty;            // tty/tty.hpp
class TracedProcess;  // proc/trace.hpp
class TracedTask;

// The numbers of setrlimit(2).
enum class Limit : std::uint8_t {
  Cpu,
  FileSize,
  Data,
  Stack,
  Core,
  Rss,
  NProc,
  NoFile,
  MemLock,
  AddressSpace,
  Locks,
  SigPending,
  MsgQueue,
  Nice,
  RtPrio,
  RtTime,
  Count,
};
inline constexpr std::uint64_t kNoLimit = ~0ull;
struct LimitPair {
  std::uint64_t soft = kNoLimit, hard = kNoLimit;
};

struct ResourceUsage {
  std::int64_t user_ns = 0, system_ns = 0;
  std::uint64_t max_rss_pages = 0, minor_faults = 0, major_faults = 0, voluntary_switches = 0,
                involuntary_switches = 0;
  IoCounters io;
  void add(const ResourceUsage &other);
};

// A session and a process group are numbers with the members that the pid table knows.
class Process : public RefCounted<Process> {
 public:
  ~Process();

  int pid = 0;
  int pgid = 0;
  int sid = 0;
  Ref<Process> parent;  // nullptr for init and once it is reaped
  std::vector<Ref<Process>> children;
  std::vector<Task *> tasks;  // the live ones; the leader need not be among them
  bool is_subreaper = false;

  Ref<SignalHandlers> handlers;
  PendingSignals pending;
  WaitQueue signalfd_wait;  // woken when a signal was queued, for the process or one of its tasks
  // wait4 and waitid of the parent's threads sleep here.
  WaitQueue child_wait;

  std::array<LimitPair, static_cast<std::size_t>(Limit::Count)> limits;
  std::uint64_t limit(Limit l) const { return limits[static_cast<std::size_t>(l)].soft; }

  // Death. `exit_status` is wait(2)'s status word.
  bool exiting = false;  // exit_group or a fatal signal: all tasks end
  bool zombie = false;   // all tasks have ended; not reaped yet
  int exit_status = 0;
  int exit_signal = kSigChld;  // sent to the parent
  // Job control, reported to the parent once each.
  bool stopped = false;
  bool stop_reported = true;
  bool continued_unreported = false;
  int stop_signal = 0;
  bool stop_requested = false;  // a group stop is on its way; `stopped` once all tasks stand still
  unsigned stopped_tasks = 0;
  // Pollers of pidfds: woken when the process becomes a zombie.
  WaitQueue exit_wait;
  // The thread that is executing execve and waits for the others to end.
  Task *exec_task = nullptr;
  WaitQueue exec_wait;
  // Process 1 of a booted machine: signals that it has no handler for do not reach it.
  bool unkillable = false;
  // The thread of `parent` that made this process (__WNOTHREAD, PR_SET_PDEATHSIG).
  int parent_tid = 0;
  // A zombie's name and identity, for /proc and permission checks: what its last task had.
  std::string exit_comm;
  Credentials exit_credentials;
  // vfork: the parent waits until this process execs or exits.
  WaitQueue vfork_wait;
  bool vfork_done = true;

  bool has_execed = false;  // setpgid(2)'s EACCES
  bool dumpable = true;
  bool membarrier_registered = false;  // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED was called
  Tty *controlling_tty = nullptr;
  // Of a session leader whose terminal was hung up: the foreground group, which is told when the
  // leader ends; 0: none.
  int hung_up_group = 0;

  ResourceUsage usage;           // of tasks that have ended
  ResourceUsage children_usage;  // of children that were waited for
  // All that the process has used: ended tasks and live ones.
  ResourceUsage total_usage() const;
  // Any live task, the leader if it lives; nullptr for a zombie.
  Task *representative() const;
  std::string comm() const;
  const Credentials &credentials() const;
  std::int64_t start_time_ns = 0;

  Ref<TracedProcess> trace;  // a tracer is attached

  struct Itimers;  // setitimer, alarm, timer_create; proc/itimer.cpp
  std::unique_ptr<Itimers> itimers;
  Itimers &timers();  // makes them when there are none yet

 private:
  friend Ref<Process> make_process();
  Process();
};

class Task final : public Thread {
 public:
  ~Task() override;

  int tid = 0;
  Ref<Process> process;
  Credentials credentials;
  Ref<Mm> mm;
  Ref<FdTable> files;
  Ref<FsContext> fs;
  std::unique_ptr<Context> context;
  abi::UserRegs &regs() { return context->regs(); }

  PendingSignals pending;
  SignalSet blocked;
  // While rt_sigtimedwait unblocks what it waits for: the mask before, else empty.
  SignalSet real_blocked;
  // sigsuspend, ppoll, pselect, epoll_pwait: the mask to restore after the handler's frame was
  // built.
  std::optional<SignalSet> saved_mask;
  struct AltStack {
    std::uint64_t base = 0, size = 0;
    std::uint32_t flags = 2;  // SS_DISABLE
  } alt_stack;

  // How restart_syscall(2) goes on after RestartBlock.
  std::function<Result<std::int64_t>(Task &)> restart;

  std::uint64_t clear_child_tid = 0;  // set_tid_address, CLONE_CHILD_CLEARTID
  std::uint64_t robust_list = 0;
  std::uint64_t robust_list_length = 0;
  int parent_death_signal = 0;
  std::string comm;  // at most 15 bytes
  std::uint64_t timer_slack_ns = 50'000;
  std::uint32_t personality = 0;
  std::int32_t oom_score_adj = 0;
  std::uint64_t minor_faults = 0, major_faults = 0;
  bool killed = false;           // a fatal signal was accepted; no guest code runs any more
  bool trace_attention = false;  // the tracer wants something before guest code runs again
  Ref<TracedTask> trace;         // a tracer is attached
  // sched_setscheduler and friends; kept and shown, see docs/system-calls.md.
  int policy = 0;  // SCHED_OTHER
  bool reset_on_fork = false;
  std::uint64_t affinity = ~0ull;  // vCPUs of sched_setaffinity
  int io_priority = 0;
  bool in_execve = false;
  // The last fault of the thread's own making, for signal frames (cr2, trapno, err).
  std::uint64_t fault_address = 0, fault_vector = 0, fault_error_code = 0;

  // The system call in progress, for wchan, strace and the debugger; ~0 when none.
  std::uint64_t syscall_number = ~0ull;

  Task *as_task() override { return this; }
  void on_switch_out() override {
    if (context) context->park();
  }
  bool signal_pending() const override;
  bool fatal_signal_pending() const override;
  bool is_leader() const { return process->pid == tid; }
  // Something must be done before guest code runs again: signals, a stop, death. Cheap.
  bool needs_attention() const {
    return killed || trace_attention || process->stop_requested ||
           !((pending.set() | process->pending.set()) & ~blocked).empty();
  }
  // Cut to 15 bytes; the kernel thread's name follows.
  void set_comm(std::string_view name);

  // The unblocked pending signals of the task and its process.
  SignalSet deliverable() const;
  // Changes the mask; SIGKILL and SIGSTOP stay unblocked.
  void set_blocked(SignalSet mask);

 private:
  friend class TaskFactory;
  explicit Task(std::string name);
};

// The task of the calling kernel thread; panics on a pure kernel thread.
Task &current_task();

// --- the pid table
// `function` hears of every task that has ended and every process that was reaped: a number is free
// again. For procfs, whose names hold what they stand for. Must not sleep; set once.
void on_number_gone(void (*function)(int pid, int tid));
Ref<Process> find_process(int pid);
Ref<Task> find_task(int tid);
void for_each_process(const std::function<void(Process &)> &function);
std::size_t process_count();
bool process_group_exists(int pgid, int sid);
// No member has a parent in another group of the same session: a stopped one could never be
// continued.
bool process_group_orphaned(int pgid);
// Processes of a group or session; empty when there are none.
void for_each_in_group(int pgid, const std::function<void(Process &)> &function);
void for_each_task(const std::function<void(Task &)> &function);
// setpgid and setsid: keeps the table's index of groups and sessions.
void set_process_group(Process &process, int pgid);
void set_session(Process &process, int sid);
inline constexpr int kPidMax = 32768;
// The bound on tasks in the system (/proc/sys/kernel/threads-max), from the size of memory.
std::size_t max_tasks();
// The letter of ps(1).
inline char task_state_letter(const Task &task) { return thread_state_letter(task.state()); }
// The platform that start_init was given.
Platform &guest_platform();
// Whether PIE programs, heaps and stacks start at random addresses (they do at first).
void set_layout_randomisation(bool on);
bool layout_randomisation();

// --- creation
struct CloneRequest {
  std::uint64_t flags = 0;  // CLONE_*
  int exit_signal = 0;
  std::uint64_t stack = 0;  // 0: the parent's
  std::uint64_t parent_tid = 0, child_tid = 0, tls = 0, pidfd = 0;
};
// clone(2), fork(2), vfork(2), clone3(2). Returns the child's tid; for vfork after the child let
// go.
Result<std::int64_t> clone_task(Task &parent, const CloneRequest &request);

struct ExecRequest {
  Path directory;  // for relative names; fs.cwd or the descriptor of execveat
  std::string name;
  bool empty_path = false;  // AT_EMPTY_PATH: `directory` itself
  bool no_follow = false;   // AT_SYMLINK_NOFOLLOW
  std::vector<std::string> argv, envp;
};
// execve(2), execveat(2): on success the task's registers are those of the new program's entry.
Result<void> exec_task(Task &task, ExecRequest request);

// The first process. Creates pid 1 with these descriptors and working directory, and starts it; it
// execs `request`. The result is told through `on_exec` (with the error) before it runs.
Result<Ref<Process>> start_init(Platform &platform, Ref<FsContext> fs, Ref<FdTable> files,
                                ExecRequest request, std::function<void(Result<void>)> on_exec);
// Called when pid 1 has ended, instead of a panic, when set (cowbird run).
void set_init_exit_hook(std::function<void(int exit_status)> hook);

// --- death
// The calling task ends with this wait(2) status; the process too if it was the last task.
[[noreturn]] void exit_task(int status);
// exit_group(2) and fatal signals: all tasks of the process end.
[[noreturn]] void exit_process(int status);
// The OOM killer: picks the process that uses most, kills it, and says so in the log; or waits for
// one that ends already. False when there is none.
bool kill_for_memory();

// What reboot(2) asks boot/ for. The hook does not return for Restart, Halt and PowerOff.
enum class RebootAction : std::uint8_t { Restart, Halt, PowerOff };
void set_reboot_hook(std::function<void(RebootAction action, const std::string &argument)> hook);
// Calls the hook; NoSys when there is none. May sleep for ever.
Result<void> request_reboot(RebootAction action, const std::string &argument = {});

// Ctrl-Alt-Del, ctrlaltdel(8): restarts at once (the beginning), or sends SIGINT to process 1,
// which then decides. reboot(2) with LINUX_REBOOT_CMD_CAD_ON or _OFF says which.
void set_ctrl_alt_del_restarts(bool on);
bool ctrl_alt_del_restarts();
// May sleep for ever when it restarts.
Result<void> ctrl_alt_del();

// The kernel thread body of every task: runs guest code until the task dies.
void task_main();

}  // namespace cowbird
