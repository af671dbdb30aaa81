// One client of the debug agent: what it has attached to, the requests, the stops that it is told
// of. Of debug_agent/ alone; big kernel lock, on the agent's kernel thread but for the Tracer's
// functions.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "debug_agent/protocol.hpp"
#include "proc/task.hpp"
#include "proc/trace.hpp"
#include "vfs/file.hpp"

namespace cowbird::debug_agent {

// A kernel thread that goes on while the guest is frozen, and in whose name files can be opened as
// a guest program sees them: /proc/self and the like are those of `subject`.
class AgentThread final : public Thread {
 public:
  AgentThread() : Thread("kdebug") { runs_while_frozen = true; }
  Task *as_task() override { return subject.get(); }
  Ref<Task> subject;
};

class Session final : public Tracer {
 public:
  using Bytes = std::vector<std::byte>;
  // `send` queues a message; `wake` makes the thread look for stops.
  Session(AgentThread &thread, std::function<void(Bytes)> send, std::function<void()> wake);
  // Detaches from everything and lets the guest go on. Sleeps.
  ~Session();

  void handle(const Header &header, std::span<const std::byte> body);
  bool has_stops() const { return !stops_.empty(); }
  // Tells the client about the stops, after the guest has come to a standstill.
  void report_stops();

 private:
  using Reply = Result<Bytes>;

  void task_stopped(Task &task, const TraceStop &stop) override;
  void task_exited(Task &task) override;
  void process_exited(Process &process, int status) override;
  void push_stop(StopRecord record);
  bool stands_unseen(const Task &task) const;

  Reply answer(const Request &request);
  Reply hello(const Request &request);
  Reply processes();
  Reply threads(const Request &request);
  Reply attach(const Request &request);
  Reply detach(const Request &request);
  Reply kill(const Request &request);
  Reply get_registers(const Request &request);
  Reply set_registers(const Request &request);
  Reply read_memory(const Request &request);
  Reply write_memory(const Request &request);
  Reply breakpoint(const Request &request, bool insert);
  Reply auxv(const Request &request);
  Reply executable(const Request &request);
  Reply set_options(const Request &request);
  Reply catch_syscalls(const Request &request);
  Reply pass_signals(const Request &request);
  Reply freeze();
  Reply thaw();
  Reply request_stop(const Request &request);
  Reply resume(const Request &request);
  Reply get_signal_info(const Request &request);
  Reply set_signal_info(const Request &request);
  // session_files.cpp
  Reply open_file(const Request &request);
  Reply read_file(const Request &request);
  Reply stat_file(const Request &request);
  Reply close_file(const Request &request);
  Reply read_link(const Request &request);

  // Errors with a sentence for the client in words_.
  Result<Ref<Process>> process(int pid);
  Result<Ref<Process>> traced_process(int pid);
  Result<Ref<Task>> traced_task(int tid);
  Errno refuse(Errno error, std::string words);
  Result<void> come_out_of_call(Task &task);
  Result<void> stand_still();
  void let_go();
  void detach_all();
  void apply_options(TracedProcess &process) const;

  AgentThread &thread_;
  std::function<void(Bytes)> send_;
  std::function<void()> wake_;
  bool greeted_ = false;
  bool non_stop_ = false;
  bool closing_ = false;
  std::uint32_t options_ = 0;
  SignalSet pass_;
  std::uint64_t last_stop_ = 0;
  std::deque<StopRecord> stops_;   // to be sent
  std::deque<StopRecord> unseen_;  // that no Resume has confirmed yet
  Task *quiet_stop_ = nullptr;     // its Requested stop is our own doing
  std::map<std::uint64_t, Ref<File>> files_;
  std::map<std::uint64_t, Ref<Task>> readers_;  // in whose name
  std::uint64_t next_file_ = 1;
  std::string words_;
};

}  // namespace cowbird::debug_agent
