#include <catch2/catch.hpp>
#include <chrono>
#include <cstdio>
#include <thread>

#include "sched/clock.hpp"
#include "sched/stack.hpp"
#include "unit/sched_support.hpp"

using namespace cowbird;
using test::Machine;

namespace {

// A pair of threads that pass a token to each other.
struct PingPong {
  WaitQueue queue;
  int turn = 0;
  void play(int me, int rounds) {
    for (int i = 0; i < rounds; ++i) {
      REQUIRE(wait_event(
          queue, [&] { return turn == me; }, SleepMode::Uninterruptible, "ping"));
      turn = 1 - me;
      queue.wake_all();
    }
  }
};

// A thread that believes to have a signal pending.
struct Signalled final : Thread {
  Signalled() : Thread("signalled") {}
  bool signal_pending() const override { return pending; }
  bool fatal_signal_pending() const override { return fatal; }
  bool pending = false;
  bool fatal = false;
};

// Waits on the host, without the lock, for something that kernel threads do.
template <typename Condition>
void await(Condition condition) {
  for (int i = 0; i < 5000; ++i) {
    {
      BklGuard guard;
      if (condition()) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  FAIL("waited five seconds in vain");
}

}  // namespace

TEST_CASE("threads run, wait for each other and end") {
  const unsigned vcpus = GENERATE(1u, 2u);
  Machine machine(vcpus);
  PingPong game;
  machine.run({[&] { game.play(0, 2000); }, [&] { game.play(1, 2000); }});
  BklGuard guard;
  CHECK(game.turn == 0);
  CHECK(game.queue.empty());
  CHECK(scheduler::context_switches() > 0);
}

TEST_CASE("many threads come and go, and their stacks are used again") {
  Machine machine(2);
  std::atomic<int> count{0};
  machine.run([&] {
    WaitQueue done;
    for (int round = 0; round < 20; ++round) {
      int left = 30;
      for (int i = 0; i < 30; ++i) {
        REQUIRE(Thread::spawn("child", [&] {
          yield();
          ++count;
          if (--left == 0) done.wake_all();
        }));
      }
      REQUIRE(wait_event(
          done, [&] { return left == 0; }, SleepMode::Uninterruptible, "children"));
    }
  });
  CHECK(count == 600);
  BklGuard guard;
  CHECK(pooled_stacks() > 0);
  CHECK(pooled_stacks() <= kMaxPooledStacks);
}

TEST_CASE("current_thread and current_vcpu follow the thread") {
  Machine machine(2);
  CHECK(current_thread() == nullptr);
  CHECK(scheduler::current_vcpu() == -1);
  std::atomic<bool> wrong{false};
  auto body = [&] {
    Thread *const self = current_thread();
    for (int i = 0; i < 3000; ++i) {
      yield();
      BklReleased released;  // lets the other vCPU take what waits
      const int vcpu = scheduler::current_vcpu();
      if (current_thread() != self || vcpu < 0 || vcpu > 1) wrong = true;
    }
  };
  machine.run({body, body, body, body});
  CHECK(!wrong);
}

TEST_CASE("sleeping ends at its deadline") {
  Machine machine(1);
  machine.run([] {
    const std::int64_t begin = clock::monotonic_ns();
    const auto slept = sleep_until(begin + 20 * kNsPerMs, SleepMode::Interruptible, "nap");
    CHECK(slept.is(Errno::TimedOut));
    CHECK(clock::monotonic_ns() >= begin + 20 * kNsPerMs);
    CHECK(sleep_until(begin, SleepMode::Uninterruptible, "nap").is(Errno::TimedOut));
    WaitQueue queue;
    CHECK(wait_event(
              queue, [] { return false; }, SleepMode::Killable, "nothing",
              clock::monotonic_ns() + kNsPerMs)
              .is(Errno::TimedOut));
    CHECK(queue.empty());
  });
}

TEST_CASE("signals end the sleeps that they may end") {
  Machine machine(1);
  BklGuard *guard = new BklGuard;
  auto thread = Ref<Signalled>::adopt(new Signalled);
  int stage = 0;
  WaitQueue queue;
  REQUIRE(thread->prepare([&] {
    const auto never = [] { return false; };
    CHECK(wait_event(queue, never, SleepMode::Interruptible, "a").is(Errno::RestartSys));
    stage = 1;
    CHECK(wait_event(queue, never, SleepMode::Killable, "b").is(Errno::RestartSys));
    stage = 2;
    CHECK(wait_event(
        queue, [&] { return stage == 3; }, SleepMode::Uninterruptible, "c"));
    stage = 4;
  }));
  thread->start();
  delete guard;

  await([&] { return thread->state() == ThreadState::Interruptible; });
  {
    BklGuard g;
    CHECK(std::string(thread->wait_channel()) == "a");
    thread->pending = true;
    CHECK(wake_interruptible(*thread));
  }
  await([&] { return stage == 1 && thread->state() == ThreadState::Uninterruptible; });
  {
    BklGuard g;
    CHECK(!wake_interruptible(*thread));
    thread->fatal = true;
    CHECK(wake_interruptible(*thread));
  }
  await([&] { return stage == 2 && thread->state() == ThreadState::Uninterruptible; });
  {
    BklGuard g;
    CHECK(!wake_interruptible(*thread));
    stage = 3;
    queue.wake_all();
  }
  await([&] { return stage == 4 && thread->state() == ThreadState::Dead; });
  BklGuard g;
  thread.reset();
}

TEST_CASE("a wake-up between the test and the sleep is not lost") {
  Machine machine(2);
  WaitQueue queue;
  bool flag = false;
  machine.run({[&] {
                 CHECK(wait_event(
                     queue,
                     [&] {
                       const bool seen = flag;
                       // The lock is released between the test and the sleep.
                       BklReleased released;
                       std::this_thread::sleep_for(std::chrono::milliseconds(20));
                       return seen;
                     },
                     SleepMode::Uninterruptible, "flag"));
               },
               [&] {
                 BklReleased *released = new BklReleased;
                 std::this_thread::sleep_for(std::chrono::milliseconds(30));
                 delete released;
                 flag = true;
                 queue.wake_all();
               }});
}

TEST_CASE("wake_one wakes exclusive waiters in order and all others") {
  Machine machine(1);
  machine.run([] {
    WaitQueue queue;
    std::vector<int> woken;
    struct Waiter {
      std::vector<int> *woken;
      int number;
    };
    Waiter a{&woken, 1}, b{&woken, 2}, c{&woken, 3};
    const auto callback = [](WaitEntry &self, std::uint32_t) {
      auto *waiter = static_cast<Waiter *>(self.data());
      waiter->woken->push_back(waiter->number);
      return true;
    };
    WaitEntry first(callback, &a), second(callback, &b), shared(callback, &c);
    queue.add_exclusive(first);
    queue.add_exclusive(second);
    queue.add(shared);
    queue.wake_one();
    CHECK(woken == std::vector<int>{3, 1});
    woken.clear();
    first.remove();
    queue.wake_one();
    CHECK(woken == std::vector<int>{3, 2});
    woken.clear();
    queue.wake(0);
    CHECK(woken == std::vector<int>{3});
    shared.remove();
    second.remove();
    CHECK(queue.empty());
  });
}

TEST_CASE("callbacks may take entries away and wake the queue again") {
  Machine machine(1);
  machine.run([] {
    struct Shared {
      WaitQueue queue;
      WaitEntry *victim = nullptr;
      int calls = 0;
      bool nested = false;
    } shared;
    const auto callback = [](WaitEntry &self, std::uint32_t) {
      auto &s = *static_cast<Shared *>(self.data());
      ++s.calls;
      if (s.victim) s.victim->remove();
      self.remove();
      s.queue.add(self);  // again, at the end: not called a second time
      if (!std::exchange(s.nested, true)) s.queue.wake_all();
      return false;
    };
    WaitEntry one(callback, &shared), two(callback, &shared), three(callback, &shared);
    shared.victim = &two;
    shared.queue.add(one);
    shared.queue.add(two);
    shared.queue.add(three);
    shared.queue.wake_all();
    CHECK(!two.linked());
    CHECK(shared.calls <= 4);
    CHECK(shared.calls >= 3);
    one.remove();
    three.remove();
    CHECK(shared.queue.empty());
  });
}

TEST_CASE("SleepMutex excludes across sleeps") {
  Machine machine(2);
  SleepMutex mutex;
  int inside = 0;
  bool wrong = false;
  auto body = [&] {
    for (int i = 0; i < 300; ++i) {
      SleepLock lock(mutex);
      if (++inside != 1 || !mutex.held_by_current()) wrong = true;
      yield();
      BklReleased *released = new BklReleased;
      delete released;
      --inside;
    }
  };
  machine.run({body, body, body});
  CHECK(!wrong);
  machine.run([&] {
    CHECK(mutex.try_lock());
    CHECK(!mutex.try_lock());
    mutex.unlock();
  });
}

TEST_CASE("stopped threads stand still until they are woken") {
  Machine machine(1);
  Ref<Thread> thread;
  bool resumed = false;
  {
    BklGuard guard;
    thread = *Thread::spawn("stopper", [&] {
      sleep_stopped(ThreadState::Stopped, "do_signal_stop");
      resumed = true;
    });
  }
  await([&] { return thread->state() == ThreadState::Stopped; });
  {
    BklGuard guard;
    CHECK(thread_state_letter(thread->state()) == 'T');
    CHECK(!wake_interruptible(*thread));
    CHECK(!resumed);
    CHECK(wake(*thread));
    CHECK(!wake(*thread));
  }
  await([&] { return thread->state() == ThreadState::Dead; });
  BklGuard guard;
  CHECK(resumed);
  thread.reset();
}

TEST_CASE("what a switch costs", "[bench]") {
  Machine machine(1);
  constexpr int kRounds = 200'000;
  std::int64_t begin = 0, end = 0;
  const auto report = [&](const char *what, double count) {
    std::printf("%s: %.1f ns\n", what, static_cast<double>(end - begin) / count);
    begin = 0;
  };
  // The first to come takes the time of the beginning, the last to go that of the end.
  const auto timed = [&](const std::function<void()> &body) {
    if (begin == 0) begin = test::host_cpu_ns();
    body();
    end = test::host_cpu_ns();
  };
  const auto yields = [&] {
    timed([] {
      for (int i = 0; i < kRounds; ++i) yield();
    });
  };
  machine.run({yields, yields});
  report("yield to another thread", 2.0 * kRounds);
  PingPong game;
  machine.run({[&] { timed([&] { game.play(0, kRounds); }); },
               [&] { timed([&] { game.play(1, kRounds); }); }});
  report("wake another thread and sleep", 2.0 * kRounds);
  machine.run([&] {
    timed([] {
      for (int i = 0; i < 20'000; ++i) {
        static_cast<void>(Thread::spawn("short", [] {}).ok());
        yield();
      }
    });
  });
  report("thread from spawn to end", 20'000.0);
}
