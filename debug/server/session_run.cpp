// Running and stopping; session.hpp.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <iterator>
#include <utility>

#include "debug/rsp/hex.hpp"
#include "debug/rsp/signals.hpp"
#include "debug/server/session.hpp"
#include "debug/server/session_commands.hpp"

namespace cowbird::debug {

namespace {

bool matches(ThreadId pattern, ThreadId id) {
  return (pattern.pid == kAll || pattern.pid == id.pid) &&
         (pattern.tid == kAll || pattern.tid == id.tid);
}

// "1", "1;3c;101": what follows the first number, or nothing when it is no such list.
std::optional<std::vector<std::uint64_t>> numbers(std::string_view text) {
  std::vector<std::uint64_t> list;
  while (!text.empty()) {
    const auto number = take_hex(text);
    if (!number) return std::nullopt;
    list.push_back(*number);
    if (text.empty()) break;
    if (text.front() != ';') return std::nullopt;
    text.remove_prefix(1);
  }
  return list;
}

}  // namespace

// gdb uses vCont only where all of c, C, s and S are named.
void Session::v_cont_query(const Arguments &) { reply("vCont;c;C;s;S;t;r"); }

void Session::v_cont(const Arguments &arguments) {
  auto actions = parse_vcont(arguments.text(0));
  if (!actions) return reply_error(Errno::Inval);
  for (auto &action : *actions) {
    auto &id = action.thread;
    // "any" is one thread; "all of a process" stays.
    if (id.tid == 0 || (id.pid == 0 && id.tid != kAll)) {
      const auto thread = resolve(id);
      if (!thread) return reply_error(Errno::Srch);
      id = *thread;
    }
  }
  resume(std::move(*actions));
}

void Session::continue_old(const Arguments &arguments) {
  const auto &text = arguments.text(0);
  const auto address = hex_number(text);
  if (!text.empty() && !address) return reply_error(Errno::Inval);
  resume_old(ResumeKind::Continue, 0, address);
}

void Session::step_old(const Arguments &arguments) {
  const auto &text = arguments.text(0);
  const auto address = hex_number(text);
  if (!text.empty() && !address) return reply_error(Errno::Inval);
  resume_old(ResumeKind::Step, 0, address);
}

void Session::continue_signal_old(const Arguments &arguments) {
  const auto signal = signal_from_gdb(static_cast<unsigned>(arguments.number(0) & 0xff));
  resume_old(ResumeKind::Continue, signal,
             arguments.count() > 1 ? std::optional(arguments.number(1)) : std::nullopt);
}

void Session::step_signal_old(const Arguments &arguments) {
  const auto signal = signal_from_gdb(static_cast<unsigned>(arguments.number(0) & 0xff));
  resume_old(ResumeKind::Step, signal,
             arguments.count() > 1 ? std::optional(arguments.number(1)) : std::nullopt);
}

// The packets from before vCont: the thread of Hc alone, or the current one as asked and all others
// on.
void Session::resume_old(ResumeKind kind, int signal, std::optional<std::uint64_t> address) {
  const bool alone = continue_.tid != kAll && continue_.tid != 0;
  const auto thread = alone ? resolve(continue_) : resolve(general_);
  if (!thread) return reply_error(Errno::Srch);
  if (address) {
    Registers change;
    change.set(Reg::Rip, *address);
    const auto done = target_.write_registers(*thread, change);
    if (!done) return reply_error(done.error());
  }
  std::vector<ResumeAction> actions(1);
  actions[0].thread = *thread;
  actions[0].kind = kind;
  actions[0].signal = signal;
  if (!alone) {
    actions.emplace_back();
    actions[1].thread = {kAll, kAll};
  }
  resume(std::move(actions));
}

// Non-stop: gdb takes a thread whose stop it has not fetched yet for running, and with an action
// for all threads it means the others.
void Session::leave_untold(std::vector<ResumeAction> &actions) const {
  std::vector<ResumeAction> list;
  for (const auto *queue : {&pending_, &later_}) {
    for (const auto &event : *queue) {
      const auto first = std::find_if(actions.begin(), actions.end(), [&](const auto &a) {
        return matches(a.thread, event.thread);
      });
      if (first == actions.end() || first->thread.tid != kAll) continue;
      list.push_back({.thread = event.thread, .kind = ResumeKind::Stop});
    }
  }
  actions.insert(actions.begin(), list.begin(), list.end());
}

void Session::resume(std::vector<ResumeAction> actions) {
  breakpoints_.flush();
  changed();
  bool runs = false;
  for (const auto &action : actions) {
    if (action.kind != ResumeKind::Stop)
      runs = true;
    else
      interrupt(action.thread);
  }
  if (non_stop_) leave_untold(actions);
  std::erase_if(stopped_, [&](ThreadId id) {
    const auto first = std::find_if(actions.begin(), actions.end(),
                                    [&](const auto &a) { return matches(a.thread, id); });
    return first != actions.end() && first->kind != ResumeKind::Stop;
  });
  if (!non_stop_) awaiting_stop_ = true;
  const auto done = runs ? target_.resume(actions) : Result<void>();
  if (non_stop_) return done ? reply_ok() : reply_error(done.error(), target_.last_words());
  if (done) return;
  // An error as the answer would leave gdb stepping on and on: a stop by SIGINT ends the command.
  const auto words = target_.last_words();
  console(words.empty() ? fmt::format("The guest does not run: {}.\n", errno_text(done.error()))
                        : words + "\n");
  reply_stop({.thread = current_, .reason = StopReason::Interrupted, .signal = SIGINT});
}

// In non-stop mode a thread that gdb takes for stopped is not asked again: it would stop anew as
// soon as it goes on.
void Session::interrupt(ThreadId which) {
  if (!non_stop_) return target_.interrupt(which);
  bool kernel = false;
  changed();
  for (const auto id : running(which)) {
    if (id.pid == kKernelPid && which.tid == kAll)
      kernel = true;
    else
      target_.interrupt(id);
  }
  if (kernel) target_.interrupt({kKernelPid, kAll});
}

std::vector<ThreadId> Session::running(ThreadId which) {
  std::vector<ThreadId> list;
  for (const auto &thread : threads())
    if (matches(which, thread.id) && !stopped_.contains(thread.id)) list.push_back(thread.id);
  return list;
}

void Session::v_ctrl_c(const Arguments &) {
  interrupt({kAll, kAll});
  reply_ok();
}

// `?`: what a new gdb sends. It knows of no breakpoints.
void Session::stop_query(const Arguments &) {
  if (!attached_) return reply("W00");
  breakpoints_.clear();
  if (!non_stop_) {
    if (last_stop_) return reply_stop(*last_stop_);
    return reply_stop({.thread = resolve({0, 0}).value_or(current_), .signal = SIGTRAP});
  }
  // gdb 13 dies of an assertion of its own when `?` brings it more than one stop. The others follow
  // as notifications.
  std::set<ThreadId> known;
  for (const auto &event : pending_) known.insert(event.thread);
  for (const auto id : stopped_)
    if (!known.contains(id)) pending_.push_back({.thread = id, .reason = StopReason::Interrupted});
  if (pending_.empty()) return reply_ok();
  reply(stop_text(pending_.front()));
  later_.assign(std::make_move_iterator(pending_.begin() + 1),
                std::make_move_iterator(pending_.end()));
  pending_.resize(1);
}

// The one before has arrived.
void Session::v_stopped(const Arguments &) {
  if (!pending_.empty()) pending_.pop_front();
  if (!pending_.empty()) return reply(stop_text(pending_.front()));
  reply_ok();
  pending_ = std::exchange(later_, {});
  notify();
}

void Session::notify() {
  if (pending_.empty()) return;
  const auto text = "Stop:" + stop_text(pending_.front());
  if (trace_) trace_('%', text);
  append_notification(output_, text);
}

void Session::set_non_stop(const Arguments &arguments) {
  if (arguments.number(0) > 1 || !target_.is_live()) return reply_error(Errno::Inval);
  non_stop_ = arguments.number(0) == 1;
  target_.set_non_stop(non_stop_);
  stopped_.clear();
  pending_.clear();
  later_.clear();
  if (non_stop_)
    for (const auto &thread : threads()) stopped_.insert(thread.id);
  reply_ok();
}

void Session::target_event() {
  while (attached_ && !finished_ && (non_stop_ || awaiting_stop_)) {
    auto event = target_.next_event();
    if (!event) return;
    handle_event(std::move(*event));
  }
}

// What an event means for what is remembered of the guest.
void Session::follow(const StopEvent &event) {
  changed();
  switch (event.reason) {
    case StopReason::ProcessExited:
    case StopReason::ProcessKilled:
      breakpoints_.forget(event.thread.pid);
      std::erase_if(stopped_, [&](ThreadId id) { return id.pid == event.thread.pid; });
      if (event.thread.pid == kKernelPid) end_guest();
      break;
    case StopReason::Exec:
      breakpoints_.forget(event.thread.pid);
      break;
    case StopReason::Fork:
    case StopReason::Vfork:
      breakpoints_.inherit(event.thread.pid, event.child.pid);
      break;
    default:
      break;
  }
}

void Session::handle_event(StopEvent event) {
  if (event.thread.pid == 0) event.thread = target_.current_thread();
  follow(event);
  if (non_stop_) return queue_stop(std::move(event));
  if (!event.words.empty()) console(event.words + "\n");
  const bool gone = event.reason == StopReason::ProcessExited ||
                    event.reason == StopReason::ProcessKilled ||
                    event.reason == StopReason::ThreadExited;
  if (!gone)
    last_stop_ = event;
  else
    last_stop_.reset();
  reply_stop(event);
  current_ = event.thread;
  if (gone && attached_) current_ = target_.current_thread();
  general_ = {};
}

// The one place that answers a resuming packet of all-stop mode.
void Session::reply_stop(const StopEvent &event) {
  const bool asked = command_ != nullptr && (command_->flags & Command::kStopReply) != 0;
  if (!awaiting_stop_ && !asked && attached_) return;
  awaiting_stop_ = false;
  reply(stop_text(event));
}

void Session::queue_stop(StopEvent event) {
  if (event.reason != StopReason::ThreadExited && event.reason != StopReason::NoneLeft &&
      event.reason != StopReason::ProcessExited && event.reason != StopReason::ProcessKilled)
    stopped_.insert(event.thread);
  pending_.push_back(std::move(event));
  if (pending_.size() == 1) notify();  // gdb fetches further ones by vStopped
}

std::string Session::stop_text(const StopEvent &event) {
  std::string expedited;
  const bool has_thread = event.reason != StopReason::ProcessExited &&
                          event.reason != StopReason::ProcessKilled &&
                          event.reason != StopReason::ThreadExited;
  // After vAttach of non-stop mode gdb does not know yet what the process's registers are like.
  const bool known =
      !non_stop_ || event.reason != StopReason::Interrupted || event.thread.pid == kKernelPid;
  if (const auto values =
          has_thread && attached_ && known ? registers(event.thread) : Err(Errno::Srch)) {
    for (unsigned i = 0; i < RegisterLayout::kExpedited; ++i) {
      const auto reg = general_register(i);
      if (!reg || !(*values)->has(*reg)) continue;
      expedited += fmt::format("{:x}:", i);
      (void)layout_->append(expedited, i, **values);
      expedited += ';';
    }
  }
  return stop_reply(event, expedited, style_);
}

void Session::insert(const Arguments &arguments) {
  const auto &text = arguments.text(0);
  auto breakpoint =
      text.size() < 2 || text[1] != ',' ? std::nullopt : parse_breakpoint(text[0], text.substr(2));
  if (!breakpoint) return reply_error(Errno::Inval);
  breakpoint->pid = general_pid();
  const auto done = breakpoints_.insert(*breakpoint);
  if (done) return reply_ok();
  // gdb takes the empty answer for "not this kind", and says so.
  if (done.is(Errno::OpNotSupp)) return reply("");
  reply_error(done.error(), target_.last_words());
}

void Session::remove(const Arguments &arguments) {
  const auto &text = arguments.text(0);
  auto breakpoint =
      text.size() < 2 || text[1] != ',' ? std::nullopt : parse_breakpoint(text[0], text.substr(2));
  if (!breakpoint) return reply_error(Errno::Inval);
  breakpoint->pid = general_pid();
  reply_result(breakpoints_.remove(*breakpoint, !non_stop_));
}

void Session::pass_signals(const Arguments &arguments) {
  const auto list = numbers(arguments.text(0));
  if (!list) return reply_error(Errno::Inval);
  std::vector<int> signals;
  for (const auto gdb : *list)
    if (const int number = gdb <= 0xff ? signal_from_gdb(static_cast<unsigned>(gdb)) : 0)
      signals.push_back(number);
  target_.pass_signals(signals);
  reply_ok();
}

// "0", "1" (all), "1;27;3c"
void Session::catch_syscalls(const Arguments &arguments) {
  const auto list = numbers(arguments.text(0));
  if (!list || list->empty() || list->front() > 1) return reply_error(Errno::Inval);
  std::vector<std::int64_t> wanted;
  for (std::size_t i = 1; i < list->size(); ++i)
    wanted.push_back(static_cast<std::int64_t>((*list)[i]));
  const bool on = list->front() == 1;
  const auto pid = general_pid();
  auto done = target_.catch_syscalls(pid, on, wanted);
  // gdb does not say which process it means: after an exec it is often another one than Hg's.
  if (done.is(Errno::OpNotSupp) && current_.pid != pid)
    done = target_.catch_syscalls(current_.pid, on, wanted);
  reply_result(done);
}

void Session::thread_events(const Arguments &arguments) {
  if (arguments.number(0) > 1) return reply_error(Errno::Inval);
  target_.report_thread_events(arguments.number(0) == 1);
  reply_ok();
}

}  // namespace cowbird::debug
