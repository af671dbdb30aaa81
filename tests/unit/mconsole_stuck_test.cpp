// The management console of a kernel that does not answer: without guest programs, but with the
// scheduler, the irq thread and the real commands.
#include <catch2/catch.hpp>
#include <filesystem>
#include <semaphore>
#include <thread>

#include "devices/device_registry.hpp"
#include "mconsole/client.hpp"
#include "mconsole/mconsole.hpp"
#include "proc/task.hpp"
#include "sched/clock.hpp"
#include "sched/freeze.hpp"
#include "unit/sched_support.hpp"

using namespace cowbird;
using mconsole::Client;
using mconsole::ClientReply;
using mconsole::Outcome;
using namespace std::chrono_literals;

namespace {

std::atomic<bool> loop_on{false};
std::binary_semaphore looping{0};

[[gnu::noinline]] void loop_in_the_kernel() {
  looping.release();
  while (loop_on) asm volatile("");
}

// A device whose change takes a lock of the kernel.
SleepMutex device_lock{"device"};
std::atomic<int> changes{0};
class LockedDevice final : public DeviceDriver {
 public:
  std::string_view prefix() const override { return "locked"; }
  std::string_view syntax() const override { return "locked=<number>"; }
  DeviceReply configure(std::string_view, std::string_view) override {
    const SleepLock lock(device_lock);
    ++changes;
    return DeviceReply::done();
  }
  DeviceReply query(std::string_view) override { return DeviceReply::done("1"); }
  DeviceReply remove(std::string_view) override {
    const SleepLock lock(device_lock);
    return DeviceReply::done();
  }
  void for_each(const std::function<void(const DeviceStatus &)> &) override {}
};

// A thread of the guest that has the lock until it is told.
std::atomic<bool> keep_lock{false};
std::binary_semaphore locked{0};
void hold_lock() {
  const SleepLock lock(device_lock);
  locked.release();
  while (keep_lock) {
    static_cast<void>(
        sleep_until(clock::monotonic_ns() + kNsPerSec / 1000, SleepMode::Uninterruptible, "lock"));
  }
}

void take_lock() {
  keep_lock = true;
  {
    BklGuard guard;
    REQUIRE(Thread::spawn("holder", hold_lock));
  }
  locked.acquire();
}

void wait_for_standstill() {
  for (bool still = false; !still; std::this_thread::sleep_for(1ms)) {
    BklGuard guard;
    still = freeze::quiesced();
  }
}

bool holds(const ClientReply &reply, Outcome outcome, const std::string &part) {
  CAPTURE(reply.text);
  CHECK(reply.outcome == outcome);
  CHECK(reply.text.find(part) != std::string::npos);
  return reply.outcome == outcome;
}

}  // namespace

TEST_CASE("quick requests are answered by a kernel that is stuck, the others when it is not") {
  char name[] = "/tmp/cowbird-stuck-XXXXXX";
  const std::filesystem::path scratch = ::mkdtemp(name);
  const auto socket = scratch / "mconsole";
  std::binary_semaphore restarted{0};
  test::Machine machine(1);
  std::string error;
  REQUIRE(mconsole::start({socket, [&] { restarted.release(); }, 200ms}, error));
  const auto client = Client::connect(socket, error);
  REQUIRE(client);
  const auto ask = [&](const char *words) { return client->ask(words, 60s); };
  holds(ask("version"), Outcome::Ok, "Linux (none) ");
  holds(ask("sysrq h"), Outcome::Ok, "HELP");
  holds(ask("go"), Outcome::Error, "Not stopped");

  loop_on = true;
  Ref<Thread> looper;
  {
    BklGuard guard;
    auto thread = Thread::spawn("looper", loop_in_the_kernel);
    REQUIRE(thread);
    looper = *thread;
  }
  looping.acquire();
  holds(ask("version"), Outcome::Ok, "Linux (none) ");
  holds(ask("help"), Outcome::Ok, "Commands:");
  holds(ask("log hello"), Outcome::Ok, "");
  holds(ask("sysrq m"), Outcome::Error, "does not answer");
  holds(ask("stop"), Outcome::Error, "does not answer");
  holds(ask("stack 1"), Outcome::Error, "does not answer");
  const ClientReply where = ask("sysrq p");
  holds(where, Outcome::Ok, "The guest kernel is stuck.");
  holds(where, Outcome::Ok, "kernel thread looper");
  holds(where, Outcome::Ok, "loop_in_the_kernel");
  holds(ask("sysrq b"), Outcome::Ok, "Resetting");
  CHECK(restarted.try_acquire_for(60s));
  const auto other = Client::connect(socket, error);
  REQUIRE(other);
  CHECK(other->ask("proc uptime", 100ms).outcome == Outcome::NoAnswer);

  loop_on = false;
  holds(ask("proc uptime"), Outcome::Error, "The guest has no /proc yet");
  holds(ask("stop"), Outcome::Ok, "stopped");
  holds(ask("stop"), Outcome::Error, "Already stopped");
  holds(ask("version"), Outcome::Ok, "Linux");
  holds(ask("proc uptime"), Outcome::Error, "The guest has no /proc yet");
  holds(ask("go"), Outcome::Ok, "");
  holds(ask("stack 1"), Outcome::Error, "Couldn't find");
  {
    BklGuard guard;
    looper.reset();
    REQUIRE(DeviceRegistry::instance().add(std::make_unique<LockedDevice>()));
    set_reboot_hook([&](RebootAction, const std::string &) { restarted.release(); });
  }

  // What a guest that stands still holds: said, and done later.
  take_lock();
  holds(ask("stop"), Outcome::Ok, "stopped");
  wait_for_standstill();
  keep_lock = false;
  holds(ask("config locked=1"), Outcome::Error, "will be done when the guest goes on");
  CHECK(changes == 0);
  holds(ask("remove locked"), Outcome::Error, "The guest stands still");
  holds(ask("version"), Outcome::Ok, "Linux");
  holds(ask("devices"), Outcome::Ok, "");
  holds(ask("go"), Outcome::Ok, "");
  holds(ask("config locked=2"), Outcome::Ok, "");
  CHECK(changes == 2);

  // A debugger holds it too; then halt has it go on and nothing stops it again.
  take_lock();
  holds(ask("stop"), Outcome::Ok, "stopped");
  {
    BklGuard guard;
    REQUIRE(freeze::hold(freeze::Holder::Debugger));
  }
  holds(ask("go"), Outcome::Ok, "a debugger still holds the guest");
  wait_for_standstill();
  keep_lock = false;
  holds(ask("config locked=3"), Outcome::Error, "will be done when the guest goes on");
  holds(ask("halt"), Outcome::Ok, "");
  CHECK(restarted.try_acquire_for(60s));
  CHECK(changes == 3);
  holds(ask("stop"), Outcome::Error, "The guest is ending");
  {
    BklGuard guard;
    CHECK_FALSE(freeze::frozen());
    set_reboot_hook(nullptr);
  }
  mconsole::stop();
  std::filesystem::remove_all(scratch);
}
