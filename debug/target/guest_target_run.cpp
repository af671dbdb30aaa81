// GuestTarget: running and stopping the kernel and guest processes together.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>

#include "debug/target/guest_target.hpp"

namespace cowbird::debug {
namespace {

constexpr std::chrono::milliseconds kTurn{20};

// What was asked for one of the kernel's threads and not for all.
bool is_for_one(const ResumeAction &action) {
  return action.thread.pid == kKernelPid &&
         (action.thread.tid != kAll || action.kind != ResumeKind::Continue);
}

bool is_for_users(const ResumeAction &action) { return action.thread.pid != kKernelPid; }

// The guest as a whole goes on.
bool is_for_everything(const ResumeAction &action) {
  return action.kind == ResumeKind::Continue && action.thread.tid == kAll &&
         (action.thread.pid == kAll || action.thread.pid == kKernelPid);
}

}  // namespace

// The server asks for events whenever the descriptor is readable. While gdb holds everything there
// are none for it, whatever the kernel and the agent have to say.
void GuestTarget::watch(bool on) {
  if (on == watching_) return;
  watching_ = on;
  for (const int fd : {with_kernel_ ? kernel_.event_fd() : -1, agent_fd_}) {
    if (fd < 0) continue;
    epoll_event event{};
    event.events = EPOLLIN;
    ::epoll_ctl(events_fd_.get(), EPOLL_CTL_DEL, fd, nullptr);
    if (on) ::epoll_ctl(events_fd_.get(), EPOLL_CTL_ADD, fd, &event);
  }
}

void GuestTarget::wake() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_fd_.get(), &one, sizeof(one));
}

void GuestTarget::set_non_stop(bool on) {
  non_stop_ = on;
  kernel_.set_non_stop(on);
  tell_options();
}

// --- to run

Result<void> GuestTarget::resume_users(std::span<const ResumeAction> actions, bool everything) {
  const bool any_user = std::any_of(actions.begin(), actions.end(), is_for_users);
  if (!user_ || (!frozen_ && waiting_.empty() && !any_user)) return {};
  if (!waiting_.empty() && !frozen_ && !non_stop_) static_cast<void>(freeze());
  const bool did_all = do_what_waits();
  // The kernel has stopped meanwhile: gdb gets that event, and its next resume is for them too.
  if (!non_stop_ && (!did_all || stuck())) return {};
  const auto done = user_->resume(actions, everything || !any_user);
  // Or the request is on its way to the agent.
  if (!done && !done.is(Errno::Again)) return refused(done);
  frozen_ = false;
  return {};
}

// A kernel thread is to run alone, but the guest is frozen and the kernel's host threads are not
// stopped: the freeze ends, and then they are.
Result<void> GuestTarget::step_kernel_alone(std::span<const ResumeAction> actions) {
  kernel_.interrupt({kKernelPid, kAll});
  while (auto event = kernel_.next_event()) {
    if (event->reason != StopReason::Interrupted) kernel_ready_.push_back(std::move(*event));
    if (side_.hard_stopped()) break;
  }
  return kernel_.resume(actions);
}

// All-stop: something has stopped that gdb has not seen, so nothing runs. The agent is told what
// was asked all the same: gdb does not say again which signals its threads are to get.
bool GuestTarget::untold_comes_first(std::span<const ResumeAction> actions) {
  const bool stops = user_ && user_->agent().has_stops();
  if (ready_.empty() && kernel_ready_.empty() && !stops) return false;
  standing_ = Standing::No;
  wake();
  const bool everything = std::any_of(actions.begin(), actions.end(), is_for_everything);
  if (stops && with_kernel_ && side_.hard_stopped()) {
    user_->plan(actions, everything);
  } else if (stops) {
    static_cast<void>(resume_users(actions, everything));  // the stop is told in any case
  }
  return true;
}

// Non-stop: gdb takes these threads for running, and an action for all means the others.
void GuestTarget::leave_untold(std::vector<ResumeAction> &actions) const {
  for (const auto *queue : {&ready_, &kernel_ready_}) {
    for (const StopEvent &event : *queue) {
      ResumeAction stay;
      stay.thread = event.thread;
      stay.kind = ResumeKind::Stop;
      actions.insert(actions.begin(), stay);
    }
  }
}

Result<void> GuestTarget::resume(std::span<const ResumeAction> actions) {
  if (!attached_) return Err(Errno::Srch);
  unpause();
  watch(true);
  if (!non_stop_ && untold_comes_first(actions)) return {};
  std::vector<ResumeAction> list(actions.begin(), actions.end());
  if (non_stop_) leave_untold(list);
  actions = list;
  const bool for_one = std::any_of(actions.begin(), actions.end(), is_for_one);
  const bool everything = std::any_of(actions.begin(), actions.end(), is_for_everything);
  const bool any_user = std::any_of(actions.begin(), actions.end(), is_for_users);
  const bool any_kernel = for_one || everything;
  user_in_focus_ = any_user && !for_one &&
                   std::none_of(actions.begin(), actions.end(), [](const ResumeAction &action) {
                     return action.thread.pid == kKernelPid;
                   });
  if (actions.size() == 1 && actions[0].thread.pid == kAll) {
    user_in_focus_ = current_.pid != kKernelPid;
  }
  const Standing before = std::exchange(standing_, Standing::No);
  const auto fail = [&](Result<void> why) {
    standing_ = before;
    if (words_.empty()) words_ = kernel_.last_words();
    return why;
  };
  words_.clear();
  const bool hard = with_kernel_ && side_.hard_stopped();
  if (hard || (non_stop_ && with_kernel_)) {
    ResumeAction all;
    all.thread = {kKernelPid, kAll};
    const bool whole = !any_kernel && hard;
    const auto ran =
        any_kernel || hard ? kernel_.resume(whole ? std::span(&all, 1) : actions) : Result<void>();
    if (!ran) return fail(ran);
    if (for_one && !everything && !any_user) return {};
    return resume_users(actions, everything);
  }
  if (const auto ran = resume_users(actions, everything); !ran) return fail(ran);
  if (for_one && with_kernel_) return step_kernel_alone(actions);
  return {};
}

// --- to stop

// All-stop: the guest's threads are frozen, and gdb is told that the last one got SIGINT.
void GuestTarget::interrupt_users() {
  if (const auto froze = freeze(); !froze) {
    // The kernel hangs, or has just stopped: it is looked at itself.
    if (with_kernel_) kernel_.interrupt({kKernelPid, kAll});
    return;
  }
  if (user_->agent().has_stops()) {  // it has stopped by itself
    wake();
    return;
  }
  StopEvent event;
  event.reason = StopReason::Interrupted;
  event.signal = SIGINT;
  event.thread = current_;
  const auto threads = user_->threads();
  const auto known = std::any_of(threads.begin(), threads.end(),
                                 [&](const ThreadInfo &each) { return each.id == current_; });
  if (!known && !threads.empty()) event.thread = threads.front().id;
  ready_.push_back(event);
  wake();
}

void GuestTarget::interrupt(ThreadId which) {
  if (!attached_) return;
  watch(true);
  const bool guest = which.pid != kKernelPid && user_ && !user_->processes().empty();
  if (non_stop_) {
    if (guest) static_cast<void>(refused(user_->request_stop(which)));
    if (with_kernel_ && (which.pid == kAll || which.pid == kKernelPid)) kernel_.interrupt(which);
    return;
  }
  if (standing_ != Standing::No) return;
  const bool users =
      guest && (!with_kernel_ || ((user_in_focus_ || which.pid != kAll) && !side_.hard_stopped()));
  if (users) {
    interrupt_users();
  } else {
    kernel_.interrupt({kKernelPid, kAll});
  }
}

std::optional<StopEvent> GuestTarget::given(StopEvent event, Standing standing) {
  if (!non_stop_) {
    standing_ = standing;
    watch(false);
  }
  const bool gone =
      event.reason == StopReason::ProcessExited || event.reason == StopReason::ProcessKilled;
  if (gone && event.thread.pid == kKernelPid) {
    forget_agent();
    attached_ = false;
  }
  if (!gone) current_ = event.thread;
  return event;
}

void GuestTarget::lose_agent() {
  orphans_.insert(user_->processes().begin(), user_->processes().end());
  forget_agent();
  if (!with_kernel_) tell_of_orphans();
}

void GuestTarget::tell_of_orphans() {
  for (const std::int64_t pid : std::exchange(orphans_, {})) {
    StopEvent event;
    event.thread = {pid, pid};
    event.reason = StopReason::ProcessKilled;
    event.signal = SIGKILL;
    ready_.push_back(event);
  }
  wake();
}

std::optional<StopEvent> GuestTarget::kernel_event() {
  std::optional<StopEvent> event;
  if (!with_kernel_) return std::nullopt;
  if (!kernel_ready_.empty()) {
    event = std::move(kernel_ready_.front());
    kernel_ready_.pop_front();
  } else {
    event = kernel_.next_event();
  }
  if (!event) return std::nullopt;
  if (event->reason == StopReason::Exec) {  // a reboot
    if (user_) lose_agent();
    tell_of_orphans();
  }
  const bool choice = event->reason == StopReason::Interrupted;
  return given(std::move(*event), choice ? Standing::HardByChoice : Standing::Hard);
}

std::optional<StopEvent> GuestTarget::user_event() {
  if (!user_) return std::nullopt;
  bool went_on = true;
  std::optional<StopEvent> event;
  // gdb has something to say too, however often a condition is false.
  const auto until = std::chrono::steady_clock::now() + kTurn;
  while (!event && went_on && std::chrono::steady_clock::now() < until) {
    event = user_->next_event(went_on);
  }
  if (!event && went_on) wake();
  if (!event) {
    if (user_->agent().gone()) lose_agent();
    return std::nullopt;
  }
  if (!non_stop_) {
    frozen_ = true;  // others that came with it wait for the next resume
  }
  return given(std::move(*event), Standing::Soft);
}

std::optional<StopEvent> GuestTarget::next_event() {
  std::uint64_t count;
  [[maybe_unused]] const auto drained = ::read(wake_fd_.get(), &count, sizeof(count));
  if (!attached_ || (!non_stop_ && standing_ != Standing::No)) return std::nullopt;
  if (!ready_.empty()) {
    StopEvent event = std::move(ready_.front());
    ready_.pop_front();
    return given(std::move(event), Standing::Soft);
  }
  if (auto event = kernel_event()) return event;
  return user_event();
}

}  // namespace cowbird::debug
