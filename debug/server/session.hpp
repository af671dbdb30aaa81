// Session: one gdb's conversation with a target. Bytes of gdb go in, bytes for gdb come out; what a
// packet means is decided here, how it is written is debug/rsp's. It needs no socket: the server
// (server.hpp) moves the bytes, tests call it directly.
//
// One thread calls everything, the one that calls the target.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "debug/rsp/documents.hpp"
#include "debug/rsp/framing.hpp"
#include "debug/rsp/register_layout.hpp"
#include "debug/rsp/requests.hpp"
#include "debug/server/breakpoint_set.hpp"
#include "debug/server/file_service.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

class Session {
 public:
  // The largest packet of either side: few round trips for gdb's big reads.
  static constexpr std::size_t kPacketSize = 0x40000;
  // Bytes of data in one: each may become two characters.
  static constexpr std::size_t kMaxData = kPacketSize / 2 - 32;
  // More than this in output(): the caller does not feed more input before it is sent.
  static constexpr std::size_t kMuchOutput = 4 * kPacketSize;

  // `send` takes what it can of output() to gdb while a command runs that prints as it goes; false:
  // gdb has gone. It may be empty: then output() just grows.
  using Send = std::function<bool(std::string &output)>;
  // Sees each payload: '<' from gdb, '>' to gdb, '%' notification.
  using Trace = std::function<void(char direction, std::string_view payload)>;

  explicit Session(Target &target, Send send = {}, Trace trace = {});
  ~Session();
  Session(const Session &) = delete;
  Session &operator=(const Session &) = delete;

  // What gdb has sent. The first packet attaches the target.
  void receive(std::string_view bytes);
  // Asks the target for events; call when its event_fd() is readable.
  void target_event();
  // What is to be sent to gdb; the caller takes it from the front.
  std::string &output() { return output_; }

  bool is_attached() const { return attached_; }
  // gdb has detached, and keeps the connection in case that it wants to attach again.
  bool has_let_go() const { return let_go_; }
  // The connection can be closed once output() is sent.
  bool is_finished() const { return finished_; }
  bool could_not_attach() const { return finished_ && !layout_; }  // gdb has been told why
  // The guest has ended, by itself or killed.
  bool guest_has_ended() const { return guest_ended_; }

  // The whole answer to a gdb that cannot be served, in a form that gdb prints when it comes as the
  // answer to its first packet.
  static std::string refusal(std::string_view words);

 private:
  struct Command;
  struct Commands;  // the table, session_commands.cpp
  friend struct Commands;

  // --- session.cpp: dispatch and life
  void handle_packet(std::string_view packet);
  bool attach_target(std::string &why);
  void standing();  // after an attach
  void run_command(const Command &command, std::string_view text);
  void reply(std::string_view payload);
  void reply_ok() { reply("OK"); }
  void reply_error(Errno error);
  // With words where gdb shows them ("error-message").
  void reply_error(Errno error, std::string_view words);
  template <typename T>
  void reply_result(const Result<T> &result) {
    if (result)
      reply_ok();
    else
      reply_error(result.error());
  }
  // Printed by gdb at once; only while gdb waits for a stop or for a monitor command.
  bool console(std::string_view words);
  bool flush();
  void changed();  // threads have run: what was cached is old
  void end_guest();
  void let_go();  // detaches from everything
  void q_supported(const Arguments &);
  void start_no_ack(const Arguments &);
  void must_reply_empty(const Arguments &);
  void extended_mode(const Arguments &);
  void detach(const Arguments &);
  void kill_all(const Arguments &);
  void v_kill(const Arguments &);
  void v_attach(const Arguments &);
  void q_attached(const Arguments &);
  void v_run(const Arguments &);
  void restart(const Arguments &);

  // --- session_state.cpp: threads, registers, memory
  std::optional<ThreadId> resolve(ThreadId id);
  std::optional<ThreadId> general_thread() { return resolve(general_); }
  std::int64_t general_pid();
  const std::vector<ThreadInfo> &threads();
  Result<Registers *> registers(ThreadId id);
  void set_thread(const Arguments &);
  void thread_alive(const Arguments &);
  void q_current(const Arguments &);
  void first_threads(const Arguments &);
  void more_threads(const Arguments &);
  void thread_extra(const Arguments &);
  void read_all(const Arguments &);
  void write_all(const Arguments &);
  void read_one(const Arguments &);
  void write_one(const Arguments &);
  void reply_written(const Result<void> &done);
  bool keeps_value(ThreadId thread, unsigned number, std::string_view hex);
  void read_memory(const Arguments &);
  void read_memory_binary(const Arguments &);
  void write_memory(const Arguments &);
  void write_memory_binary(const Arguments &);
  Result<std::string> memory(const Arguments &arguments, std::size_t most);
  void store(std::uint64_t address, std::uint64_t length, std::string_view data);
  void search(const Arguments &);
  void crc(const Arguments &);
  void tls_address(const Arguments &);

  void q_thread_list();

  // --- session_run.cpp: running and stopping
  void v_cont_query(const Arguments &);
  void v_cont(const Arguments &);
  void continue_old(const Arguments &);
  void step_old(const Arguments &);
  void continue_signal_old(const Arguments &);
  void step_signal_old(const Arguments &);
  void resume_old(ResumeKind kind, int signal, std::optional<std::uint64_t> address);
  void resume(std::vector<ResumeAction> actions);
  void leave_untold(std::vector<ResumeAction> &actions) const;
  void interrupt(ThreadId which);
  std::vector<ThreadId> running(ThreadId which);
  void stop_query(const Arguments &);
  void v_stopped(const Arguments &);
  void v_ctrl_c(const Arguments &);
  void set_non_stop(const Arguments &);
  void handle_event(StopEvent event);
  void reply_stop(const StopEvent &event);
  void queue_stop(StopEvent event);
  void notify();
  void follow(const StopEvent &event);
  std::string stop_text(const StopEvent &event);
  void insert(const Arguments &);
  void remove(const Arguments &);
  void pass_signals(const Arguments &);
  void catch_syscalls(const Arguments &);
  void thread_events(const Arguments &);

  // --- session_query.cpp: documents, files, monitor
  void transfer(const Arguments &);
  Result<std::string> document(const std::string &object, const std::string &annex);
  void write_siginfo(std::string_view rest);
  void files(const Arguments &);
  void monitor(const Arguments &);
  void symbols(const Arguments &);

  Target &target_;
  Send send_;
  Trace trace_;
  PacketReader reader_{kPacketSize};
  std::string output_;
  std::string last_packet_;  // framed, for '-'
  BreakpointSet breakpoints_;
  FileService files_;
  std::optional<RegisterLayout> layout_;  // from the first attach on

  // What was agreed on.
  bool acks_ = true;
  bool extended_ = false;
  bool error_words_ = false;
  StopStyle style_{false, false, false, false, false, false, false};

  // Life.
  bool attached_ = false;
  bool let_go_ = false;
  // gdb has detached from everything and then attached to a guest process only: it would take the
  // kernel for a process of unknown registers.
  bool kernel_hidden_ = false;
  bool finished_ = false;
  bool guest_ended_ = false;

  // Stops. All-stop: the stop reply that the last resuming packet waits for.
  bool awaiting_stop_ = false;
  bool early_interrupt_ = false;      // 0x03 was the last that came, and nothing ran
  const Command *command_ = nullptr;  // the one that is being answered
  std::optional<StopEvent> last_stop_;
  // Non-stop: stops that gdb has not acknowledged; the first one has been sent.
  bool non_stop_ = false;
  std::deque<StopEvent> pending_, later_;
  std::set<ThreadId> stopped_;

  ThreadId general_, continue_{kAll, kAll}, current_;
  // Valid while the threads stand still.
  std::optional<std::vector<ThreadInfo>> threads_;
  std::map<ThreadId, Registers> registers_;
  std::string document_key_, document_;
  std::size_t listed_ = 0;  // qsThreadInfo goes on here
};

}  // namespace cowbird::debug
