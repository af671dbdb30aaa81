#include <catch2/catch.hpp>
#include <memory>
#include <vector>

#include "sched/bkl.hpp"
#include "sched/clock.hpp"
#include "sched/scheduler.hpp"
#include "sched/timer.hpp"

using namespace cowbird;

namespace {

std::int64_t fake_now = 0;
std::int64_t hook_deadline = 0;
int hook_calls = 0;

class FakeTime {
 public:
  FakeTime() {
    fake_now = 1000;
    hook_calls = 0;
    clock::set_source([] { return fake_now; });
    timers::set_reprogram_hook([](std::int64_t deadline) {
      hook_deadline = deadline;
      ++hook_calls;
    });
  }
  ~FakeTime() {
    timers::set_reprogram_hook(nullptr);
    clock::set_source(nullptr);
  }

 private:
  BklGuard guard_;
};

}  // namespace

TEST_CASE("the clock is the host's less the halts") {
  FakeTime time;
  CHECK(clock::monotonic_ns() == 1000);
  fake_now = 2000;
  clock::stop();
  CHECK(clock::stopped());
  const std::uint32_t halts = clock::halts();
  fake_now = 9000;
  CHECK(clock::monotonic_ns() == 2000);
  clock::stop();  // again: no effect
  clock::go();
  CHECK(clock::halts() == halts + 1);
  CHECK(clock::monotonic_ns() == 2000);
  fake_now = 9500;
  CHECK(clock::monotonic_ns() == 2500);
}

TEST_CASE("real time has its own offset") {
  FakeTime time;
  clock::set_realtime(1'700'000'000 * kNsPerSec);
  CHECK(clock::realtime_ns() == 1'700'000'000 * kNsPerSec);
  fake_now += 5;
  CHECK(clock::realtime_ns() == 1'700'000'000 * kNsPerSec + 5);
  CHECK(clock::realtime_offset_ns() == clock::realtime_ns() - clock::monotonic_ns());
}

TEST_CASE("the host's clock goes on") {
  const std::int64_t first = clock::monotonic_ns();
  CHECK(first >= 0);
  CHECK(first < 3600 * kNsPerSec);
  CHECK(clock::monotonic_ns() >= first);
  CHECK(clock::realtime_ns() > 1'500'000'000 * kNsPerSec);
}

TEST_CASE("timers fire in the order of their deadlines, equals as they were armed") {
  FakeTime time;
  std::vector<int> fired;
  std::vector<std::unique_ptr<Timer>> all;
  const int deadlines[] = {50, 20, 90, 20, 10, 70, 20, 30};
  for (int i = 0; i < 8; ++i) {
    all.push_back(std::make_unique<Timer>([&fired, i] { fired.push_back(i); }));
    all.back()->arm(2000 + deadlines[i]);
  }
  CHECK(timers::next_deadline() == 2010);
  all[5]->cancel();
  CHECK(!all[5]->armed());
  all[2]->arm(2005);
  fake_now = 2060;
  CHECK(timers::run_expired() > fake_now);
  CHECK(fired == std::vector<int>{2, 4, 1, 3, 6, 7, 0});
}

TEST_CASE("the hook is told of earlier deadlines only") {
  FakeTime time;
  Timer a([] {}), b([] {}), c([] {});
  a.arm(5000);
  CHECK(hook_deadline == 5000);
  b.arm(6000);
  CHECK(hook_calls == 1);
  c.arm(4000);
  CHECK(hook_deadline == 4000);
  CHECK(hook_calls == 2);
}

TEST_CASE("timer functions may arm, cancel and destroy timers") {
  FakeTime time;
  int runs = 0;
  Timer other([&] { runs += 100; });
  std::unique_ptr<Timer> once;
  once = std::make_unique<Timer>([&] {
    ++runs;
    other.cancel();
    once.reset();
    ++runs;  // the function outlives its timer
  });
  int ticks = 0;
  struct Tick {
    Timer *timer;
    int *ticks;
  } tick{nullptr, &ticks};
  Timer again([&tick] {
    ++*tick.ticks;
    tick.timer->arm(0);  // has passed already: next time
  });
  tick.timer = &again;
  once->arm(1500);
  other.arm(1501);
  again.arm(1400);
  fake_now = 3000;
  timers::run_expired();
  CHECK(runs == 2);
  CHECK(ticks == 1);
  timers::run_expired();
  CHECK(ticks == 2);
}

TEST_CASE("no timer fires while the clock stands still") {
  FakeTime time;
  int fired = 0;
  Timer timer([&] { ++fired; });
  timer.arm(1500);
  clock::stop();
  fake_now = 9000;
  CHECK(timers::next_deadline() == kNoDeadline);
  timers::run_expired();
  CHECK(fired == 0);
  hook_calls = 0;
  clock::go();
  CHECK(hook_calls == 1);
  CHECK(hook_deadline == 1500);
  timers::run_expired();
  CHECK(fired == 0);
  fake_now += 500;
  timers::run_expired();
  CHECK(fired == 1);
}

TEST_CASE("a thousand timers in random order") {
  FakeTime time;
  std::vector<std::unique_ptr<Timer>> all;
  std::int64_t last = 0;
  int fired = 0;
  bool ordered = true;
  std::uint32_t random = 12345;
  for (int i = 0; i < 1000; ++i) {
    random = random * 1664525 + 1013904223;
    const std::int64_t deadline = 2000 + (random >> 8) % 5000;
    auto timer = std::make_unique<Timer>([&, deadline] {
      ordered &= deadline >= last;
      last = deadline;
      ++fired;
    });
    timer->arm(deadline);
    all.push_back(std::move(timer));
  }
  for (int i = 0; i < 1000; i += 3) all[static_cast<std::size_t>(i)]->cancel();
  for (int i = 0; i < 1000; i += 7) all[static_cast<std::size_t>(i)].reset();
  int left = 0;
  for (const auto &timer : all) left += timer && timer->armed() ? 1 : 0;
  fake_now = 10'000;
  timers::run_expired();
  CHECK(fired == left);
  CHECK(ordered);
}

TEST_CASE("load averages follow what runs and decay in idle time") {
  FakeTime time;
  std::uint64_t before[3], after[3];
  scheduler::load_average(before);
  fake_now += 600 * kNsPerSec;
  scheduler::load_average(after);
  for (int i = 0; i < 3; ++i) CHECK(after[i] <= before[i]);
}
