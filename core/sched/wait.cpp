#include "sched/wait.hpp"

#include "base/log.hpp"
#include "sched/clock.hpp"
#include "sched/internals.hpp"

namespace cowbird {
namespace {

bool interrupted(const Thread &thread, SleepMode mode) {
  switch (mode) {
    case SleepMode::Interruptible:
      return thread.signal_pending();
    case SleepMode::Killable:
      return thread.fatal_signal_pending();
    case SleepMode::Uninterruptible:
      return false;
  }
  return false;
}

}  // namespace

// Callbacks may remove any entry, add new ones and wake the same queue again. So the place in the
// list is kept by an entry of our own, and another one marks the end as it was at the beginning.
void WaitQueue::wake_list(Entries &entries, unsigned limit, std::uint32_t poll_events) {
  if (entries.empty()) return;
  WaitEntry place(nullptr, nullptr), end(nullptr, nullptr);
  entries.push_front(place);
  entries.push_back(end);
  while (limit > 0) {
    auto next = Entries::iterator(&place.link_);
    ++next;
    WaitEntry &entry = *next;
    if (&entry == &end) break;
    place.link_.unlink();
    if (++next; next == entries.end()) {
      entries.push_back(place);
    } else {
      entries.insert_before(*next, place);
    }
    if (entry.callback_ && entry.callback_(entry, poll_events)) --limit;
  }
}

void WaitQueue::wake(unsigned exclusive, std::uint32_t poll_events) {
  wake_list(shared_, ~0u, poll_events);
  wake_list(exclusive_, exclusive, poll_events);
}

ThreadWaiter::ThreadWaiter() : entry_(on_wake, current_thread()) {}

bool ThreadWaiter::on_wake(WaitEntry &self, std::uint32_t) {
  auto &thread = *static_cast<Thread *>(self.data());
  self.remove();
  // The thread may be between its test and its sleep if the test released the lock.
  if (!wake(thread)) thread.sched().wake_token = true;
  return true;
}

Result<void> sleep_until(std::int64_t deadline_ns, SleepMode mode, const char *wait_channel) {
  Thread &self = *current_thread();
  auto &sched = self.sched();
  if (interrupted(self, mode)) return Err(Errno::RestartSys);
  if (std::exchange(sched.wake_token, false)) return {};
  if (deadline_ns != kNoDeadline) {
    if (deadline_ns <= clock::monotonic_ns()) return Err(Errno::TimedOut);
    sched.sleep_timer.arm(deadline_ns);
  }
  sched.timed_out = false;
  sched.killable = mode == SleepMode::Killable;
  SchedInternals::set_wait_channel(self, wait_channel);
  if (mode == SleepMode::Interruptible) {
    SchedInternals::set_state(self, ThreadState::Interruptible);
  } else {
    SchedInternals::set_state(self, ThreadState::Uninterruptible);
    ++SchedCore::instance().blocked_count;
  }
  leave_vcpu(Leave::Sleep);
  sched.sleep_timer.cancel();
  sched.wake_token = false;
  SchedInternals::set_wait_channel(self, nullptr);
  if (interrupted(self, mode)) return Err(Errno::RestartSys);
  if (sched.timed_out) return Err(Errno::TimedOut);
  return {};
}

void sleep_stopped(ThreadState state, const char *wait_channel) {
  KASSERT(state == ThreadState::Stopped || state == ThreadState::Traced);
  Thread &self = *current_thread();
  SchedInternals::set_wait_channel(self, wait_channel);
  SchedInternals::set_state(self, state);
  leave_vcpu(Leave::Sleep);
  SchedInternals::set_wait_channel(self, nullptr);
}

void SleepMutex::lock() {
  Thread *self = current_thread();
  if (held_) {
    if (owner_ == self && self)
      panic("'{}' taken twice by thread '{}'", wait_channel_, self->name());
    self->blocked_on = this;
    // Uninterruptible without a deadline ends with the condition only.
    static_cast<void>(wait_event(
        queue_, [this] { return !held_; }, SleepMode::Uninterruptible, wait_channel_, kNoDeadline,
        true));
    self->blocked_on = nullptr;
  }
  held_ = true;
  owner_ = self;
}

Result<void> SleepMutex::lock_interruptible() {
  if (!try_lock()) {
    Thread *self = current_thread();
    self->blocked_on = this;
    const auto waited = wait_event(
        queue_, [this] { return !held_; }, SleepMode::Interruptible, wait_channel_, kNoDeadline,
        true);
    self->blocked_on = nullptr;
    TRY(waited);
    held_ = true;
    owner_ = self;
  }
  return {};
}

bool SleepMutex::try_lock() {
  if (held_) return false;
  held_ = true;
  owner_ = current_thread();
  return true;
}

void SleepMutex::unlock() {
  KASSERT(held_ && owner_ == current_thread());
  held_ = false;
  owner_ = nullptr;
  queue_.wake_one();
}

}  // namespace cowbird
