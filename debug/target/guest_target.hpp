// GuestTarget: a whole guest: the kernel (KernelTarget, by ptrace) and its processes (UserTarget,
// by the debug agent in the kernel). What a session of a live guest gets.
//
// There are two ways to stand still, and they exclude each other in part:
//   hard: the kernel's host threads are stopped. The agent cannot answer. Where this was our choice
//     (at the beginning, ^C) the kernel may run on until the agent has frozen the guest, which
//     changes nothing that gdb could see of guest programs; where a kernel thread has stopped by
//     itself (a breakpoint, a step, a fault) it may not. Then the memory and the registers of guest
//     processes come from the kernel's structures, as far as pages are present; their breakpoints
//     wait for the resume; what is impossible is refused in words.
//   soft: the agent has frozen the guest, and the kernel's host threads run idle. For a look at the
//     kernel they are paused.
#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <memory>
#include <set>

#include "base/unique_fd.hpp"
#include "debug/target/target.hpp"
#include "debug/target/user_target.hpp"
#include "debug/view/kernel_view.hpp"

namespace cowbird::debug {

class GuestTarget final : public Target {
 public:
  // What is needed of the kernel's target besides Target.
  struct KernelSide {
    std::function<bool()> hard_stopped, serves;
    std::function<void()> pause, unpause;
    std::function<KernelView *()> view;  // nullptr: there is none
    pid_t host_pid = 0;
    // Of the debug agent; empty: the guest has none, or none yet, for we are there before it.
    std::function<std::string()> agent_socket;
    std::shared_ptr<void> keep;  // what the others refer to
    // The monitor's commands and tables, which come from the kernel's structures.
    std::function<bool(const std::string &, ThreadId, const OutputSink &)> monitor;
    std::function<std::vector<std::pair<std::string, std::string>>()> os_tables;
    std::function<Result<OsTable>(const std::string &)> os_table;
  };
  GuestTarget(Target &kernel, KernelSide side);
  ~GuestTarget() override;
  // The monitor is made of the target, so it comes later.
  KernelSide &side() { return side_; }

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
  std::vector<std::string> kernel_registers() override { return kernel_.kernel_registers(); }
  Result<Registers> read_registers(ThreadId id) override;
  Result<void> write_registers(ThreadId id, const Registers &registers) override;
  Result<std::size_t> read_memory(std::int64_t pid, std::uint64_t address,
                                  std::span<std::byte> out) override;
  Result<std::size_t> write_memory(std::int64_t pid, std::uint64_t address,
                                   std::span<const std::byte> data) override;

  void set_non_stop(bool on) override;
  Result<void> resume(std::span<const ResumeAction> actions) override;
  void interrupt(ThreadId which) override;
  int event_fd() const override { return events_fd_.get(); }
  std::optional<StopEvent> next_event() override;

  Result<void> insert_breakpoint(const Breakpoint &breakpoint) override;
  Result<void> remove_breakpoint(const Breakpoint &breakpoint) override;
  Result<void> catch_syscalls(std::int64_t pid, bool on,
                              std::span<const std::int64_t> numbers) override;
  void pass_signals(std::span<const int> signals) override;
  void report_thread_events(bool on) override;
  void report_fork_events(bool on) override;
  void report_exec_events(bool on) override;

  Result<std::string> executable(std::int64_t pid) override;
  Result<std::vector<std::byte>> auxv(std::int64_t pid) override;
  Result<std::vector<Library>> libraries(std::int64_t pid) override;
  Result<std::vector<std::byte>> siginfo(ThreadId id) override;
  Result<void> set_siginfo(ThreadId id, std::span<const std::byte> data) override;
  Result<std::uint64_t> tls_address(ThreadId id, std::uint64_t offset,
                                    std::uint64_t link_map) override;
  Result<std::unique_ptr<TargetFile>> open_file(std::int64_t pid, const std::string &path) override;
  Result<std::string> read_link(std::int64_t pid, const std::string &path) override;

  std::vector<std::pair<std::string, std::string>> os_tables() override;
  Result<OsTable> os_table(const std::string &name) override;
  bool monitor(const std::string &command, ThreadId current, const OutputSink &out) override;

 private:
  enum class Standing : std::uint8_t { No, Hard, HardByChoice, Soft };
  using Later = std::function<Result<void>(UserTarget &)>;

  void pause();
  void unpause();
  // The kernel is stopped and may not run on: the agent cannot answer.
  bool stuck() const;
  // Before each call to the agent.
  Result<void> make_ready(std::string &why);
  // While one waits: false when it cannot be answered now.
  bool give_kernel_its_turn();
  Result<UserTarget *> user();
  Result<void> connect();
  void forget_agent();
  // It has gone by itself, and the processes that gdb knows with it.
  void lose_agent();
  void tell_of_orphans();
  Result<void> detach_kernel();
  void find_view(std::int64_t &pid, std::string &path) const;
  void tell_options();
  // Done before guest threads run again.
  Result<void> later(Later what);
  // False: the kernel has stopped meanwhile; the rest waits on.
  bool do_what_waits();
  Result<void> freeze();
  Result<void> refused(Result<void> result);
  Result<void> needs_agent(std::int64_t pid, const char *what);

  void watch(bool on);
  void wake() const;
  std::optional<StopEvent> given(StopEvent event, Standing standing);
  std::optional<StopEvent> kernel_event();
  std::optional<StopEvent> user_event();
  Result<void> resume_users(std::span<const ResumeAction> actions, bool everything);
  bool untold_comes_first(std::span<const ResumeAction> actions);
  void leave_untold(std::vector<ResumeAction> &actions) const;
  Result<void> step_kernel_alone(std::span<const ResumeAction> actions);
  void interrupt_users();

  const KernelThread *kernel_thread(std::int64_t guest_tid, std::int64_t guest_pid);

  Target &kernel_;
  KernelSide side_;
  UniqueFd events_fd_;  // epoll of the kernel's descriptor, the agent's and wake_fd_
  UniqueFd wake_fd_;
  int agent_fd_ = -1;  // in events_fd_
  bool watching_ = false;
  std::unique_ptr<UserTarget> user_;

  Standing standing_ = Standing::No;
  bool attached_ = false;
  bool with_kernel_ = false;  // it may be detached while guest processes stay
  bool frozen_ = false;       // by the agent, or it will be: the request is on its way
  bool preparing_ = false;    // make_ready() is at work
  bool paused_ = false;       // the kernel, for a look
  bool non_stop_ = false;
  bool thread_events_ = false, fork_events_ = false, exec_events_ = false;
  bool user_in_focus_ = false;  // gdb let guest threads run last, not the kernel
  std::vector<int> passed_;
  // Attached to an agent that has gone: told when the kernel turns out to have restarted. Its end
  // says enough.
  std::set<std::int64_t> orphans_;
  std::deque<StopEvent> ready_;         // to be given, one at a resume
  std::deque<StopEvent> kernel_ready_;  // the same, of the kernel: it is hard stopped
  std::deque<Later> waiting_;
  ThreadId current_;
  std::string words_;
};

}  // namespace cowbird::debug
