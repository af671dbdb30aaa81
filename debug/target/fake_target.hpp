// FakeTarget: a small machine instead of a guest, behind which sessions and servers are tested: a
// kernel whose threads run a real little program (fake_machine.hpp) or sleep, and guest processes.
// It keeps the contract of target.hpp, non-stop mode, conditions and watchpoints included, and does
// nothing by itself: programs run while next_event() is called. Tests only.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/unique_fd.hpp"
#include "debug/target/fake_machine.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

class FakeTarget : public Target {
 public:
  struct Options {
    std::string program{};  // static ELF program of the kernel and of process 1; may be empty
    unsigned running = 2;   // kernel threads that execute it
    unsigned sleeping = 2;  // and that sleep
    bool live = true;       // false: a core file
    unsigned debug_registers = 4;
    bool kernel_calls = true;  // false: system calls of the kernel cannot be caught
  };
  static constexpr std::uint64_t kCode = 0x10000;  // without a program: a page of nop, and a loop
  static constexpr std::uint64_t kData = 0x20000;
  static constexpr std::int64_t kGuestPid = 1;

  explicit FakeTarget(Options options);
  ~FakeTarget() override;

  // --- what tests look at and do
  // Given by the next next_event() while something runs.
  void inject(StopEvent event);
  // attach() fails with this.
  void refuse_attach(Errno error, std::string words);
  std::uint64_t register_of(ThreadId id, Reg reg) const;
  struct Counts {
    unsigned attached = 0, detached = 0, resumed = 0, inserted = 0, removed = 0, evaluated = 0;
  };
  const Counts &counts() const { return counts_; }
  const std::vector<int> &passed_signals() const { return passed_; }

  // --- Target
  Result<void> attach() override;
  void detach_all() override;
  Result<void> attach_process(std::int64_t pid) override;
  Result<void> detach_process(std::int64_t pid) override;
  Result<void> kill(std::int64_t pid) override;
  bool is_live() const override { return options_.live; }
  std::string last_words() const override { return words_; }
  std::vector<std::int64_t> processes() override;
  std::vector<ThreadInfo> threads() override;
  bool is_alive(ThreadId id) override;
  ThreadId current_thread() override;
  std::vector<std::string> kernel_registers() override { return {"curtask"}; }
  Result<Registers> read_registers(ThreadId id) override;
  Result<void> write_registers(ThreadId id, const Registers &registers) override;
  Result<std::size_t> read_memory(std::int64_t pid, std::uint64_t address,
                                  std::span<std::byte> out) override;
  Result<std::size_t> write_memory(std::int64_t pid, std::uint64_t address,
                                   std::span<const std::byte> data) override;
  void set_non_stop(bool on) override;
  Result<void> resume(std::span<const ResumeAction> actions) override;
  void interrupt(ThreadId which) override;
  int event_fd() const override { return event_fd_.get(); }
  std::optional<StopEvent> next_event() override;
  Result<void> insert_breakpoint(const Breakpoint &breakpoint) override;
  Result<void> remove_breakpoint(const Breakpoint &breakpoint) override;
  Result<void> catch_syscalls(std::int64_t pid, bool on,
                              std::span<const std::int64_t> numbers) override;
  void pass_signals(std::span<const int> signals) override;
  void report_thread_events(bool on) override { thread_events_ = on; }
  void report_fork_events(bool on) override { fork_events_ = on; }
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
  std::vector<std::pair<std::string, std::string>> os_tables() override;
  Result<OsTable> os_table(const std::string &name) override;
  bool monitor(const std::string &command, ThreadId current, const OutputSink &out) override;

 private:
  struct Thread {
    ThreadInfo info;
    Registers registers;
    bool sleeps = false;  // has only saved registers, and never executes
    bool running = false;
    bool fresh = false;       // just resumed: a breakpoint right here does not count
    bool in_syscall = false;  // its entry was reported
    ResumeAction action;
    std::vector<std::byte> siginfo;
  };
  struct Process {
    std::shared_ptr<FakeMemory> memory;
    std::string executable;
    std::uint64_t entry = 0;
    bool attached = false;
  };
  Thread *find(ThreadId id);
  void make_process(std::int64_t pid);
  Thread &make_thread(ThreadId id, std::string name, bool sleeps);
  StopEvent stop(Thread &thread, StopEvent event);
  std::optional<StopEvent> run(Thread &thread);
  std::optional<StopEvent> hit(const Thread &thread);
  std::optional<StopEvent> watched(const Thread &thread, const FakeStep &step);
  std::optional<StopEvent> after(Thread &thread, const FakeStep &step);
  std::optional<StopEvent> system_call(Thread &thread);
  std::optional<StopEvent> finish_call(Thread &thread, std::uint64_t number);
  std::optional<StopEvent> fork(Thread &thread);
  std::optional<StopEvent> interrupted();
  bool holds(const Breakpoint &breakpoint, const Thread &thread);
  bool catches(std::int64_t pid, std::uint64_t number) const;
  void signal_fd();

  Options options_;
  UniqueFd event_fd_;
  std::map<std::int64_t, Process> processes_;
  std::deque<Thread> threads_;
  std::vector<Breakpoint> breakpoints_;
  std::deque<StopEvent> injected_;
  std::deque<ThreadId> interrupts_;
  std::map<std::int64_t, std::set<std::int64_t>> caught_;
  std::vector<int> passed_;
  bool attached_ = false, non_stop_ = false;
  bool thread_events_ = false, fork_events_ = false, exec_events_ = false;
  std::int64_t next_id_ = 1000;
  std::optional<Errno> refusal_;
  std::string words_;
  Counts counts_;
};

}  // namespace cowbird::debug
