// Sleeping for unit tests of kernel code that waits, without a scheduler: the only "thread" is the
// test's, and it runs the test's event loop instead of sleeping. Include in one source file of a
// test program that does not link the scheduler, and set `sleep_by_polling`.
#pragma once

#include <functional>

#include "sched/wait.hpp"

namespace cowbird {
namespace test {
inline std::function<void()> sleep_by_polling;
}

ThreadWaiter::ThreadWaiter() : entry_(&ThreadWaiter::on_wake, nullptr) {}
bool ThreadWaiter::on_wake(WaitEntry &self, std::uint32_t) {
  self.remove();
  return true;
}
void WaitQueue::wake_list(Entries &entries, unsigned limit, std::uint32_t poll_events) {
  for (; limit > 0 && !entries.empty(); --limit) {
    WaitEntry &entry = *entries.front();
    entry.callback_(entry, poll_events);
  }
}
void WaitQueue::wake(unsigned exclusive, std::uint32_t poll_events) {
  wake_list(shared_, ~0u, poll_events);
  wake_list(exclusive_, exclusive, poll_events);
}
Result<void> sleep_until(std::int64_t, SleepMode, const char *) {
  test::sleep_by_polling();
  return {};
}

}  // namespace cowbird
