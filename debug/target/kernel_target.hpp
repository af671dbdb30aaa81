// KernelTarget: the guest kernel of a live process, by ptrace on its host threads. It serves the
// process kKernelPid; guest processes are UserTarget's. GuestTarget puts both together.
//
// The threads it shows are of two kinds: kernel threads, which run on the host threads of vCPUs or
// lie saved on their stacks, and the host threads themselves. Each is a *fiber* here: something
// with a stack, which one host thread carries at a time or none. A vCPU's host thread is a fiber of
// its own stack that is saved while a kernel thread runs on it. A saved fiber goes on at the label
// behind the change of stacks in cowbird_switch_context (core/sched/context.S), with the stack
// pointer that was saved: by that pointer a fiber that comes back is recognised there.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <set>

#include "debug/host/child_signal.hpp"
#include "debug/host/code_patches.hpp"
#include "debug/host/debug_registers.hpp"
#include "debug/host/held_threads.hpp"
#include "debug/host/out_of_line.hpp"
#include "debug/host/step_places.hpp"
#include "debug/host/tracee.hpp"
#include "debug/target/target.hpp"
#include "debug/view/kernel_view.hpp"

namespace cowbird::debug {

class KernelTarget final : public Target, private MemoryReader {
 public:
  using OpenView = std::function<Result<std::unique_ptr<KernelView>>(
      MemoryReader &memory, const std::string &program, std::uint64_t base, std::string &why)>;
  // `host_pid` is the kernel's process. Without a view (it fails to open) there are host threads
  // only.
  KernelTarget(pid_t host_pid, OpenView open_view);
  ~KernelTarget() override;

  Result<void> attach() override;
  void detach_all() override;
  Result<void> attach_process(std::int64_t pid) override;
  Result<void> detach_process(std::int64_t pid) override;
  Result<void> kill(std::int64_t pid) override;
  bool is_live() const override { return true; }
  std::string last_words() const override { return words_; }

  std::vector<std::int64_t> processes() override;
  std::vector<ThreadInfo> threads() override;
  bool is_alive(ThreadId id) override;
  ThreadId current_thread() override;

  Result<Registers> read_registers(ThreadId id) override;
  Result<void> write_registers(ThreadId id, const Registers &registers) override;
  Result<std::size_t> read_memory(std::int64_t pid, std::uint64_t address,
                                  std::span<std::byte> out) override;
  Result<std::size_t> write_memory(std::int64_t pid, std::uint64_t address,
                                   std::span<const std::byte> data) override;

  void set_non_stop(bool on) override { non_stop_ = on; }
  Result<void> resume(std::span<const ResumeAction> actions) override;
  void interrupt(ThreadId which) override;
  int event_fd() const override;
  std::optional<StopEvent> next_event() override;

  Result<void> insert_breakpoint(const Breakpoint &breakpoint) override;
  Result<void> remove_breakpoint(const Breakpoint &breakpoint) override;
  Result<void> catch_syscalls(std::int64_t pid, bool on,
                              std::span<const std::int64_t> numbers) override;
  void pass_signals(std::span<const int> signals) override;
  void report_thread_events(bool on) override { thread_events_ = on; }
  void report_fork_events(bool) override {}  // the kernel's children are its stubs, never shown
  void report_exec_events(bool on) override { exec_events_ = on; }

  Result<std::string> executable(std::int64_t pid) override;
  Result<std::vector<std::byte>> auxv(std::int64_t pid) override;
  Result<std::vector<Library>> libraries(std::int64_t pid) override;
  Result<std::vector<std::byte>> siginfo(ThreadId id) override;
  Result<void> set_siginfo(ThreadId id, std::span<const std::byte> data) override;
  Result<std::uint64_t> tls_address(ThreadId id, std::uint64_t offset,
                                    std::uint64_t link_map) override;
  Result<std::unique_ptr<TargetFile>> open_file(std::int64_t pid, const std::string &path) override;
  Result<std::string> read_link(std::int64_t pid, const std::string &path) override;

  std::vector<std::pair<std::string, std::string>> os_tables() override { return {}; }
  Result<OsTable> os_table(const std::string &) override { return Err(Errno::NoEnt); }
  bool monitor(const std::string &, ThreadId, const OutputSink &) override { return false; }

  // Asks the guest to let this process trace it, when the host has refused that. False, and a
  // sentence: it does not. Set before attach(), or not at all.
  std::function<bool(std::string &why)> ask_for_leave;

  // --- for GuestTarget
  pid_t host_pid() const { return pid_; }
  bool attached() const { return tracee_ != nullptr && !tracee_->empty(); }
  // No host thread of the kernel runs.
  bool hard_stopped() const { return attached() && tracee_->all_stopped(); }
  // gdb holds none of the host threads without which the kernel serves nobody (non-stop mode).
  bool serves() const;
  // Stops all host threads for a look, without an event; what ran before runs again afterwards. The
  // guest does not see the time. Not nested.
  void pause();
  void unpause();
  // Of the kernel as it stands now; nullptr when there is none.
  KernelView *view();

 private:
  // A fiber that does not simply run.
  struct Plan {
    std::int64_t tid = 0;
    ResumeKind kind = ResumeKind::Continue;
    std::uint64_t low = 0, high = 0;  // StepRange
    pid_t host = 0;                   // the host thread that carries it; 0: none does
    std::uint64_t saved_rsp = 0;      // while none does
    bool begun = false;               // it has made a step
    bool steps() const { return kind == ResumeKind::Step || kind == ResumeKind::StepRange; }
  };
  // Where a fiber is now.
  struct Place {
    pid_t host = 0;
    std::uint64_t saved_rsp = 0;
  };

  // MemoryReader
  Result<void> read(std::uint64_t address, std::span<std::byte> out) override;
  void read_pieces(std::span<Piece> pieces) override;
  std::optional<std::uint64_t> word(std::uint64_t address);

  // kernel_target.cpp
  void open_view();
  void find_own_breakpoints();
  void look();  // the view, and who runs where, as they are now
  void look_at_names();
  int vcpu_of(pid_t host) const;
  std::int64_t fiber_on(pid_t host);
  std::optional<Place> place_of(std::int64_t tid);
  const VcpuState *vcpu_state(pid_t host);
  std::string describe(KernelThread thread);
  std::string describe_host(const TracedThread &thread);
  Result<Registers> host_registers(pid_t host);
  static std::uint64_t host_register(const user_regs_struct &regs, Reg reg);

  // kernel_target_run.cpp
  static std::int64_t host_now();
  static bool is_fault(int signal);
  void prepare_to_run();
  bool step_alone();
  void interrupt_non_stop(ThreadId which);
  void stop_world();
  void hold_guest_code();
  void hold_guest_code(pid_t host);
  std::vector<pid_t> stop_for_now();
  void run_again(const std::vector<pid_t> &hosts);
  void run_world();
  bool is_deferred(pid_t host) const;
  void drop_steps();
  void hide_time();
  void sort_out(const TraceEvent &event);
  Plan *plan_on(pid_t host);
  Plan *plan_of(std::int64_t tid);
  Result<void> add_plan(const ResumeAction &action);
  Result<void> give_signal(const ResumeAction &action);
  bool comes_again(pid_t host, int signal);
  Result<void> resume_non_stop(std::span<const ResumeAction> actions);
  void hold(std::int64_t tid);
  void report(pid_t host, StopEvent event);

  // kernel_target_events.cpp
  void handle(const TraceEvent &event);
  void handle_signal(pid_t host, int signal);
  void handle_trap(pid_t host);
  void report_signal(pid_t host, int signal);
  bool has_debug_hit(pid_t host);
  void debug_register_hit(pid_t host);
  void handle_exec();

  // kernel_target_step.cpp
  void breakpoint_hit(pid_t host, std::uint64_t address);
  void own_breakpoint(pid_t host, std::uint64_t address);
  bool is_own(std::uint64_t address) const;
  bool wanted_at(pid_t host, std::uint64_t address);
  bool any_true(pid_t host, const Breakpoint &breakpoint);
  void stepped(pid_t host);
  void at_switch(pid_t host);
  void relax(pid_t but);
  bool forget_dead();
  void gather();
  void watch_switches();
  void go_on(pid_t host);
  bool may_run(pid_t host);
  bool run_past(pid_t host);
  // Past the breakpoint at the thread's rip. Signalled and Gone have been handled then.
  StepResult step_over(pid_t host);
  OutOfLineRun step_lifted(pid_t host, std::uint64_t address);
  void load_debug_registers();

  // kernel_target_program.cpp
  void find_program();
  void find_places();
  std::uint64_t auxv_value(std::uint64_t type);
  void find_linker();
  bool libraries_settled();
  std::uint64_t dynamic_value(std::int64_t tag);

  const pid_t pid_;
  const OpenView open_view_;
  ChildSignal child_signal_;
  std::unique_ptr<Tracee> tracee_;
  std::unique_ptr<KernelView> view_;
  std::string words_;
  std::string program_;
  std::uint64_t base_ = 0;   // load address of the program
  std::uint64_t entry_ = 0;  // its _start
  StepPlaces places_;

  // Addresses of our own breakpoints; 0: not there.
  std::uint64_t switched_ = 0;    // behind the change of stacks
  std::uint64_t panic_stop_ = 0;  // cowbird_panic_stop
  std::uint64_t linker_ = 0;      // r_debug.r_brk
  std::uint64_t started_ = 0;     // _start, after an exec
  bool watching_switches_ = false;
  std::uint64_t hold_flag_ = 0;  // cowbird_debug_hold

  CodePatches patches_;
  std::map<std::uint64_t, Breakpoint> breakpoints_;  // gdb's, of kind Software
  DebugRegisters debug_registers_;
  std::vector<Breakpoint> hard_;  // gdb's, of the other kinds

  bool non_stop_ = false;
  bool thread_events_ = false;
  bool exec_events_ = false;
  std::set<int> passed_signals_;

  std::vector<Plan> plans_;
  // Only fibers with a plan run (gdb's scheduler-locking) ...
  bool exclusive_ = false;
  // ... but one of them has left its vCPU, so everything runs until it is back: who would wake it,
  // or give it a vCPU, if nothing else ran?
  bool relaxed_ = false;
  // Guest code that vCPUs which stand still wait for, by the vCPU's host thread. gdb's stops hold
  // it; a moment's stop for a look does not.
  HeldThreads guest_code_;
  bool standing_ = false;  // all-stop: everything stands still until resume()
  bool paused_ = false;
  std::vector<pid_t> paused_hosts_;  // those that ran
  std::deque<StopEvent> events_;     // to be given to gdb
  std::deque<TraceEvent> deferred_;  // seen while everything was being stopped
  // Signals that gdb was told of, delivered only on its word; kMadeUp: there is none to deliver.
  static constexpr int kMadeUp = -1;
  std::map<pid_t, int> reported_;
  std::int64_t stood_since_ns_ = 0;  // host time; 0: something runs
  std::int64_t alone_ns_ = 0;        // so long single threads have stepped since all ran

  bool looked_ = false;                    // the three below are of now
  std::map<pid_t, std::int64_t> carried_;  // kernel thread by vCPU host thread
  std::map<std::int64_t, pid_t> carrier_;  // and the other way round
  std::map<unsigned, pid_t> vcpu_hosts_;
  std::size_t names_of_ = 0;  // so many threads had their names read
  std::int64_t current_ = 0;  // tid of the last event
};

}  // namespace cowbird::debug
