#include "vfs/poll.hpp"

#include "abi/poll.hpp"

namespace cowbird {

bool PollWaiter::on_wake(WaitEntry &entry, std::uint32_t /*events*/) {
  auto *self = static_cast<PollWaiter *>(entry.data());
  self->woken_ = true;
  if (self->thread_) cowbird::wake(*self->thread_);
  return true;
}

void PollWaiter::wait(WaitQueue &queue) {
  entries_.emplace_back(&PollWaiter::on_wake, this);
  queue.add(entries_.back());
}

Result<std::size_t> poll_files(std::span<PollItem> items, std::int64_t deadline_ns) {
  PollWaiter waiter;
  bool timed_out = deadline_ns <= 0;
  PollTable *table = timed_out ? nullptr : &waiter;
  for (;;) {
    std::size_t ready = 0;
    waiter.rearm();
    for (PollItem &item : items) {
      item.revents = 0;
      if (!item.file) continue;
      item.revents = item.file->poll(table) & (item.events | abi::kPOLLERR | abi::kPOLLHUP);
      if (item.revents != 0) {
        ++ready;
        table = nullptr;  // no sleep follows: the other queues need not be joined
      }
    }
    if (ready > 0 || timed_out) return ready;
    table = nullptr;
    while (!waiter.woken() && !timed_out) {
      auto slept = sleep_until(deadline_ns, SleepMode::Interruptible, "poll");
      if (slept) continue;
      if (slept.error() != Errno::TimedOut) return Err(slept.error());
      timed_out = true;
    }
  }
}

}  // namespace cowbird
