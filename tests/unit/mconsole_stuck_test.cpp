// The management console of a kernel that does not answer: without guest programs, but with the
// scheduler, the irq thread and the real commands.
#include <catch2/catch.hpp>
#include <filesystem>
#include <semaphore>

#include "mconsole/client.hpp"
#include "mconsole/mconsole.hpp"
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
  REQUIRE(mconsole::start({socket, [&] { restarted.release(); }}, error));
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
  }
  mconsole::stop();
  std::filesystem::remove_all(scratch);
}
