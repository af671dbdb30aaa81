// KernelTarget: what the host threads report, and what gdb is told of it.

#include <algorithm>
#include <csignal>

#include "debug/target/kernel_target.hpp"

namespace cowbird::debug {
namespace {

// So long next_event() works on what gdb does not see, before the session gets its turn again.
constexpr std::int64_t kTurnNs = 20'000'000;

}  // namespace

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
  guest_code_.release_all();
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
  report_signal(host, signal);
}

void KernelTarget::handle_trap(pid_t host) {
  const auto info = tracee_->signal_info(host);
  const user_regs_struct *regs = tracee_->registers(host);
  const TracedThread *thread = tracee_->find(host);
  if (!info || !regs || !thread) return;
  if (info->si_code == SI_KERNEL) {  // an int3
    const std::uint64_t address = thread->at_int3 ? regs->rip : regs->rip - 1;
    const bool ours = patches_.at(address);
    std::byte there{};
    // Or it was ours until a moment ago.
    if (ours || !tracee_->read(address, {&there, 1}) || there != kInt3) {
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
  report_signal(host, SIGTRAP);
}

void KernelTarget::report_signal(pid_t host, int signal) {
  StopEvent event;
  event.reason = StopReason::Signal;
  event.signal = signal;
  tracee_->set_signal(host, 0);
  report(host, event);
  reported_[host] = signal;
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
  guest_code_.release_all();
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
  places_ = {};  // its _init has yet to run
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

}  // namespace cowbird::debug
