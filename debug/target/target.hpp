// Target: what a debugger session can look at and steer, apart from the protocol that gdb speaks
// (debug/rsp, debug/server). Implementations: KernelTarget (the guest kernel of a live process, by
// ptrace), UserTarget (guest processes, by the kernel's debug agent), GuestTarget (both together:
// what a session gets), CoreTarget (a core file), FakeTarget (tests).
//
// One thread calls everything: the server's event loop; ptrace demands it too. No call blocks for
// longer than a stopped kernel takes to answer, except where said. Errors are host errno values in
// Result<T>; `last_words()` has the sentence for people.
//
// Processes and threads have gdb's numbers. The guest kernel is the process kKernelPid, its threads
// are kernel threads (tid = Thread::id() + 1) and host threads (tid = kHostTidBase + host tid).
// Guest processes have their guest pids, their threads guest tids.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "debug/rsp/agent_expression.hpp"

namespace cowbird::debug {

// Above every guest pid (kPidMax is 32768), below what gdb takes for negative.
inline constexpr std::int64_t kKernelPid = 1'000'000;
inline constexpr std::int64_t kHostTidBase = 1'000'000'000;

struct ThreadId {
  std::int64_t pid = 0;
  std::int64_t tid = 0;
  bool operator==(const ThreadId &) const = default;
  auto operator<=>(const ThreadId &) const = default;
};
inline constexpr std::int64_t kAll = -1;  // as pid or tid: all of them

// The general registers in the order of Linux's user_regs_struct is not gdb's: these are named.
enum class Reg : std::uint8_t {
  Rax,
  Rbx,
  Rcx,
  Rdx,
  Rsi,
  Rdi,
  Rbp,
  Rsp,
  R8,
  R9,
  R10,
  R11,
  R12,
  R13,
  R14,
  R15,
  Rip,
  Eflags,
  Cs,
  Ss,
  Ds,
  Es,
  Fs,
  Gs,
  FsBase,
  GsBase,
  OrigRax,
  Count,
};
inline constexpr std::size_t kRegCount = static_cast<std::size_t>(Reg::Count);

// A thread's registers. A sleeping kernel thread has saved only some of them: `known` says which.
struct Registers {
  std::array<std::uint64_t, kRegCount> value{};
  std::uint32_t known = 0;  // bit by Reg
  // XSAVE area in the standard form (SDM vol. 1, 13.4), or empty: unknown.
  std::vector<std::byte> xstate;
  // The values of Target::kernel_registers(), in that order; may be shorter.
  std::vector<std::optional<std::uint64_t>> kernel;

  std::uint64_t get(Reg r) const { return value[static_cast<std::size_t>(r)]; }
  bool has(Reg r) const { return (known >> static_cast<unsigned>(r)) & 1; }
  void set(Reg r, std::uint64_t v) {
    value[static_cast<std::size_t>(r)] = v;
    known |= 1u << static_cast<unsigned>(r);
  }
};

struct ThreadInfo {
  ThreadId id;
  std::string name;    // "kworker/0", "sh/12", "vcpu0 (host)"
  std::string detail;  // "sleeping in pipe_read", "running on vcpu 1", "ready"
  int core = -1;       // the vCPU it runs on
};

// Stop: a thread that stays as it is although a later action of the list would match it; the
// session has called interrupt() for it.
enum class ResumeKind : std::uint8_t { Continue, Step, StepRange, Stop };
struct ResumeAction {
  ThreadId thread{};  // may hold kAll; the first action that matches a thread counts
  ResumeKind kind = ResumeKind::Continue;
  int signal = 0;                               // host signal number to deliver, 0: none
  std::uint64_t range_low = 0, range_high = 0;  // StepRange: step while rip is in [low, high)
};

enum class StopReason : std::uint8_t {
  Signal,          // `signal`
  SoftBreakpoint,  // swbreak
  HardBreakpoint,  // hwbreak
  Watch,
  ReadWatch,
  AccessWatch,  // `address`
  StepDone,
  SyscallEntry,
  SyscallReturn,  // `number`
  Fork,
  Vfork,
  VforkDone,
  Exec,  // `child` / `path`
  ThreadCreated,
  ThreadExited,   // only when asked for (QThreadEvents)
  ProcessExited,  // `number` is the status
  ProcessKilled,  // `signal`
  LibrariesChanged,
  Interrupted,  // by stop(): signal 0 in non-stop mode, SIGINT in all-stop
  NoneLeft,     // no resumed thread is left that could stop
};
struct StopEvent {
  ThreadId thread{};
  StopReason reason = StopReason::Signal;
  int signal = 0;  // host number; SIGTRAP for breakpoints and steps
  std::uint64_t address = 0;
  std::int64_t number = 0;
  ThreadId child{};
  std::string path{};
  std::string words{};  // for people, printed before the stop: "guest kernel panic: ..."
  int core = -1;
};

enum class BreakpointKind : std::uint8_t { Software = 0, Hardware, Write, Read, Access };
struct Breakpoint {
  BreakpointKind kind = BreakpointKind::Software;
  std::int64_t pid = 0;
  std::uint64_t address = 0;
  std::uint32_t size = 1;  // bytes watched; for Software and Hardware the protocol's "kind"
  // Stops only when one of these is true (none: always). Evaluated by the target at each hit.
  std::vector<AgentExpression> conditions{};
};

// A row of `info os`: values in the order of the columns.
struct OsTable {
  std::string name, description;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};

// A library or plugin, for qXfer:libraries-svr4. The program itself has an empty name, or is left
// out.
struct Library {
  std::string name;  // as gdb opens it through vFile
  std::uint64_t link_map = 0, base = 0, dynamic = 0;
};

// An open file of vFile, in the view of one process: the host's files for the kernel, the guest's
// for guest processes.
struct FileStat {
  std::uint64_t device = 0, inode = 0, size = 0, block_size = 0, blocks = 0;
  std::uint32_t mode = 0, links = 0, uid = 0, gid = 0;
  std::int64_t atime = 0, mtime = 0, ctime = 0;
};
class TargetFile {
 public:
  virtual ~TargetFile() = default;
  virtual Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) = 0;
  virtual Result<FileStat> stat() = 0;
};

// Printed while a monitor command runs; false when gdb has gone.
using OutputSink = std::function<bool(std::string_view text)>;

class Target {
 public:
  virtual ~Target() = default;

  // --- life. The target of a session stands still from attach() until the first resume().
  // Stops the guest and makes its kernel the first process. Fails with Perm, Busy (another
  // debugger)...
  virtual Result<void> attach() = 0;
  // gdb has gone or detaches: breakpoints are taken out, everything runs on. Also after errors.
  virtual void detach_all() = 0;
  // One guest process more (vAttach), which stops without an event; or less (D;pid). The kernel
  // goes last: with detach_all().
  virtual Result<void> attach_process(std::int64_t pid) = 0;
  virtual Result<void> detach_process(std::int64_t pid) = 0;
  // Ends a guest process, or for kKernelPid the guest.
  virtual Result<void> kill(std::int64_t pid) = 0;
  virtual bool is_live() const = 0;  // false: a core file; nothing can be resumed or written
  virtual std::string last_words() const = 0;

  // --- what is there. Valid while the guest stands still (all-stop) or of stopped threads.
  virtual std::vector<std::int64_t> processes() = 0;
  virtual std::vector<ThreadInfo> threads() = 0;
  virtual bool is_alive(ThreadId id) = 0;
  // The thread that a plain `?` stop names.
  virtual ThreadId current_thread() = 0;

  // Names of further 64-bit registers, the same for the whole session ("curtask"): gdb has them as
  // $curtask. They cannot be set.
  virtual std::vector<std::string> kernel_registers() { return {}; }
  virtual Result<Registers> read_registers(ThreadId id) = 0;
  // Writes the known ones. OpNotSupp for a register that a sleeping kernel thread has not saved.
  virtual Result<void> write_registers(ThreadId id, const Registers &registers) = 0;
  // Bytes done from the front; Fault when none. Reads show what is under software breakpoints, and
  // writes go there.
  virtual Result<std::size_t> read_memory(std::int64_t pid, std::uint64_t address,
                                          std::span<std::byte> out) = 0;
  virtual Result<std::size_t> write_memory(std::int64_t pid, std::uint64_t address,
                                           std::span<const std::byte> data) = 0;

  // --- running. In all-stop mode (the default) everything stands still whenever next_event() has
  // given an event, until the next resume(); in non-stop mode only that thread does.
  virtual void set_non_stop(bool on) = 0;
  virtual Result<void> resume(std::span<const ResumeAction> actions) = 0;
  // ^C and vCont;t; the event follows.
  virtual void interrupt(ThreadId which) = 0;
  // Readable when next_event() may have something.
  virtual int event_fd() const = 0;
  virtual std::optional<StopEvent> next_event() = 0;
  // Threads of all-stop that have an event which was not given yet keep it for the next resume().

  // NoSpc: no debug register is free; Inval: a length or alignment that they cannot watch;
  // OpNotSupp: never for this process. A child of a reported fork has its parent's breakpoints;
  // they are removed like those that were inserted. An exec and the end of a process remove its
  // own.
  virtual Result<void> insert_breakpoint(const Breakpoint &breakpoint) = 0;
  virtual Result<void> remove_breakpoint(const Breakpoint &breakpoint) = 0;
  // QCatchSyscalls; all when `numbers` is empty.
  virtual Result<void> catch_syscalls(std::int64_t pid, bool on,
                                      std::span<const std::int64_t> numbers) = 0;
  // QPassSignals: host signal numbers that are delivered without a stop.
  virtual void pass_signals(std::span<const int> signals) = 0;
  virtual void report_thread_events(bool on) = 0;
  virtual void report_fork_events(bool on) = 0;
  virtual void report_exec_events(bool on) = 0;

  // --- what gdb reads to find symbols
  virtual Result<std::string> executable(std::int64_t pid) = 0;  // path for vFile
  // With AT_PAGESZ: gdb takes a process without it for one of uClinux, and all processes for one
  // address space.
  virtual Result<std::vector<std::byte>> auxv(std::int64_t pid) = 0;
  virtual Result<std::vector<Library>> libraries(std::int64_t pid) = 0;
  virtual Result<std::vector<std::byte>> siginfo(ThreadId id) = 0;
  virtual Result<void> set_siginfo(ThreadId id, std::span<const std::byte> data) = 0;
  virtual Result<std::uint64_t> tls_address(ThreadId id, std::uint64_t offset,
                                            std::uint64_t link_map) = 0;
  // `pid` 0: the host's files.
  virtual Result<std::unique_ptr<TargetFile>> open_file(std::int64_t pid,
                                                        const std::string &path) = 0;
  virtual Result<std::string> read_link(std::int64_t pid, const std::string &path) = 0;

  // --- tables and commands
  virtual std::vector<std::pair<std::string, std::string>> os_tables() = 0;  // name, description
  virtual Result<OsTable> os_table(const std::string &name) = 0;
  // `monitor COMMAND`; the words for a wrong command are output too. False: unknown command.
  virtual bool monitor(const std::string &command, ThreadId current, const OutputSink &out) = 0;
};

}  // namespace cowbird::debug
