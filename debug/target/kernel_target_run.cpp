// KernelTarget: stopping and running, from gdb's actions to those of the host threads.
#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>

#include "debug/rsp/register_layout.hpp"
#include "debug/target/kernel_target.hpp"

namespace cowbird::debug {
namespace {

// So long next_event() works on what gdb does not see, before the session gets its turn again.
constexpr std::int64_t kTurnNs = 20'000'000;

std::int64_t host_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

bool steps(ResumeKind kind) { return kind == ResumeKind::Step || kind == ResumeKind::StepRange; }

// All other signals are the kernel's own machinery, or ask the program to end.
bool is_fault(int signal) {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE ||
         signal == SIGABRT || signal == SIGTRAP || signal == SIGSYS;
}

}  // namespace

int KernelTarget::event_fd() const { return ChildSignal::fd(); }

// --- gdb's orders

Result<void> KernelTarget::resume(std::span<const ResumeAction> actions) {
  if (!attached()) return Err(Errno::Srch);
  prepare_to_run();
  if (non_stop_) return resume_non_stop(actions);
  if (!standing_) return Err(Errno::Busy);
  plans_.clear();
  bool others_run = false;
  for (const ResumeAction &action : actions) {
    if (action.thread.pid != kAll && action.thread.pid != kKernelPid) continue;
    const bool all = action.thread.tid == kAll;
    if (all && action.kind == ResumeKind::Continue) {
      others_run = true;
    } else {
      ResumeAction one = action;
      if (all) one.thread = {kKernelPid, current_};
      if (const auto planned = add_plan(one); !planned) {
        plans_.clear();
        return planned;
      }
      TRY(give_signal(one));
    }
    if (all) break;  // nothing is left for what follows
  }
  if (plans_.empty() && !others_run) return {};
  if (others_run) {
    std::erase_if(plans_, [](const Plan &plan) { return plan.kind == ResumeKind::Continue; });
  }
  exclusive_ = !others_run;
  relaxed_ = exclusive_ && std::any_of(plans_.begin(), plans_.end(), [](const Plan &plan) {
               return plan.host == 0 && plan.kind != ResumeKind::Stop;
             });
  standing_ = false;
  run_world();
  return {};
}

// What is done before anything runs.
void KernelTarget::prepare_to_run() {
  if (scratch_ == 0 && view_ && hard_stopped()) {
    look();
    if (!view_->vcpus().empty()) find_scratch();  // its program has long been initialised
  }
  if (hold_flag_ == 0) return;
  const int no = 0;
  [[maybe_unused]] const auto written =
      tracee_->write(hold_flag_, std::as_bytes(std::span(&no, 1)));
  hold_flag_ = 0;
}

Result<void> KernelTarget::add_plan(const ResumeAction &action) {
  const auto place = place_of(action.thread.tid);
  if (!place) return Err(Errno::Srch);
  Plan plan;
  plan.tid = action.thread.tid;
  plan.kind = action.kind;
  plan.low = action.range_low;
  plan.high = action.range_high;
  plan.host = place->host;
  plan.saved_rsp = place->saved_rsp;
  if (plan.host == 0 && switched_ == 0) {
    words_ =
        "This kernel does not say where its threads are switched, so one that is off its vCPU "
        "cannot "
        "be run alone.";
    return Err(Errno::OpNotSupp);
  }
  plans_.push_back(plan);
  return {};
}

// `signal N` and the signal that a stop was about.
Result<void> KernelTarget::give_signal(const ResumeAction &action) {
  const auto place = place_of(action.thread.tid);
  if (!place || place->host == 0)
    return action.signal == 0 ? Result<void>() : Err(Errno::OpNotSupp);
  const auto reported = reported_.find(place->host);
  const int stopped_by = reported == reported_.end() ? 0 : reported->second;
  reported_.erase(place->host);
  // A panic was shown as SIGABRT, but no signal is on its way.
  if (action.signal == 0 || stopped_by == kMadeUp) return {};
  if (stopped_by != 0) {
    tracee_->set_signal(place->host, action.signal);
  } else {
    ::syscall(SYS_tgkill, pid_, place->host, action.signal);
  }
  return {};
}

void KernelTarget::interrupt(ThreadId which) {
  if (!attached() || (which.pid != kAll && which.pid != kKernelPid)) return;
  if (non_stop_) {
    interrupt_non_stop(which);
  } else if (!standing_) {
    stop_world();
    if (!attached()) {  // it has just ended; that is the event
      tracee_->rearm();
      return;
    }
    look();
    pid_t host = 0;
    for (const Plan &plan : plans_) host = host != 0 ? host : plan.host;
    if (host == 0 && !carried_.empty()) host = carried_.begin()->first;
    if (host == 0 && !vcpu_hosts_.empty()) host = vcpu_hosts_.begin()->second;
    if (host == 0) host = tracee_->threads().begin()->first;
    StopEvent event;
    event.reason = StopReason::Interrupted;
    event.signal = SIGINT;
    report(host, event);
  }
  tracee_->rearm();
}

// --- non-stop mode: a thread that gdb takes for stopped has a plan of kind Stop.

void KernelTarget::hold(std::int64_t tid) {
  if (Plan *plan = plan_of(tid)) {
    plan->kind = ResumeKind::Stop;
    return;
  }
  const auto place = place_of(tid);
  if (!place) return;
  // A vCPU's idle loop is held only while it runs: without it no kernel thread would get that vCPU.
  if (tid >= kHostTidBase && place->host == 0) return;
  Plan plan;
  plan.tid = tid;
  plan.kind = ResumeKind::Stop;
  plan.host = place->host;
  plan.saved_rsp = place->saved_rsp;
  plans_.push_back(plan);
}

void KernelTarget::interrupt_non_stop(ThreadId which) {
  const bool at_attach = standing_;
  const auto running = stop_for_now();
  look();
  for (const ThreadInfo &info : threads()) {
    const std::int64_t tid = info.id.tid;
    const Plan *plan = plan_of(tid);
    const bool asked = which.tid == kAll || which.tid == tid;
    if (at_attach || (asked && !(plan && plan->kind == ResumeKind::Stop))) hold(tid);
    if (!asked || (plan && plan->kind == ResumeKind::Stop && !at_attach)) continue;
    StopEvent event;
    event.thread = info.id;
    event.reason = StopReason::Interrupted;
    event.core = info.core;
    events_.push_back(event);
  }
  standing_ = false;
  watch_switches();
  run_again(running);
}

Result<void> KernelTarget::resume_non_stop(std::span<const ResumeAction> actions) {
  if (standing_) {
    for (const ThreadInfo &info : threads()) hold(info.id.tid);
    standing_ = false;
  }
  std::set<std::int64_t> done;
  for (const StopEvent &event : events_) done.insert(event.thread.tid);  // gdb has not seen it stop
  for (const ResumeAction &action : actions) {
    if (action.thread.pid != kAll && action.thread.pid != kKernelPid) continue;
    std::vector<std::int64_t> wanted{action.thread.tid};
    if (action.thread.tid == kAll) {
      wanted.clear();
      for (const Plan &plan : plans_) wanted.push_back(plan.tid);
    }
    for (const std::int64_t tid : wanted) {
      Plan *plan = plan_of(tid);
      if (!done.insert(tid).second || plan == nullptr || plan->kind != ResumeKind::Stop) continue;
      if (action.kind == ResumeKind::Stop) continue;
      ResumeAction one = action;
      one.thread.tid = tid;
      TRY(give_signal(one));
      plan->kind = action.kind;
      plan->low = action.range_low;
      plan->high = action.range_high;
      plan->begun = false;
      if (action.kind == ResumeKind::Continue) {
        std::erase_if(plans_, [&](const Plan &other) { return other.tid == tid; });
      }
    }
  }
  run_world();
  return {};
}

// --- the whole kernel

void KernelTarget::stop_world() {
  if (!attached()) return;
  std::vector<TraceEvent> others;
  tracee_->stop_all(others);
  if (stood_since_ns_ == 0) stood_since_ns_ = host_now();
  looked_ = false;
  for (const TraceEvent &event : others) sort_out(event);
}

// Stops everything for a moment; what is returned ran.
std::vector<pid_t> KernelTarget::stop_for_now() {
  std::vector<pid_t> running;
  for (const auto &[tid, thread] : tracee_->threads()) {
    if (!thread.stopped) running.push_back(tid);
  }
  stop_world();
  return running;
}

void KernelTarget::run_again(const std::vector<pid_t> &hosts) {
  if (!hosts.empty()) hide_time();
  looked_ = false;
  for (const pid_t host : hosts) {
    if (!is_deferred(host)) go_on(host);
  }
  if (!deferred_.empty()) tracee_->rearm();
}

void KernelTarget::pause() {
  if (!attached() || paused_) return;
  paused_ = true;
  paused_hosts_ = stop_for_now();
}

void KernelTarget::unpause() {
  if (!paused_) return;
  paused_ = false;
  if (attached()) run_again(std::exchange(paused_hosts_, {}));
}

bool KernelTarget::is_deferred(pid_t host) const {
  return std::any_of(deferred_.begin(), deferred_.end(),
                     [&](const TraceEvent &event) { return event.tid == host; });
}

void KernelTarget::run_world() {
  hide_time();
  looked_ = false;
  watch_switches();
  std::vector<pid_t> hosts;
  for (const auto &[tid, thread] : tracee_->threads()) hosts.push_back(tid);
  for (const pid_t host : hosts) {
    if (!is_deferred(host)) go_on(host);
  }
  if (!deferred_.empty() || !events_.empty()) tracee_->rearm();
}

// The guest does not see the time that has passed since everything stood still.
void KernelTarget::hide_time() {
  if (stood_since_ns_ == 0) return;
  const std::int64_t stood = host_now() - std::exchange(stood_since_ns_, 0);
  if (!view_) return;
  const auto changes = view_->clock_patch(stood);
  if (!changes) return;
  for (const KernelView::ClockPatch &patch : *changes) {
    [[maybe_unused]] const auto written = tracee_->write(patch.address, patch.bytes);
  }
}

// What a thread had to say when it was stopped for another one's sake.
void KernelTarget::sort_out(const TraceEvent &event) {
  switch (event.kind) {
    case TraceKind::ThreadExited:
    case TraceKind::ProcessExited:
    case TraceKind::ProcessKilled:
    case TraceKind::Exec:
      deferred_.push_back(event);
      return;
    case TraceKind::Signal:
      break;
    default:
      return;
  }
  if (event.value != SIGTRAP) {
    if (is_fault(event.value)) deferred_.push_back(event);
    return;
  }
  const auto info = tracee_->signal_info(event.tid);
  const user_regs_struct *regs = tracee_->registers(event.tid);
  if (info && regs && info->si_code == SI_KERNEL && patches_.at(regs->rip - 1)) {
    // It runs into the int3 again when it runs, if that is still there.
    tracee_->change_registers(event.tid)->rip -= 1;
    tracee_->set_signal(event.tid, 0);
  } else {
    deferred_.push_back(event);
  }
}

// Host thread `host` has stopped for gdb.
void KernelTarget::report(pid_t host, StopEvent event) {
  const Plan *plan = plan_on(host);
  if (!non_stop_) {
    stop_world();
    standing_ = true;
  }
  std::int64_t tid = kHostTidBase + host;
  if (plan && plan->kind != ResumeKind::Stop) {
    tid = plan->tid;
    look_at_names();
  } else if (tracee_->find(host)) {
    tid = fiber_on(host);
  }
  event.thread = {kKernelPid, tid};
  event.core = vcpu_of(host);
  current_ = tid;
  if (non_stop_) {
    hold(tid);
  } else {
    plans_.clear();
    exclusive_ = relaxed_ = false;
    watch_switches();
    drop_steps();
  }
  events_.push_back(std::move(event));
}

// Steps that were done when everything was stopped: gdb will ask for new ones.
void KernelTarget::drop_steps() {
  std::erase_if(deferred_, [&](const TraceEvent &event) {
    const TracedThread *thread = tracee_->find(event.tid);
    if (event.kind != TraceKind::Signal || event.value != SIGTRAP || !thread) return false;
    const auto info = tracee_->signal_info(event.tid);
    const bool step = thread->how == RunHow::Step && info && info->si_code != SI_KERNEL;
    if (!step || has_debug_hit(event.tid)) return false;
    tracee_->set_signal(event.tid, 0);
    return true;
  });
}

// --- what the host threads report

std::optional<StopEvent> KernelTarget::next_event() {
  const auto take = [this]() -> std::optional<StopEvent> {
    if (events_.empty()) return std::nullopt;
    StopEvent event = std::move(events_.front());
    events_.pop_front();
    if (!events_.empty()) ChildSignal::raise();
    return event;
  };
  if (!tracee_ || !events_.empty()) return take();
  tracee_->drain();
  if (standing_ || paused_) return std::nullopt;
  const std::int64_t until = host_now() + kTurnNs;
  while (events_.empty()) {
    std::optional<TraceEvent> event;
    if (!deferred_.empty()) {
      event = deferred_.front();
      deferred_.pop_front();
    } else {
      event = tracee_->poll();
    }
    if (!event) return std::nullopt;
    handle(*event);
    if (events_.empty() && host_now() > until) {
      tracee_->rearm();
      return std::nullopt;
    }
  }
  return take();
}

void KernelTarget::handle(const TraceEvent &event) {
  StopEvent end;
  end.thread = {kKernelPid, kAll};
  switch (event.kind) {
    case TraceKind::Signal:
      handle_signal(event.tid, event.value);
      return;
    case TraceKind::Interrupted:
    case TraceKind::GroupStop:
    case TraceKind::Syscall:
      go_on(event.tid);
      return;
    case TraceKind::Clone:
      if (thread_events_ && tracee_->find(event.value)) {
        end.reason = StopReason::ThreadCreated;
        report(event.value, end);
      }
      go_on(event.value);
      go_on(event.tid);
      return;
    case TraceKind::Exec:
      handle_exec();
      return;
    case TraceKind::ThreadExited:
      std::erase_if(plans_, [&](const Plan &plan) { return plan.host == event.tid; });
      reported_.erase(event.tid);
      looked_ = false;
      return;
    case TraceKind::ProcessExited:
      end.reason = StopReason::ProcessExited;
      end.number = event.value;
      break;
    case TraceKind::ProcessKilled:
      end.reason = StopReason::ProcessKilled;
      end.signal = event.value;
      break;
  }
  plans_.clear();
  deferred_.clear();
  patches_.forget_all();
  view_.reset();
  end.thread = {kKernelPid, current_};
  events_.push_back(end);
}

void KernelTarget::handle_signal(pid_t host, int signal) {
  const TracedThread *thread = tracee_->find(host);
  if (thread == nullptr) return;
  if (signal == SIGTRAP) {
    handle_trap(host);
    return;
  }
  if (thread->stray || !is_fault(signal) || passed_signals_.count(signal) != 0) {
    go_on(host);
    return;
  }
  StopEvent event;
  event.reason = StopReason::Signal;
  event.signal = signal;
  tracee_->set_signal(host, 0);
  report(host, event);
  reported_[host] = signal;
}

void KernelTarget::handle_trap(pid_t host) {
  const auto info = tracee_->signal_info(host);
  const user_regs_struct *regs = tracee_->registers(host);
  const TracedThread *thread = tracee_->find(host);
  if (!info || !regs || !thread) return;
  if (info->si_code == SI_KERNEL) {  // an int3
    const std::uint64_t address = regs->rip - 1;
    std::byte there{};
    const auto read = tracee_->read(address, {&there, 1});
    const bool ours = patches_.at(address);
    if (ours || !read || there != kInt3) {  // or it was ours until a moment ago
      tracee_->change_registers(host)->rip = address;
      tracee_->set_signal(host, 0);
      if (ours && !thread->stray) {
        breakpoint_hit(host, address);
      } else {
        go_on(host);
      }
      return;
    }
  } else {
    if (has_debug_hit(host)) {
      debug_register_hit(host);
      return;
    }
    if (thread->how == RunHow::Step) {
      tracee_->set_signal(host, 0);
      stepped(host);
      return;
    }
  }
  if (thread->stray || passed_signals_.count(SIGTRAP) != 0) {
    go_on(host);
    return;
  }
  StopEvent event;
  event.reason = StopReason::Signal;
  event.signal = SIGTRAP;
  tracee_->set_signal(host, 0);
  report(host, event);
  reported_[host] = SIGTRAP;
}

bool KernelTarget::has_debug_hit(pid_t host) {
  if (debug_registers_.empty()) return false;
  const auto status = tracee_->debug_register(host, 6);
  return status && debug_registers_.hit(*status).has_value();
}

void KernelTarget::debug_register_hit(pid_t host) {
  const auto status = tracee_->debug_register(host, 6);
  const auto hit = status ? debug_registers_.hit(*status) : std::nullopt;
  if (!hit) return;
  [[maybe_unused]] const auto cleared = tracee_->set_debug_register(host, 6, 0);
  tracee_->set_signal(host, 0);
  const auto asked = std::find_if(hard_.begin(), hard_.end(), [&](const Breakpoint &one) {
    return one.kind == hit->kind && one.address == hit->address;
  });
  if (asked != hard_.end() && !any_true(host, *asked)) {
    if (tracee_->find(host)->how == RunHow::Step) {
      stepped(host);
    } else {
      go_on(host);
    }
    return;
  }
  StopEvent event;
  event.signal = SIGTRAP;
  event.address = hit->watched;
  event.reason = hit->kind == BreakpointKind::Hardware ? StopReason::HardBreakpoint
                 : hit->kind == BreakpointKind::Write  ? StopReason::Watch
                 : hit->kind == BreakpointKind::Read   ? StopReason::ReadWatch
                                                       : StopReason::AccessWatch;
  report(host, event);
}

// The kernel has started its program anew (reboot). No breakpoint has survived.
void KernelTarget::handle_exec() {
  patches_.forget_all();
  breakpoints_.clear();
  hard_.clear();
  debug_registers_.clear();
  plans_.clear();
  reported_.clear();
  deferred_.clear();
  exclusive_ = relaxed_ = watching_switches_ = looked_ = false;
  view_.reset();
  switched_ = panic_stop_ = linker_ = hold_flag_ = 0;
  find_program();
  scratch_ = 0;  // its _init has yet to run
  started_ = entry_;
  if (started_ != 0 && !patches_.insert(*tracee_, started_)) started_ = 0;
  if (!exec_events_) {
    go_on(pid_);
    return;
  }
  StopEvent event;
  event.reason = StopReason::Exec;
  event.signal = SIGTRAP;
  event.path = program_;
  report(pid_, event);
}

// --- breakpoints and steps

bool KernelTarget::is_own(std::uint64_t address) const {
  return address == switched_ ? watching_switches_
                              : address == panic_stop_ || address == linker_ || address == started_;
}

void KernelTarget::breakpoint_hit(pid_t host, std::uint64_t address) {
  if (is_own(address)) {
    own_breakpoint(host, address);
  } else if (wanted_at(host, address)) {
    StopEvent event;
    event.reason = StopReason::SoftBreakpoint;
    event.signal = SIGTRAP;
    report(host, event);
  } else {
    go_on(host);
  }
}

void KernelTarget::own_breakpoint(pid_t host, std::uint64_t address) {
  StopEvent event;
  if (address == switched_) {
    at_switch(host);
    return;
  }
  if (address == panic_stop_) {
    std::string message(1024, '\0');
    const std::uint64_t where = tracee_->registers(host)->rdi;
    const auto got = read_memory(kKernelPid, where, std::as_writable_bytes(std::span(message)));
    message.resize(got ? ::strnlen(message.c_str(), message.size()) : 0);
    event.reason = StopReason::Signal;
    event.signal = SIGABRT;
    event.words = "guest kernel panic: " + message;
    report(host, event);
    reported_[host] = kMadeUp;
    return;
  }
  if (address == started_) {
    patches_.remove(*tracee_, started_);
    started_ = 0;
    open_view();
    find_linker();
    find_own_breakpoints();
  } else if (!libraries_settled()) {
    go_on(host);
    return;
  }
  event.reason = StopReason::LibrariesChanged;
  event.signal = SIGTRAP;
  report(host, event);
}

bool KernelTarget::wanted_at(pid_t host, std::uint64_t address) {
  const auto found = breakpoints_.find(address);
  return found != breakpoints_.end() && any_true(host, found->second);
}

// One that cannot be evaluated is reported: better a stop too many than one too few.
bool KernelTarget::any_true(pid_t host, const Breakpoint &breakpoint) {
  if (breakpoint.conditions.empty()) return true;
  AgentContext context;
  context.read_register = [&](unsigned number) -> Result<std::uint64_t> {
    const Reg reg = TRY(general_register(number));
    const user_regs_struct *regs = tracee_->registers(host);
    if (regs == nullptr) return Err(Errno::Srch);
    return host_register(*regs, reg);
  };
  context.read_memory = [&](std::uint64_t address, std::span<std::byte> out) {
    return read(address, out);
  };
  for (const AgentExpression &condition : breakpoint.conditions) {
    const auto value = condition.evaluate(context);
    if (!value || *value != 0) return true;
  }
  return false;
}

// A step of the host thread is done.
void KernelTarget::stepped(pid_t host) {
  Plan *plan = plan_on(host);
  const user_regs_struct *regs = tracee_->registers(host);
  if (plan == nullptr || !steps(plan->kind) || regs == nullptr) {
    go_on(host);
    return;
  }
  plan->begun = true;
  if (regs->rip == switched_) {
    at_switch(host);
    return;
  }
  if (plan->kind == ResumeKind::StepRange && regs->rip >= plan->low && regs->rip < plan->high) {
    go_on(host);
    return;
  }
  StopEvent event;
  event.reason = StopReason::StepDone;
  event.signal = SIGTRAP;
  report(host, event);
}

// Past a breakpoint that gdb shall not see.
StepResult KernelTarget::step_over(pid_t host) {
  const std::uint64_t address = tracee_->registers(host)->rip;
  std::array<std::byte, 15> bytes;
  const auto got = read_memory(kKernelPid, address, bytes);
  OutOfLineRun run;
  bool done = false;
  if (scratch_ != 0 && got) {
    const auto tried = run_out_of_line(*tracee_, host, std::span(bytes).first(*got), scratch_);
    if (tried) {
      run = *tried;
      done = true;
    }
  }
  if (!done) run = step_lifted(host, address);
  if (run.result == StepResult::Done && has_debug_hit(host)) {
    debug_register_hit(host);
    return StepResult::Signalled;
  }
  if (run.result == StepResult::Signalled || run.result == StepResult::Gone) {
    handle(run.event);
  }
  return run.result;
}

// The same for what cannot run elsewhere: everything else stands still while the int3 is out.
OutOfLineRun KernelTarget::step_lifted(pid_t host, std::uint64_t address) {
  const auto running = stop_for_now();
  patches_.lift(*tracee_, address);
  tracee_->resume(host, RunHow::Step);
  std::optional<TraceEvent> event;
  while (!(event = tracee_->wait(host)) || event->kind == TraceKind::Interrupted) {
    if (!tracee_->find(host)) break;
    tracee_->resume(host, RunHow::Step);
  }
  OutOfLineRun run;
  if (event) run.event = *event;
  if (!attached() || !tracee_->find(host)) {
    run.result = StepResult::Gone;
    return run;
  }
  patches_.put_back(*tracee_, address);
  if (run.event.kind == TraceKind::Signal && run.event.value == SIGTRAP) {
    tracee_->set_signal(host, 0);
  } else {
    run.result = StepResult::Signalled;
  }
  stood_since_ns_ = 0;  // too short to be hidden
  for (const pid_t one : running) {
    if (one != host && !is_deferred(one) && tracee_->is_stopped(one))
      tracee_->resume_as_before(one);
  }
  return run;
}

bool KernelTarget::may_run(pid_t host) {
  const Plan *plan = plan_on(host);
  if (plan) return plan->kind != ResumeKind::Stop;
  return !exclusive_ || relaxed_;
}

void KernelTarget::go_on(pid_t host) {
  const TracedThread *thread = tracee_->find(host);
  if (standing_ || paused_ || thread == nullptr || !thread->stopped) return;
  if (!thread->stray && !may_run(host)) return;
  const Plan *plan = plan_on(host);
  const bool step = plan && steps(plan->kind);
  const RunHow how = step ? RunHow::Step : RunHow::Continue;
  // With a signal its handler runs first, and comes back to the int3.
  if (!patches_.empty() && thread->signal == 0) {
    const user_regs_struct *regs = tracee_->registers(host);
    if (regs == nullptr) return;
    const bool wanted = !thread->stray && !is_own(regs->rip) && wanted_at(host, regs->rip);
    if (patches_.at(regs->rip) && !wanted) {
      const StepResult result = step_over(host);
      if (result == StepResult::Gone || result == StepResult::Signalled) return;
      if (step && result == StepResult::Done) {
        stepped(host);
        return;
      }
      if (standing_) return;
    }
  }
  thread = tracee_->find(host);
  if (thread) tracee_->resume(host, how, thread->signal);
}

// --- switches of kernel threads

KernelTarget::Plan *KernelTarget::plan_on(pid_t host) {
  for (Plan &plan : plans_) {
    if (plan.host == host) return &plan;
  }
  return nullptr;
}

KernelTarget::Plan *KernelTarget::plan_of(std::int64_t tid) {
  for (Plan &plan : plans_) {
    if (plan.tid == tid) return &plan;
  }
  return nullptr;
}

// Our breakpoint behind the change of stacks is in place while somebody's switch matters.
void KernelTarget::watch_switches() {
  const bool want = switched_ != 0 && attached() &&
                    (exclusive_ || std::any_of(plans_.begin(), plans_.end(),
                                               [](const Plan &plan) { return plan.host == 0; }));
  if (want == watching_switches_) return;
  if (!want) {
    patches_.remove(*tracee_, switched_);
    watching_switches_ = false;
  } else {
    watching_switches_ = patches_.insert(*tracee_, switched_).ok();
  }
}

// A host thread has just changed stacks: rsp is what was saved of the fiber that comes, and rdi
// still points to where the other one was saved (cowbird_switch_context's first argument).
void KernelTarget::at_switch(pid_t host) {
  const user_regs_struct *regs = tracee_->registers(host);
  const std::uint64_t coming = regs->rsp;
  const std::uint64_t leaving = word(regs->rdi).value_or(0);
  Plan *arrived = nullptr;
  bool left = false;
  for (Plan &plan : plans_) {
    if (plan.host == host) {
      plan.host = 0;
      plan.saved_rsp = leaving;
      left = true;
    } else if (plan.host == 0 && plan.saved_rsp == coming) {
      plan.host = host;
      arrived = &plan;
    }
  }
  if (left && forget_dead()) return;
  watch_switches();
  if (left && exclusive_ && !relaxed_) {
    relax(host);
  } else if (arrived && exclusive_) {
    gather();
  }
  arrived = plan_on(host);  // the list may have changed
  if (arrived && arrived->begun && steps(arrived->kind) &&
      !(switched_ >= arrived->low && switched_ < arrived->high)) {
    StopEvent event;
    event.reason = StopReason::StepDone;
    event.signal = SIGTRAP;
    report(host, event);
    return;
  }
  go_on(host);
}

// Threads that have exited come back never. True when that was the last one that gdb let run.
bool KernelTarget::forget_dead() {
  if (!view_ || !view_->refresh()) return false;
  std::erase_if(plans_, [&](const Plan &plan) {
    if (plan.tid >= kHostTidBase || plan.host != 0) return false;
    const KernelThread *thread = view_->find(plan.tid);
    return thread == nullptr || thread->state == KernelThreadState::Dead;
  });
  if (!exclusive_ || !plans_.empty()) return false;
  stop_world();
  standing_ = true;
  exclusive_ = relaxed_ = false;
  watch_switches();
  StopEvent event;
  event.reason = StopReason::NoneLeft;
  event.thread = {kKernelPid, current_};
  events_.push_back(event);
  return true;
}

// The last thread that gdb lets run alone (scheduler-locking) has given up its vCPU. It waits for
// something that others do, so they run until it is back.
void KernelTarget::relax(pid_t but) {
  relaxed_ = true;
  std::vector<pid_t> hosts;
  for (const auto &[tid, thread] : tracee_->threads()) hosts.push_back(tid);
  for (const pid_t host : hosts) {
    if (host != but && !is_deferred(host)) go_on(host);
  }
}

// It is back: the others stand still again.
void KernelTarget::gather() {
  const bool missing = std::any_of(plans_.begin(), plans_.end(), [](const Plan &plan) {
    return plan.host == 0 && plan.kind != ResumeKind::Stop;
  });
  if (missing || !relaxed_) return;
  relaxed_ = false;
  const auto running = stop_for_now();
  stood_since_ns_ = 0;
  for (const pid_t host : running) {
    if (plan_on(host) && !is_deferred(host)) go_on(host);
  }
}

}  // namespace cowbird::debug
