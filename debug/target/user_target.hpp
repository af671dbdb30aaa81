// UserTarget: guest processes as gdb sees them, through the debug agent in the kernel. GuestTarget
// puts it beside KernelTarget and sees to it that the agent can answer; everything here fails when
// it cannot, with a sentence in last_words().
#pragma once

#include <map>
#include <set>
#include <span>

#include "debug/target/agent_client.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

class UserTarget {
 public:
  explicit UserTarget(std::shared_ptr<AgentClient> agent) : agent_(std::move(agent)) {}
  AgentClient &agent() { return *agent_; }
  const std::string &last_words() const { return agent_->words(); }

  // Attached ones, as this side knows.
  const std::set<std::int64_t> &processes() const { return processes_; }
  Result<void> attach(std::int64_t pid);
  Result<void> detach(std::int64_t pid);
  // It is not shown any more; the agent is told by detach(), when it can answer.
  void forget(std::int64_t pid);
  Result<void> kill(std::int64_t pid);
  const std::vector<ThreadInfo> &threads();
  bool is_alive(ThreadId id);

  Result<void> freeze();
  // Does not wait: what a freeze that was given up has done, or is yet to do, is undone.
  void thaw_when_frozen();
  Result<void> set_non_stop(bool on);
  Result<void> request_stop(ThreadId which);
  // Threads that no action matches are held. `everything`: they go on instead. Not those whose stop
  // next_event() has not given yet; in all-stop mode nothing runs then.
  Result<void> resume(std::span<const ResumeAction> actions, bool everything);
  // The same, without doing it: the agent cannot answer, and a stop that is there comes first.
  void plan(std::span<const ResumeAction> actions, bool everything);
  // A stop that gdb is to be told of. Conditions of breakpoints that are false end in a resume;
  // true in `went_on` then, and nullopt.
  std::optional<StopEvent> next_event(bool &went_on);

  Result<Registers> read_registers(std::int64_t tid);
  Result<void> write_registers(std::int64_t tid, const Registers &registers);
  Result<std::size_t> read_memory(std::int64_t pid, std::uint64_t address,
                                  std::span<std::byte> out);
  Result<std::size_t> write_memory(std::int64_t pid, std::uint64_t address,
                                   std::span<const std::byte> data);
  Result<void> insert_breakpoint(const Breakpoint &breakpoint);
  Result<void> remove_breakpoint(const Breakpoint &breakpoint);
  Result<void> catch_syscalls(std::int64_t pid, bool on, std::span<const std::int64_t> numbers);
  Result<void> pass_signals(std::span<const int> signals);
  Result<void> report(bool threads, bool forks, bool execs);

  Result<std::string> executable(std::int64_t pid);
  Result<std::vector<std::byte>> auxv(std::int64_t pid);
  Result<std::vector<Library>> libraries(std::int64_t pid);
  Result<std::vector<std::byte>> siginfo(std::int64_t tid);
  Result<void> set_siginfo(std::int64_t tid, std::span<const std::byte> data);
  Result<std::unique_ptr<TargetFile>> open_file(std::int64_t pid, const std::string &path);
  Result<std::string> read_link(std::int64_t pid, const std::string &path);

 private:
  using Command = debug_agent::Command;
  Result<void> resume_as(std::span<const debug_agent::ResumeRecord> records);
  StopEvent event_of(const debug_agent::StopRecord &stop);
  bool wanted(const debug_agent::StopRecord &stop);
  // What was read is old; `still`: what is read now stays so for a while.
  void changed(bool still);
  Result<std::uint64_t> word(std::int64_t pid, std::uint64_t address);
  Result<std::uint64_t> dynamic_entry(std::int64_t pid, std::int64_t tag);
  Result<std::string> string_at(std::int64_t pid, std::uint64_t address);

  std::shared_ptr<AgentClient> agent_;  // open files hold it too
  std::set<std::int64_t> processes_;
  std::map<std::pair<std::int64_t, std::uint64_t>, std::vector<AgentExpression>> conditions_;
  std::vector<debug_agent::ResumeRecord> last_resume_;
  std::uint64_t seen_ = 0;  // the newest stop that next_event() has taken
  bool non_stop_ = false;
  // The agent has frozen the guest, so the list is right until it thaws.
  bool still_ = false;
  std::vector<ThreadInfo> threads_;
};

}  // namespace cowbird::debug
