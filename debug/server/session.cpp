// Dispatch of packets and the life of a session; session.hpp.
#include "debug/server/session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>

#include "debug/rsp/hex.hpp"
#include "debug/server/session_commands.hpp"

namespace cowbird::debug {

namespace {

constexpr std::size_t kConsoleChunk = 4096;

// Words in an error must not look like framing.
std::string plain(std::string_view words) {
  std::string out(words);
  for (auto &c : out)
    if (c == '$' || c == '#' || c == '}' || c == '*' || c == '\n') c = ' ';
  return out;
}

}  // namespace

Session::Session(Target &target, Send send, Trace trace)
    : target_(target),
      send_(std::move(send)),
      trace_(std::move(trace)),
      breakpoints_(target),
      files_(target, kMaxData) {}

Session::~Session() {
  if (attached_) target_.detach_all();
}

std::string Session::refusal(std::string_view words) {
  std::string out = "+";
  append_packet(out, "E." + plain(words));
  return out;
}

void Session::receive(std::string_view bytes) {
  for (const char c : bytes) {
    if (finished_) return;
    switch (reader_.push(static_cast<unsigned char>(c))) {
      case PacketReader::Event::Packet: {
        if (acks_) output_ += '+';
        const auto packet = reader_.take();
        if (trace_) trace_('<', packet);
        handle_packet(packet);
        break;
      }
      case PacketReader::Event::Interrupt:
        if (trace_) trace_('<', "\x03");
        if (attached_ && (awaiting_stop_ || non_stop_))
          interrupt({kAll, kAll});
        else
          early_interrupt_ = true;
        break;
      case PacketReader::Event::Nack:
        if (acks_) output_ += last_packet_;
        break;
      case PacketReader::Event::BadChecksum:
        output_ += '-';
        break;
      case PacketReader::Event::TooLong:
        if (acks_) output_ += '+';
        reply_error(Errno::TooBig);
        break;
      case PacketReader::Event::None:
      case PacketReader::Event::Ack:
        break;
    }
  }
}

void Session::handle_packet(std::string_view packet) {
  std::string why;
  if (!layout_ && !attach_target(why)) {
    reply("E." + plain(why));
    finished_ = true;
    return;
  }
  // A ^C at gdb's terminal may overtake the packet that resumes.
  const bool early = std::exchange(early_interrupt_, false);
  const auto *command = Command::find(packet);
  if (command == nullptr) {
    reply("");
  } else if (!attached_ && !(command->flags & Command::kNoTarget)) {
    reply_error(Errno::Srch);
  } else if (awaiting_stop_ && !(command->flags & Command::kRunning)) {
    reply_error(Errno::Busy);
  } else {
    run_command(*command, packet);
    if (early && awaiting_stop_) interrupt({kAll, kAll});
  }
}

void Session::run_command(const Command &command, std::string_view text) {
  const auto arguments = Arguments::parse(command.schema, text);
  if (!arguments) {
    reply_error(Errno::Inval);
    return;
  }
  command_ = &command;
  (this->*command.handler)(*arguments);
  command_ = nullptr;
}

void Session::reply(std::string_view payload) {
  if (trace_) trace_('>', payload);
  const auto from = output_.size();
  append_packet(output_, payload);
  if (acks_) last_packet_ = output_.substr(from);
}

void Session::reply_error(Errno error) {
  reply(fmt::format("E{:02x}", static_cast<unsigned>(error)));
}

void Session::reply_error(Errno error, std::string_view words) {
  if (error_words_ && !words.empty())
    reply("E." + plain(words));
  else
    reply_error(error);
}

// gdb prints the whole answer to what sets registers, so there words need no agreement.
void Session::reply_written(const Result<void> &done) {
  const auto words = target_.last_words();
  if (done || words.empty()) return reply_result(done);
  reply("E." + plain(words));
}

bool Session::console(std::string_view words) {
  while (!words.empty()) {
    const auto part = words.substr(0, kConsoleChunk);
    words.remove_prefix(part.size());
    reply("O" + text_to_hex(part));
    if (!flush()) return false;
  }
  return true;
}

bool Session::flush() { return !send_ || send_(output_); }

void Session::changed() {
  threads_.reset();
  registers_.clear();
  document_key_.clear();
}

bool Session::attach_target(std::string &why) {
  const auto done = target_.attach();
  if (!done) {
    why = target_.last_words();
    if (why.empty())
      why = fmt::format("The guest cannot be attached: {}.", errno_text(done.error()));
    return false;
  }
  if (!layout_) layout_.emplace(XsaveOffsets::host(), target_.kernel_registers());
  standing();
  return true;
}

void Session::standing() {
  attached_ = true;
  let_go_ = false;
  changed();
  current_ = target_.current_thread();
  general_ = {};
  continue_ = {kAll, kAll};
  last_stop_.reset();
  if (non_stop_) {
    target_.set_non_stop(true);
    for (const auto &thread : threads()) stopped_.insert(thread.id);
  }
}

void Session::end_guest() {
  guest_ended_ = true;
  attached_ = false;
  awaiting_stop_ = false;
  breakpoints_.forget();
  stopped_.clear();
  changed();
}

void Session::q_supported(const Arguments &arguments) {
  auto text = std::string_view(arguments.text(0));
  if (text.starts_with(':')) text.remove_prefix(1);
  const auto gdb = parse_features(text);
  style_.multiprocess = gdb.contains("multiprocess");
  style_.swbreak = gdb.contains("swbreak");
  style_.hwbreak = gdb.contains("hwbreak");
  style_.fork = gdb.contains("fork-events");
  style_.vfork = gdb.contains("vfork-events");
  style_.exec = gdb.contains("exec-events");
  style_.no_resumed = gdb.contains("no-resumed");
  error_words_ = gdb.contains("error-message");
  std::string out = fmt::format(
      "PacketSize={:x};QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;"
      "qXfer:exec-file:read+;qXfer:auxv:read+;qXfer:libraries-svr4:read+;qXfer:siginfo:read+;"
      "qXfer:osdata:read+;binary-upload+;vContSupported+;no-resumed+;error-message+",
      kPacketSize);
  if (style_.multiprocess) out += ";multiprocess+";
  if (target_.is_live()) {
    out +=
        ";qXfer:siginfo:write+;swbreak+;hwbreak+;ConditionalBreakpoints+;QNonStop+;QPassSignals+;"
        "QCatchSyscalls+;QThreadEvents+;fork-events+;vfork-events+;exec-events+";
    target_.report_fork_events(style_.fork && style_.vfork);
    target_.report_exec_events(style_.exec);
  }
  reply(out);
}

void Session::start_no_ack(const Arguments &) {
  reply_ok();
  acks_ = false;  // this answer is still acknowledged; a '+' more does no harm
  last_packet_.clear();
  reader_.ignore_checksums();
}

void Session::must_reply_empty(const Arguments &) { reply(""); }

void Session::extended_mode(const Arguments &) {
  extended_ = true;
  reply_ok();
}

// "D", "D;pid"
void Session::detach(const Arguments &arguments) {
  auto text = std::string_view(arguments.text(0));
  if (!attached_) return reply_ok();
  auto attached = target_.processes();
  if (kernel_hidden_) std::erase(attached, kKernelPid);
  if (text.starts_with(';')) {
    const auto pid = hex_number(text.substr(1));
    const auto known = [&](std::int64_t p) { return pid && static_cast<std::uint64_t>(p) == *pid; };
    if (std::none_of(attached.begin(), attached.end(), known)) return reply_error(Errno::Srch);
    if (attached.size() > 1) {
      const auto done = target_.detach_process(static_cast<std::int64_t>(*pid));
      if (!done) return reply_error(done.error(), target_.last_words());
      breakpoints_.forget(static_cast<std::int64_t>(*pid));
      std::erase_if(stopped_, [&](ThreadId id) { return known(id.pid); });
      changed();
      if (known(current_.pid)) current_ = target_.current_thread();
      if (known(general_.pid)) general_ = {};
      return reply_ok();
    }
  } else if (!text.empty()) {
    return reply_error(Errno::Inval);
  }
  let_go();
  reply_ok();
}

void Session::let_go() {
  target_.detach_all();
  attached_ = false;
  let_go_ = true;
  kernel_hidden_ = false;
  breakpoints_.forget();
  stopped_.clear();
  pending_.clear();
  later_.clear();
  changed();
}

void Session::kill_all(const Arguments &) {
  (void)target_.kill(kKernelPid);  // the protocol has no answer
  end_guest();
  finished_ = true;
}

void Session::v_kill(const Arguments &arguments) {
  const auto pid = static_cast<std::int64_t>(arguments.number(0));
  const auto done = target_.kill(pid);
  if (!done) return reply_error(done.error(), target_.last_words());
  if (pid == kKernelPid) {
    end_guest();
  } else {
    breakpoints_.forget(pid);
    std::erase_if(stopped_, [&](ThreadId id) { return id.pid == pid; });
    changed();
    current_ = target_.current_thread();
  }
  reply_ok();
}

void Session::v_attach(const Arguments &arguments) {
  const auto pid = static_cast<std::int64_t>(arguments.number(0));
  if (guest_ended_) return reply_error(Errno::Srch, "The guest has ended.");
  const bool anew = !attached_;
  std::string why;
  // A gdb that has a process twice does not recover from it.
  if (const auto had = target_.processes(); !anew && !(pid == kKernelPid && kernel_hidden_) &&
                                            std::find(had.begin(), had.end(), pid) != had.end())
    return reply_error(Errno::Exist, fmt::format("Process {} is attached already.", pid));
  if (anew && !attach_target(why)) return reply_error(Errno::Io, why);
  if (pid != kKernelPid) {
    const auto done = target_.attach_process(pid);
    if (!done) {
      why = target_.last_words();
      if (anew) let_go();
      return reply_error(done.error(), why);
    }
  }
  if (anew || pid == kKernelPid) kernel_hidden_ = pid != kKernelPid;
  changed();
  current_ = resolve({pid, 0}).value_or(current_);
  if (!non_stop_) return reply_stop({.thread = current_, .reason = StopReason::Interrupted});
  reply_ok();
  for (const auto &thread : threads())
    if (thread.id.pid == pid) queue_stop({.thread = thread.id, .reason = StopReason::Interrupted});
}

// All was there before gdb came: gdb's `quit` leaves it running.
void Session::q_attached(const Arguments &) { reply("1"); }

// gdb's `run`, after it has killed what was there. An empty answer would have it try "R" and then
// take the guest that has ended for a new one.
void Session::v_run(const Arguments &) {
  reply_error(Errno::OpNotSupp, "A guest is started by `cowbird boot` and not from gdb.");
}

// "R" has no answer. A guest cannot be started anew from here; gdb asks for the stop next.
void Session::restart(const Arguments &) {}

}  // namespace cowbird::debug
