// One thread of execution in place of the scheduler, for the tests of mm/: whoever would sleep
// fails the test, since nobody else could wake it.
#include "base/log.hpp"
#include "sched/wait.hpp"
#include "unit/mm_support.hpp"

namespace cowbird {

namespace {

class TestThread final : public Thread {
 public:
  TestThread() : Thread("test") {}
};

Thread &test_thread() {
  static TestThread thread;
  return thread;
}

}  // namespace

Thread::Thread(std::string name) : id_(0), name_(std::move(name)), sched_(nullptr) {}
Thread::~Thread() = default;
Thread *current_thread() { return &test_thread(); }

void WaitQueue::wake(unsigned, std::uint32_t events) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    WaitEntry &entry = *it;
    ++it;
    entry.callback_(entry, events);
  }
}

ThreadWaiter::ThreadWaiter() : entry_(&ThreadWaiter::on_wake, nullptr) {}
bool ThreadWaiter::on_wake(WaitEntry &, std::uint32_t) { return true; }

Result<void> sleep_until(std::int64_t, SleepMode, const char *channel) {
  panic("the test sleeps in {} and nobody can wake it", channel);
}

void SleepMutex::lock() {
  KASSERT(!held_);
  held_ = true;
  owner_ = current_thread();
}

bool SleepMutex::try_lock() {
  if (held_) return false;
  lock();
  return true;
}

void SleepMutex::unlock() {
  KASSERT(held_);
  held_ = false;
  owner_ = nullptr;
}

void mm_test::set_active_mm(Mm *mm) { test_thread().active_mm = mm; }

}  // namespace cowbird
