// KernelTarget: stopping and running, from gdb's actions to those of the host threads.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>

#include "debug/target/kernel_target.hpp"

namespace cowbird::debug {

std::int64_t KernelTarget::host_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

// All other signals are the kernel's own machinery, or ask the program to end.
bool KernelTarget::is_fault(int signal) {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE ||
         signal == SIGABRT || signal == SIGTRAP || signal == SIGSYS;
}

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
  if (!others_run || !step_alone()) run_world();
  return {};
}

// A step of one thread is done in less time than it takes to start all others and to stop them
// again, and gdb makes hundreds of them for one `next`. So they stay where they are for as long as
// such steps take, and get their turn when together that was kAloneNs, or when one step does not
// end: it may wait for them. False: they are to run now.
bool KernelTarget::step_alone() {
  constexpr std::int64_t kAloneNs = 500'000, kOneNs = 100'000;
  const bool one = plans_.size() == 1 && plans_[0].steps() && plans_[0].host != 0;
  if (!one || !deferred_.empty() || !events_.empty() || alone_ns_ >= kAloneNs) return false;
  const pid_t host = plans_[0].host;
  hide_time();
  looked_ = false;
  watch_switches();
  const std::int64_t begun = host_now();
  go_on(host);
  std::int64_t took = 0;
  while (attached() && !standing_ && took < kOneNs) {
    if (const auto event = tracee_->poll(host)) handle(*event);
    took = host_now() - begun;
  }
  alone_ns_ += took;
  if (!attached() || standing_) tracee_->rearm();
  return standing_ || !attached();
}

// What is done before anything runs.
void KernelTarget::prepare_to_run() {
  if (!places_.ready() && view_ && hard_stopped()) {
    look();
    if (!view_->vcpus().empty()) find_places();  // its program has long been initialised
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
  if (plan.host != 0) hold_guest_code(plan.host);
}

bool KernelTarget::serves() const {
  if (!attached()) return true;
  const auto held = [&](const auto &entry) { return tracee_->is_stopped(entry.second); };
  if (!vcpu_hosts_.empty() && std::all_of(vcpu_hosts_.begin(), vcpu_hosts_.end(), held)) {
    return false;
  }
  const auto &all = tracee_->threads();
  return std::none_of(all.begin(), all.end(), [](const auto &entry) {
    return entry.second.stopped && entry.second.name == "irq";
  });
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

// In a stub guest code goes on while its vCPU stands still, until it needs the kernel. Now it does
// not.
void KernelTarget::hold_guest_code(pid_t host) {
  look();
  const VcpuState *vcpu = tracee_->is_stopped(host) ? vcpu_state(host) : nullptr;
  if (vcpu != nullptr && vcpu->guest_code > 0) {
    guest_code_.hold(host, static_cast<pid_t>(vcpu->guest_code));
  }
}

void KernelTarget::hold_guest_code() {
  look();
  for (const auto &[index, host] : std::map(vcpu_hosts_)) hold_guest_code(host);
}

// Stops everything for a moment; what is returned ran, or has come into being meanwhile and is to
// run: a child of vfork(2) that stood would keep its parent for ever.
std::vector<pid_t> KernelTarget::stop_for_now() {
  std::map<pid_t, bool> ran;
  for (const auto &[tid, thread] : tracee_->threads()) ran[tid] = !thread.stopped;
  stop_world();
  std::vector<pid_t> running;
  if (!attached()) return running;
  for (const auto &[tid, thread] : tracee_->threads()) {
    const auto known = ran.find(tid);
    if (known != ran.end() ? known->second : thread.stray || may_run(tid)) running.push_back(tid);
  }
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
  alone_ns_ = 0;
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
  const std::int64_t since = std::exchange(stood_since_ns_, 0);
  if (!view_) return;
  const auto changes = view_->clock_patch(since, host_now());
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
  const TracedThread *thread = tracee_->find(event.tid);
  if (thread && thread->at_int3) {
    tracee_->set_signal(event.tid, 0);  // it runs into the int3 again, if that is still there
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
    hold_guest_code();
  }
  tracee_->write_back();
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

}  // namespace cowbird::debug
