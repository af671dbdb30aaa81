// Tracee: the host threads of another process under ptrace(2): stopping, running, stepping,
// registers and memory. It knows nothing of kernel threads or of gdb; KernelTarget (debug/target)
// builds on it.
//
// All calls come from one host thread, which ptrace demands, and which is the only one that waits
// for the tracees. While a Tracee lives, SIGCHLD has a handler of its own (event_fd() tells of it);
// a process that the caller starts in the meantime gets the default action by its exec. Children of
// the caller that are not traced are never reaped here.
//
// The traced process goes on by itself when the tracer dies: PTRACE_O_EXITKILL is not set.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <csignal>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace cowbird::debug {

enum class RunHow : std::uint8_t { Continue, Step, Syscall };

enum class TraceKind : std::uint8_t {
  Signal,         // `value`: about to be delivered; it is when it is given to resume()
  Interrupted,    // an interrupt of before, unasked for now
  GroupStop,      // job control; `value` is the signal. resume() lets it stay so
  Syscall,        // entry or exit, after RunHow::Syscall
  Clone,          // `value`: a new thread, which stands still too
  Exec,           // the process runs another program; all other threads are gone
  ThreadExited,   // the thread is not known any more
  ProcessExited,  // `value` is the status. The Tracee is empty
  ProcessKilled,  // `value` is the signal. The Tracee is empty
};
struct TraceEvent {
  TraceKind kind = TraceKind::Signal;
  pid_t tid = 0;
  int value = 0;
};

// A host thread that is traced.
struct TracedThread {
  pid_t tid = 0;
  bool stopped = false;
  // A child of vfork(2), until its exec: no thread of the process, but it runs on its memory and
  // meets its breakpoints.
  bool stray = false;
  // A parent in vfork(2) was resumed. It really is when its child has done with the memory: while
  // it waits for that, the host could not stop it.
  bool delayed = false;
  bool group_stop = false;        // stopped by job control
  bool at_int3 = false;           // stopped by an int3 of ours, on which it stands again
  bool interrupting = false;      // an interrupt has been asked for and was not seen
  RunHow how = RunHow::Continue;  // how it was resumed last
  int signal = 0;                 // of the stop: delivered by resume() unless told otherwise
  std::string name;               // comm
};

class Tracee {
 public:
  // Seizes all threads of the process and stops them. Srch: no such process; Busy: somebody else
  // traces it; Perm: the host does not allow it. `why` is a sentence then.
  static Result<std::unique_ptr<Tracee>> attach(pid_t pid, std::string &why);
  ~Tracee();  // detaches
  Tracee(const Tracee &) = delete;
  Tracee &operator=(const Tracee &) = delete;

  // Stops what runs and lets go of all threads, each with its undelivered signal.
  void detach();

  pid_t pid() const { return pid_; }
  bool empty() const { return threads_.empty(); }
  const std::map<pid_t, TracedThread> &threads() const { return threads_; }
  const TracedThread *find(pid_t tid) const;
  bool is_stopped(pid_t tid) const;
  bool all_stopped() const;

  // Called for each new thread while it still stands still before its first instruction.
  std::function<void(pid_t)> on_new_thread;

  // Whether an int3 of ours is there. A thread that has run into one is put back on it before its
  // stop is taken note of: should this process be killed, it meets the int3 again and the program
  // sees to it, instead of going on behind the first byte of an instruction.
  std::function<bool(std::uint64_t address)> is_int3;

  // Called with the registers of a thread that has stopped, when they are first looked at or a
  // signal is delivered. True: it has changed them.
  std::function<bool(user_regs_struct &)> correct_registers;

  // Readable when a tracee may have stopped; poll() until it gives nothing empties it.
  int event_fd() const;
  void rearm();  // makes it readable: there is more to do
  void drain();
  // The next stop of a thread that ran, without waiting.
  std::optional<TraceEvent> poll();
  std::optional<TraceEvent> poll(pid_t tid);  // of this one
  // The next stop of this thread; blocks.
  std::optional<TraceEvent> wait(pid_t tid);

  // Stops all threads but `except`, and waits until they stand. What else they had to report
  // meanwhile is added to `others`; these have stopped too.
  void stop_all(std::vector<TraceEvent> &others, pid_t except = 0);
  // A thread that was stopped just when a trap of ours hit it has stopped for the first reason, and
  // the trap's SIGTRAP waits in its queue. This makes all of those stop for it, too, without an
  // instruction run, so that letting them go does not kill the process.
  void take_pending_traps(std::vector<TraceEvent> &others);
  // Stops one thread, as above.
  void stop(pid_t tid, std::vector<TraceEvent> &others);

  // Runs a stopped thread; `signal` 0 delivers none.
  void resume(pid_t tid, RunHow how, int signal = 0);
  // The signal of the stop that resume_as_before() will deliver.
  // Writes registers that were changed now; resume() and let_go() do it by themselves.
  void flush(pid_t tid);
  void set_signal(pid_t tid, int signal);
  // Goes on as the last resume() said, delivering what the stop was about.
  void resume_as_before(pid_t tid);
  void let_go(pid_t tid);
  void reap(pid_t tid);  // detaches one stopped thread

  // Registers of a stopped thread. Changes are written when it is resumed, or by write_back().
  // nullptr: it is gone.
  const user_regs_struct *registers(pid_t tid);
  user_regs_struct *change_registers(pid_t tid);
  // For threads that stand still for long: should this process be killed, the host resumes them as
  // they are, without the signal they have stopped for.
  void write_back();
  Result<std::vector<std::byte>> xstate(pid_t tid);
  Result<void> set_xstate(pid_t tid, std::span<const std::byte> data);
  Result<siginfo_t> signal_info(pid_t tid);
  Result<void> set_signal_info(pid_t tid, const siginfo_t &info);
  Result<std::uint64_t> debug_register(pid_t tid, unsigned number);
  Result<void> set_debug_register(pid_t tid, unsigned number, std::uint64_t value);

  // Memory; also while the process runs, and where it may only read. Bytes done from the front.
  Result<std::size_t> read(std::uint64_t address, std::span<std::byte> out) const;
  Result<std::size_t> write(std::uint64_t address, std::span<const std::byte> data) const;

  void refresh_names();

 private:
  struct Cached {
    user_regs_struct registers{};
    bool dirty = false;
  };
  explicit Tracee(pid_t pid) : pid_(pid) {}
  Result<void> seize_all(std::string &why);
  Result<bool> seize_new(std::string &why);
  Result<void> open_memory();
  TracedThread *get(pid_t tid);
  std::optional<TraceEvent> decode(pid_t tid, int status);
  std::optional<TraceEvent> decode_stop(TracedThread &thread, int signal, int event);
  void adopt_child(pid_t tid, bool stray);
  void end_vfork(pid_t child);
  void interrupt(TracedThread &thread);
  void settle(const siginfo_t &stop);
  void wait_stopped(pid_t tid, std::vector<TraceEvent> &others);
  void forget(pid_t tid);

  const pid_t pid_;
  std::map<pid_t, TracedThread> threads_;
  std::map<pid_t, Cached> registers_;
  std::map<pid_t, pid_t> vforks_;  // parents by child
  UniqueFd memory_;
};

}  // namespace cowbird::debug
