#include <catch2/catch.hpp>
#include <chrono>
#include <cstdio>
#include <thread>

#include "engine/platform.hpp"
#include "sched/clock.hpp"
#include "unit/sched_support.hpp"

using namespace cowbird;
using test::Machine;

namespace {

// Guest code that is a function of the test; it must look at `interrupted` now and then.
class TestContext final : public Context {
 public:
  std::function<Trap(TestContext &)> code;
  std::atomic<bool> interrupted{false};
  std::atomic<bool> *done = nullptr;  // compute() returns when it is set
  std::atomic<int> parks{0};

  Trap run() override {
    Trap trap = code(*this);
    interrupted.store(false);
    return trap;
  }
  void interrupt() override { interrupted.store(true); }
  void park() override { ++parks; }
  std::size_t get_xstate(std::span<std::byte>) override { return 0; }
  Result<void> set_xstate(std::span<const std::byte>) override { return {}; }
  void reset_xstate() override {}
};

Trap interrupted_trap() {
  Trap trap;
  trap.kind = TrapKind::Interrupted;
  return trap;
}

Trap compute(TestContext &context) {
  while (!context.interrupted.load() && !(context.done && context.done->load())) {
    __builtin_ia32_pause();
  }
  return interrupted_trap();
}

Trap user(TestContext &context) {
  scheduler::cond_resched();
  return scheduler::run_user(context, [&] { return context.run(); });
}

struct Guest final : Thread {
  Guest(std::string name, TestContext &c) : Thread(std::move(name)), context(c) {}
  void on_switch_out() override { context.park(); }
  TestContext &context;
};

}  // namespace

TEST_CASE("guest code of two threads runs at the same time on two vCPUs") {
  Machine machine(2);
  std::atomic<int> arrived{0};
  bool met[2] = {false, false};
  auto body = [&](int me) {
    TestContext context;
    context.code = [&](TestContext &) {
      ++arrived;
      // Nobody leaves its guest code before both are in.
      const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      while (arrived.load() < 2 && std::chrono::steady_clock::now() < limit) {
        std::this_thread::yield();
      }
      met[me] = arrived.load() >= 2;
      return interrupted_trap();
    };
    user(context);
  };
  machine.run({[&] { body(0); }, [&] { body(1); }});
  CHECK(met[0]);
  CHECK(met[1]);
}

TEST_CASE("the time slice's end makes computing threads take turns") {
  Machine machine(1);
  std::atomic<bool> done{false};
  int turns[2] = {0, 0};
  std::uint64_t preempted = 0;
  auto body = [&](int me) {
    TestContext context;
    context.code = compute;
    context.done = &done;
    while (!done) {
      CHECK(user(context).kind == TrapKind::Interrupted);
      if (++turns[me] >= 5) done = true;
    }
    preempted += current_thread()->involuntary_switches;
    CHECK(current_thread()->user_ns > 10 * kNsPerMs);
  };
  machine.run({[&] { body(0); }, [&] { body(1); }});
  // A busy host takes time away from either, which counts as theirs.
  CHECK(turns[0] >= 2);
  CHECK(turns[1] >= 2);
  CHECK(preempted >= 4);
  BklGuard guard;
  CHECK(scheduler::vcpu_stats(0).user_ns > 50 * kNsPerMs);
  std::uint64_t load[3];
  scheduler::load_average(load);
}

TEST_CASE("a lower nice value gives more of the processor") {
  Machine machine(1);
  std::atomic<bool> done{false};
  std::int64_t used[2] = {0, 0};
  auto body = [&](int me) {
    TestContext context;
    context.code = compute;
    context.done = &done;
    current_thread()->nice = me == 0 ? 0 : 10;
    const std::int64_t end = clock::monotonic_ns() + 300 * kNsPerMs;
    while (!done) {
      user(context);
      if (clock::monotonic_ns() >= end) done = true;
    }
    used[me] = current_thread()->user_ns;
  };
  machine.run({[&] { body(0); }, [&] { body(1); }});
  // 1.25^10 is 9.3; slices of 10 ms and a busy host make it coarse.
  CHECK(used[0] > used[1]);
  CHECK(used[1] > 0);
}

TEST_CASE("a thread that wakes up preempts one that computes") {
  Machine machine(1);
  std::atomic<bool> done{false};
  std::int64_t worst = 0;
  machine.run(
      {[&] {
         TestContext context;
         context.code = compute;
         context.done = &done;
         while (!done) user(context);
         CHECK(current_thread()->involuntary_switches >= 10);
       },
       [&] {
         for (int i = 0; i < 20; ++i) {
           const std::int64_t deadline = clock::monotonic_ns() + 4 * kNsPerMs;
           CHECK(sleep_until(deadline, SleepMode::Uninterruptible, "nap").is(Errno::TimedOut));
           worst = std::max(worst, clock::monotonic_ns() - deadline);
         }
         done = true;
       }});
  std::printf("worst wake-up beside a computing thread: %.0f us\n",
              static_cast<double>(worst) / 1000);
}

TEST_CASE("who wakes up after a halt does not wait for as long as it lasted") {
  Machine machine(1);
  std::atomic<bool> done{false}, computing{false};
  bool woken = false;
  int turns = 0, turns_before = 0;
  WaitQueue queue;
  std::thread outside([&] {
    while (!computing) std::this_thread::yield();
    BklGuard guard;
    clock::stop();
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    clock::go();
    turns_before = turns;
    woken = true;
    queue.wake_all();
  });
  // The first sleeps when the second begins to compute.
  machine.run({[&] {
                 const auto came = wait_event(
                     queue, [&] { return woken; }, SleepMode::Uninterruptible, "test");
                 CHECK(came);
                 turns -= turns_before;
                 done = true;
               },
               [&] {
                 TestContext context;
                 context.code = [&](TestContext &self) {
                   computing = true;
                   return compute(self);
                 };
                 context.done = &done;
                 while (!done) {
                   user(context);
                   ++turns;
                 }
               }});
  outside.join();
  // A turn is a time slice of 10 ms; who comes in is let in at once.
  CHECK(turns <= 5);
}

TEST_CASE("kick interrupts guest code, and switching out parks the context") {
  Machine machine(2);
  TestContext context;
  std::atomic<bool> inside{false};
  context.code = [&](TestContext &self) {
    inside = true;
    return compute(self);
  };
  Ref<Guest> guest;
  std::binary_semaphore ended(0);
  {
    BklGuard guard;
    guest = Ref<Guest>::adopt(new Guest("guest", context));
    REQUIRE(guest->prepare([&] {
      CHECK(user(context).kind == TrapKind::Interrupted);
      static_cast<void>(
          sleep_until(clock::monotonic_ns() + kNsPerMs, SleepMode::Uninterruptible, "x"));
      ended.release();
    }));
    guest->start();
  }
  while (!inside) std::this_thread::yield();
  {
    BklGuard guard;
    scheduler::kick(*guest);
  }
  ended.acquire();
  CHECK(context.parks == 1);
  for (bool dead = false; !dead;) {
    BklGuard guard;
    dead = guest->state() == ThreadState::Dead;
  }
  BklGuard guard;
  guest.reset();
}

TEST_CASE("more threads than vCPUs all get their turn") {
  Machine machine(2);
  std::atomic<int> finished{0};
  std::vector<std::function<void()>> bodies;
  for (int i = 0; i < 6; ++i) {
    bodies.push_back([&] {
      TestContext context;
      context.code = [](TestContext &) { return Trap{}; };
      for (int n = 0; n < 2000; ++n) {
        user(context);
        if (n % 50 == 0) yield();
        if (n % 200 == 0) {
          static_cast<void>(
              sleep_until(clock::monotonic_ns() + 50'000, SleepMode::Uninterruptible, "x"));
        }
      }
      ++finished;
    });
  }
  machine.run(bodies);
  CHECK(finished == 6);
}

TEST_CASE("stop takes vCPUs away from guest code and sleeping threads alike") {
  std::atomic<bool> inside{false};
  TestContext context;
  context.code = [&](TestContext &self) {
    inside = true;
    return compute(self);
  };
  Ref<Thread> computing, sleeping;
  WaitQueue queue;
  {
    Machine machine(2);
    {
      BklGuard guard;
      computing = *Thread::spawn("computing", [&] {
        for (;;) user(context);
      });
      sleeping = *Thread::spawn("sleeping", [&] {
        static_cast<void>(wait_event(
            queue, [] { return false; }, SleepMode::Uninterruptible, "for ever"));
      });
    }
    while (!inside) std::this_thread::yield();
  }
  BklGuard guard;
  CHECK(computing->state() == ThreadState::Runnable);
  CHECK(!wake(*sleeping));
  CHECK(scheduler::vcpu_count() == 0);
}

TEST_CASE("what the way into guest code and back costs", "[bench]") {
  Machine machine(1);
  machine.run([] {
    TestContext context;
    constexpr int kRounds = 500'000;
    const std::int64_t begin = test::host_cpu_ns();
    for (int i = 0; i < kRounds; ++i) {
      scheduler::cond_resched();
      scheduler::run_user(context, [] {});
    }
    std::printf("run_user around nothing: %.1f ns\n",
                static_cast<double>(test::host_cpu_ns() - begin) / kRounds);
  });
}
