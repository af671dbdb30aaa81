// KernelTarget: getting a host thread on: past breakpoints, by steps, and across switches of kernel
// threads.
#include <algorithm>
#include <cstring>

#include "debug/rsp/register_layout.hpp"
#include "debug/target/kernel_target.hpp"

namespace cowbird::debug {

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
  if (plan == nullptr || !plan->steps() || regs == nullptr) {
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

// Past a breakpoint that gdb shall not see, and on, without another stop. False: not this
// instruction.
bool KernelTarget::run_past(pid_t host) {
  const std::uint64_t address = tracee_->registers(host)->rip;
  const auto place = places_.continuation(*tracee_, address, patches_);
  if (place == 0) return false;
  tracee_->change_registers(host)->rip = place;
  tracee_->resume(host, RunHow::Continue);
  return true;
}

// Past a breakpoint that gdb shall not see.
StepResult KernelTarget::step_over(pid_t host) {
  const std::uint64_t address = tracee_->registers(host)->rip;
  std::array<std::byte, 15> bytes;
  const auto got = read_memory(kKernelPid, address, bytes);
  OutOfLineRun run;
  bool done = false;
  if (places_.ready() && got) {
    const auto tried =
        run_out_of_line(*tracee_, host, std::span(bytes).first(*got), places_.scratch(), patches_);
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
  guest_code_.release(host);
  const Plan *plan = plan_on(host);
  const bool step = plan && plan->steps();
  const RunHow how = step ? RunHow::Step : RunHow::Continue;
  // With a signal its handler runs first, and comes back to the int3.
  if (!patches_.empty() && thread->signal == 0) {
    const user_regs_struct *regs = tracee_->registers(host);
    if (regs == nullptr) return;
    const bool wanted = !thread->stray && !is_own(regs->rip) && wanted_at(host, regs->rip);
    if (patches_.at(regs->rip) && !wanted) {
      if (!step && run_past(host)) return;
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
  if (arrived && arrived->begun && arrived->steps() &&
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
