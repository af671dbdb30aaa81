#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdio>
#include <map>
#include <thread>

#include "base/unique_fd.hpp"
#include "plugins/irq_host_events.hpp"
#include "sched/clock.hpp"
#include "unit/sched_support.hpp"

using namespace cowbird;
using test::Machine;

namespace {

struct Pipe {
  Pipe() {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    reader.reset(ends[0]);
    writer.reset(ends[1]);
  }
  void put(char c = 'x') { REQUIRE(::write(writer.get(), &c, 1) == 1); }
  char get() {
    char c = 0;
    REQUIRE(::read(reader.get(), &c, 1) == 1);
    return c;
  }
  UniqueFd reader, writer;
};

// Lets the irq thread work off what has happened so far.
void settle() {
  for (int i = 0; i < 3; ++i) {
    std::binary_semaphore done(0);
    irq::post([&] { done.release(); });
    done.acquire();
  }
}

}  // namespace

TEST_CASE("a watched descriptor wakes a kernel thread") {
  Machine machine(1);
  Pipe pipe;
  machine.run(
      {[&] {
         WaitQueue queue;
         bool ready = false;
         auto watch =
             irq::FdWatch::create("test", pipe.reader.get(), EPOLLIN, [&](std::uint32_t events) {
               CHECK((events & EPOLLIN) != 0);
               pipe.get();
               ready = true;
               queue.wake_all();
             });
         REQUIRE(watch);
         CHECK(wait_event(
             queue, [&] { return ready; }, SleepMode::Uninterruptible, "pipe"));
         std::map<std::string, std::uint64_t> counts;
         irq::for_each_source([&](const std::string &name, std::uint64_t n) { counts[name] = n; });
         CHECK(counts["test"] == 1);
         CHECK(counts.count("timer") == 1);
       },
       [&] { pipe.put(); }});
}

TEST_CASE("a watch that was destroyed is silent, even if its event was there already") {
  Machine machine(1);
  Pipe first, second;
  int calls = 0;
  {
    BklGuard guard;
    std::unique_ptr<irq::FdWatch> a, b;
    // Both descriptors are ready while the lock is held: whichever handler runs first ends the
    // other.
    a = std::move(*irq::FdWatch::create("a", first.reader.get(), EPOLLIN, [&](std::uint32_t) {
      ++calls;
      b.reset();
      a.reset();
    }));
    b = std::move(*irq::FdWatch::create("b", second.reader.get(), EPOLLIN, [&](std::uint32_t) {
      ++calls;
      a.reset();
      b.reset();
    }));
    first.put();
    second.put();
    {
      BklReleased released;
      settle();
    }
    CHECK(calls == 1);
    // Destroyed by another thread while the irq thread may have its event and waits for the lock.
    auto c =
        irq::FdWatch::create("c", first.reader.get(), EPOLLIN, [&](std::uint32_t) { ++calls; });
    REQUIRE(c);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    *c = nullptr;
  }
  settle();
  BklGuard guard;
  CHECK(calls == 1);
}

TEST_CASE("watches can be changed, and what cannot be polled is refused") {
  Machine machine(1);
  Pipe pipe;
  int calls = 0;
  std::unique_ptr<irq::FdWatch> watch;
  {
    BklGuard guard;
    auto once = irq::FdWatch::create("once", pipe.reader.get(), EPOLLIN | EPOLLONESHOT,
                                     [&](std::uint32_t) { ++calls; });
    REQUIRE(once);
    watch = std::move(*once);
    CHECK(irq::FdWatch::create("twice", pipe.reader.get(), EPOLLIN, [](std::uint32_t) {
          }).is(Errno::Exist));
    UniqueFd file(::memfd_create("file", MFD_CLOEXEC));
    CHECK(irq::FdWatch::create("file", file.get(), EPOLLIN, [](std::uint32_t) {}).is(Errno::Perm));
  }
  pipe.put();
  settle();
  settle();
  {
    BklGuard guard;
    CHECK(calls == 1);
    CHECK(watch->modify(EPOLLIN | EPOLLONESHOT));
  }
  settle();
  BklGuard guard;
  CHECK(calls == 2);
  watch.reset();
}

TEST_CASE("posted functions run in order under the lock, also when posted by each other") {
  Machine machine(1);
  std::vector<int> order;
  std::binary_semaphore done(0);
  irq::post([&] {
    big_kernel_lock.assert_held();
    order.push_back(1);
    irq::post([&] {
      order.push_back(3);
      done.release();
    });
  });
  irq::post([&] { order.push_back(2); });
  done.acquire();
  settle();
  BklGuard guard;
  CHECK(order[0] == 1);
  CHECK(order.size() == 3);
}

TEST_CASE("run_blocking leaves the vCPU to others and returns when the call has") {
  Machine machine(1);
  std::atomic<bool> release{false};
  bool other_ran = false;
  machine.run({[&] {
                 int answer = 0;
                 irq::run_blocking("slow", [&] {
                   CHECK(current_thread() == nullptr);
                   while (!release) std::this_thread::yield();
                   answer = 42;
                 });
                 CHECK(answer == 42);
                 CHECK(other_ran);
               },
               [&] {
                 other_ran = true;
                 release = true;
               }});
}

TEST_CASE("many blocking calls share at most eight workers") {
  Machine machine(2);
  std::atomic<int> inside{0}, most{0}, calls{0};
  std::vector<std::function<void()>> bodies;
  for (int i = 0; i < 20; ++i) {
    bodies.push_back([&] {
      irq::run_blocking("slow", [&] {
        const int now = ++inside;
        int seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        --inside;
        ++calls;
      });
    });
  }
  machine.run(bodies);
  CHECK(calls == 20);
  CHECK(most <= static_cast<int>(irq::kMaxWorkers));
  CHECK(most > 1);
}

TEST_CASE("timers fire by themselves, not before their time, and earlier ones overtake") {
  Machine machine(1);
  std::int64_t late_at = 0, early_at = 0, late_deadline = 0, early_deadline = 0;
  std::binary_semaphore done(0);
  std::unique_ptr<Timer> late, early;
  {
    BklGuard guard;
    late = std::make_unique<Timer>([&] {
      late_at = clock::monotonic_ns();
      done.release();
    });
    early = std::make_unique<Timer>([&] { early_at = clock::monotonic_ns(); });
    const std::int64_t now = clock::monotonic_ns();
    late->arm(late_deadline = now + 30 * kNsPerMs);
    early->arm(early_deadline = now + 5 * kNsPerMs);
  }
  done.acquire();
  BklGuard guard;
  CHECK(early_at >= early_deadline);
  CHECK(late_at >= late_deadline);
  CHECK(early_at < late_at);
  late.reset();
  early.reset();
}

TEST_CASE("plugins' host events are served by the irq thread") {
  Machine machine(1);
  IrqHostEvents events;
  Pipe pipe;
  std::binary_semaphore readable(0), timed(0);
  std::unique_ptr<HostEvents::Watch> watch;
  std::unique_ptr<HostEvents::Timer> timer;
  {
    BklGuard guard;
    auto added = events.add_fd("pipe", pipe.reader.get(), EPOLLIN, [&](std::uint32_t) {
      watch.reset();
      readable.release();
    });
    REQUIRE(added);
    watch = std::move(*added);
    timer = events.add_timer([&] { timed.release(); });
    timer->arm(events.now_ns() + kNsPerMs);
  }
  pipe.put();
  readable.acquire();
  timed.acquire();
  BklGuard guard;
  CHECK(!watch);
  timer.reset();
}
