// CoreTarget: the core file of a kernel as a target. It shows the same threads with the same names
// as the live kernel did: kernel threads, on whichever host thread carried them or with their saved
// registers, and the host threads. Nothing can be resumed or written.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.hpp"
#include "debug/core/core_file.hpp"
#include "debug/monitor/monitor.hpp"
#include "debug/target/target.hpp"
#include "debug/view/kernel_view.hpp"

namespace cowbird::debug {

class CoreTarget final : public Target {
 public:
  // `program`: the file that left the core; empty: the one that the core names. nullptr and a
  // sentence in `why`. A core without a readable kernel (another program, too old) still has its
  // host threads; last_words() says what is missing.
  static std::unique_ptr<CoreTarget> open(const std::string &path, const std::string &program,
                                          std::string &why);

  // What there is to say about the core: the panic's message, that it is cut.
  std::string summary() const;

  Result<void> attach() override { return {}; }
  void detach_all() override {}
  Result<void> attach_process(std::int64_t pid) override;
  Result<void> detach_process(std::int64_t pid) override;
  Result<void> kill(std::int64_t) override { return refuse(); }
  bool is_live() const override { return false; }
  std::string last_words() const override { return words_; }

  std::vector<std::int64_t> processes() override { return {kKernelPid}; }
  std::vector<ThreadInfo> threads() override;
  bool is_alive(ThreadId id) override;
  ThreadId current_thread() override;

  Result<Registers> read_registers(ThreadId id) override;
  Result<void> write_registers(ThreadId, const Registers &) override { return refuse(); }
  Result<std::size_t> read_memory(std::int64_t pid, std::uint64_t address,
                                  std::span<std::byte> out) override;
  Result<std::size_t> write_memory(std::int64_t, std::uint64_t,
                                   std::span<const std::byte>) override;

  void set_non_stop(bool) override {}
  Result<void> resume(std::span<const ResumeAction>) override { return refuse(); }
  void interrupt(ThreadId) override {}
  int event_fd() const override { return event_.get(); }
  std::optional<StopEvent> next_event() override { return std::nullopt; }

  Result<void> insert_breakpoint(const Breakpoint &) override { return refuse(); }
  Result<void> remove_breakpoint(const Breakpoint &) override { return refuse(); }
  Result<void> catch_syscalls(std::int64_t, bool, std::span<const std::int64_t>) override {
    return refuse();
  }
  // These ask for events, of which a core has none.
  void pass_signals(std::span<const int>) override {}
  void report_thread_events(bool) override {}
  void report_fork_events(bool) override {}
  void report_exec_events(bool) override {}

  Result<std::string> executable(std::int64_t pid) override;
  Result<std::vector<std::byte>> auxv(std::int64_t pid) override;
  Result<std::vector<Library>> libraries(std::int64_t pid) override;
  Result<std::vector<std::byte>> siginfo(ThreadId) override { return Err(Errno::NoEnt); }
  Result<void> set_siginfo(ThreadId, std::span<const std::byte>) override { return refuse(); }
  Result<std::uint64_t> tls_address(ThreadId, std::uint64_t, std::uint64_t) override;
  Result<std::unique_ptr<TargetFile>> open_file(std::int64_t pid, const std::string &path) override;
  Result<std::string> read_link(std::int64_t pid, const std::string &path) override;

  std::vector<std::pair<std::string, std::string>> os_tables() override {
    return Monitor::os_tables();
  }
  Result<OsTable> os_table(const std::string &name) override { return monitor_.os_table(name); }
  bool monitor(const std::string &command, ThreadId current, const OutputSink &out) override {
    return monitor_.run(command, current, out);
  }

 private:
  CoreTarget() : monitor_(*this, [this] { return view_.get(); }) {}
  Result<void> refuse();
  void find_program(const std::string &program);
  void open_view();
  void place_threads();
  const CoreThread *host_thread(std::int64_t tid) const;
  std::string host_name(const CoreThread &thread) const;

  std::unique_ptr<CoreFile> core_;
  std::unique_ptr<KernelView> view_;
  std::string path_, program_, words_;
  std::uint64_t base_ = 0, dynamic_ = 0;
  std::map<std::int64_t, const CoreThread *> carrier_;  // host thread by kernel thread
  std::map<pid_t, std::int64_t> carried_;               // and the other way round
  UniqueFd event_;
  Monitor monitor_;
};

}  // namespace cowbird::debug
