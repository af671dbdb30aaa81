#include <catch2/catch.hpp>
#include <chrono>
#include <random>
#include <thread>

#include "engine/platform.hpp"
#include "sched/clock.hpp"
#include "sched/freeze.hpp"
#include "sched/timer.hpp"
#include "unit/sched_support.hpp"

using namespace cowbird;
using freeze::Holder;
using test::Machine;

namespace {

constexpr std::int64_t kLong = 20 * kNsPerSec;

// Guest code that counts until it is interrupted or the test is over.
class CountingContext final : public Context {
 public:
  CountingContext(std::atomic<std::uint64_t> &count, const std::atomic<bool> &done)
      : count_(count), done_(done) {}
  Trap run() override {
    while (!interrupted_.load() && !done_.load()) ++count_;
    interrupted_.store(false);
    Trap trap;
    trap.kind = TrapKind::Interrupted;
    return trap;
  }
  void interrupt() override { interrupted_.store(true); }
  void park() override {}
  std::size_t get_xstate(std::span<std::byte>) override { return 0; }
  Result<void> set_xstate(std::span<const std::byte>) override { return {}; }
  void reset_xstate() override {}

 private:
  std::atomic<bool> interrupted_{false};
  std::atomic<std::uint64_t> &count_;
  const std::atomic<bool> &done_;
};

// Threads of every kind that count what they do, and end when told.
struct Load {
  std::atomic<std::uint64_t> user{0}, yields{0}, sleeps{0}, rounds{0};
  std::atomic<bool> done{false};
  WaitQueue queue;
  int turn = 0;

  std::uint64_t total() const { return user + yields + sleeps + rounds; }
  void compute() {
    CountingContext context(user, done);
    while (!done) {
      scheduler::cond_resched();
      scheduler::run_user(context, [&] { return context.run(); });
    }
  }
  void give_way() {
    while (!done) {
      yield();
      ++yields;
    }
  }
  void sleep() {
    while (!done) {
      static_cast<void>(
          sleep_until(clock::monotonic_ns() + 20 * kNsPerUs, SleepMode::Uninterruptible, "test"));
      ++sleeps;
    }
  }
  void play(int me) {
    while (!done) {
      static_cast<void>(wait_event(
          queue, [&] { return turn == me || done; }, SleepMode::Uninterruptible, "test"));
      turn = 1 - me;
      ++rounds;
      queue.wake_all();
    }
  }
};

// Waits on the host without the big kernel lock, and lets others have the vCPU.
void pause_on_host(std::chrono::microseconds time) {
  {
    BklReleased released;
    std::this_thread::sleep_for(time);
  }
  yield();
}

// Runs the load, and `operation` on a thread that is exempt.
void under_load(unsigned vcpus, const std::function<void(Load &)> &operation) {
  Load load;
  Machine machine(vcpus);
  machine.run({[&] { load.compute(); }, [&] { load.compute(); }, [&] { load.give_way(); },
               [&] { load.sleep(); }, [&] { load.play(0); }, [&] { load.play(1); },
               [&] {
                 current_thread()->runs_while_frozen = true;
                 operation(load);
                 load.done = true;
                 load.queue.wake_all();
               }});
}

}  // namespace

TEST_CASE("holders of the frozen guest are counted") {
  Machine machine(1);
  BklGuard guard;
  CHECK(freeze::release(Holder::Operator).error() == Errno::NoEnt);
  REQUIRE(freeze::hold(Holder::Operator));
  CHECK(freeze::hold(Holder::Operator).error() == Errno::Exist);
  REQUIRE(freeze::hold(Holder::Debugger));
  CHECK(clock::stopped());
  REQUIRE(freeze::release(Holder::Operator));
  CHECK(freeze::frozen());
  CHECK_FALSE(freeze::held(Holder::Operator));
  CHECK(freeze::held(Holder::Debugger));
  CHECK(clock::stopped());
  REQUIRE(freeze::release(Holder::Debugger));
  CHECK_FALSE(freeze::frozen());
  CHECK_FALSE(clock::stopped());
}

TEST_CASE("a scheduler that is stopped while the guest is frozen forgets the holders") {
  {
    Machine machine(2);
    BklGuard guard;
    REQUIRE(freeze::hold(Holder::Operator));
  }
  BklGuard guard;
  CHECK_FALSE(freeze::held(Holder::Operator));
  CHECK_FALSE(clock::stopped());
}

TEST_CASE("a frozen guest stands still and goes on") {
  const unsigned vcpus = GENERATE(1u, 2u, 3u);
  under_load(vcpus, [&](Load &load) {
    pause_on_host(std::chrono::milliseconds(2));
    REQUIRE(freeze::hold(Holder::Debugger));
    REQUIRE(freeze::wait_quiesced(kLong));
    const std::uint64_t before = load.total();
    const std::int64_t time = clock::monotonic_ns();
    pause_on_host(std::chrono::milliseconds(20));
    CHECK(load.total() == before);
    CHECK(clock::monotonic_ns() == time);
    REQUIRE(freeze::release(Holder::Debugger));
    CHECK_FALSE(freeze::quiesced());
    while (load.total() == before) pause_on_host(std::chrono::microseconds(100));
  });
}

TEST_CASE("wake-ups and timers of frozen threads are kept") {
  const unsigned vcpus = GENERATE(1u, 2u);
  Machine machine(vcpus);
  WaitQueue queue;
  bool go = false, timer_fired = false;
  int ran = 0;
  Timer timer([&] { timer_fired = true; });
  auto sleeper = [&] {
    static_cast<void>(wait_event(
        queue, [&] { return go; }, SleepMode::Uninterruptible, "test"));
    ++ran;
  };
  machine.run({sleeper, sleeper, [&] {
                 current_thread()->runs_while_frozen = true;
                 pause_on_host(std::chrono::milliseconds(2));
                 REQUIRE(freeze::hold(Holder::Operator));
                 REQUIRE(freeze::wait_quiesced(kLong));
                 timer.arm(clock::monotonic_ns() + kNsPerMs);
                 go = true;
                 queue.wake_all();
                 auto late = Thread::spawn("late", [&] { ++ran; });
                 REQUIRE(late);
                 CHECK((*late)->state() == ThreadState::Runnable);
                 pause_on_host(std::chrono::milliseconds(20));
                 CHECK(ran == 0);
                 CHECK_FALSE(timer_fired);
                 REQUIRE(freeze::release(Holder::Operator));
                 while (ran < 3 || !timer_fired) pause_on_host(std::chrono::microseconds(100));
               }});
  BklGuard guard;
  timer.cancel();
}

TEST_CASE("exempt threads wake each other while the guest is frozen") {
  const unsigned vcpus = GENERATE(1u, 2u);
  under_load(vcpus, [&](Load &) {
    REQUIRE(freeze::hold(Holder::Operator));
    REQUIRE(freeze::wait_quiesced(kLong));
    WaitQueue queue;
    int turn = 0;
    bool over = false;
    auto play = [&](int me) {
      for (int i = 0; i < 500; ++i) {
        static_cast<void>(wait_event(
            queue, [&] { return turn == me; }, SleepMode::Uninterruptible, "test"));
        turn = 1 - me;
        queue.wake_all();
      }
    };
    auto other = Thread::spawn("other", [&] {
      current_thread()->runs_while_frozen = true;
      play(1);
      over = true;
      queue.wake_all();
    });
    REQUIRE(other);
    // It was held back: the flag comes from the thread itself. Let it run once.
    REQUIRE(freeze::release(Holder::Operator));
    play(0);
    REQUIRE(freeze::hold(Holder::Operator));
    static_cast<void>(wait_event(
        queue, [&] { return over; }, SleepMode::Uninterruptible, "test"));
    REQUIRE(freeze::release(Holder::Operator));
  });
}

TEST_CASE("idle vCPUs of a frozen guest use no processor time") {
  std::int64_t used = 0;
  under_load(2, [&](Load &) {
    REQUIRE(freeze::hold(Holder::Operator));
    REQUIRE(freeze::wait_quiesced(kLong));
    const auto process_ns = [] {
      timespec now{};
      ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
      return now.tv_sec * kNsPerSec + now.tv_nsec;
    };
    const std::int64_t before = process_ns();
    pause_on_host(std::chrono::milliseconds(100));
    used = process_ns() - before;
    REQUIRE(freeze::release(Holder::Operator));
  });
  CHECK(used < 50 * kNsPerMs);  // of 200 that two spinning vCPUs would use
}

TEST_CASE("holding and releasing at random moments loses nothing") {
  const unsigned vcpus = GENERATE(1u, 2u);
  const unsigned seed = GENERATE(1u, 2u, 3u);
  under_load(vcpus, [&](Load &load) {
    std::mt19937 random(seed);
    std::int64_t last_time = clock::monotonic_ns();
    for (int step = 0; step < 150; ++step) {
      const Holder holder = random() % 2 == 0 ? Holder::Operator : Holder::Debugger;
      const bool had = freeze::held(holder);
      if (random() % 2 == 0) {
        CHECK(static_cast<bool>(freeze::hold(holder)) == !had);
      } else {
        CHECK(static_cast<bool>(freeze::release(holder)) == had);
      }
      CHECK(freeze::frozen() == (freeze::held(Holder::Operator) || freeze::held(Holder::Debugger)));
      CHECK(clock::stopped() == freeze::frozen());
      if (freeze::frozen() && random() % 4 != 0) {
        REQUIRE(freeze::wait_quiesced(kLong));
        const std::uint64_t before = load.total();
        pause_on_host(std::chrono::microseconds(random() % 300));
        CHECK(load.total() == before);
      } else {
        pause_on_host(std::chrono::microseconds(random() % 300));
      }
      CHECK(clock::monotonic_ns() >= last_time);
      last_time = clock::monotonic_ns();
    }
    for (const Holder holder : {Holder::Operator, Holder::Debugger}) {
      if (freeze::held(holder)) REQUIRE(freeze::release(holder));
    }
    // Every kind of thread goes on.
    const std::uint64_t user = load.user, yields = load.yields, sleeps = load.sleeps,
                        rounds = load.rounds;
    while (load.user == user || load.yields == yields || load.sleeps == sleeps ||
           load.rounds == rounds) {
      pause_on_host(std::chrono::microseconds(200));
    }
  });
}

TEST_CASE("who waits for the guest to end lets it go on, and nobody stops it again") {
  Machine machine(1);
  static std::vector<bool> heard;
  heard.clear();
  std::atomic<bool> ran{false};
  machine.run([&] {
    current_thread()->runs_while_frozen = true;
    freeze::on_change([](bool frozen) { heard.push_back(frozen); });
    REQUIRE(freeze::hold(Holder::Operator));
    REQUIRE(freeze::hold(Holder::Debugger));
    CHECK(heard == std::vector<bool>{true});
    const auto thread = Thread::spawn("held", [&] { ran = true; });
    REQUIRE(thread);
    REQUIRE(freeze::wait_quiesced(kLong));
    CHECK_FALSE(ran);
    freeze::end();
    CHECK_FALSE(freeze::frozen());
    CHECK_FALSE(clock::stopped());
    CHECK(heard == std::vector<bool>{true, false});
    for (const Holder holder : {Holder::Operator, Holder::Debugger}) {
      CHECK(freeze::hold(holder).is(Errno::Canceled));
      CHECK(freeze::release(holder).is(Errno::NoEnt));
    }
    while (!ran) pause_on_host(std::chrono::microseconds(200));
    freeze::on_change(nullptr);
  });
}
