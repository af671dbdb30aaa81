// GuestTarget and UserTarget against a debug agent that is a thread of this test: what they ask it,
// and in which order, when stops cross their requests.
#include <catch2/catch.hpp>
#include <csignal>
#include <mutex>
#include <string>

#include "debug/target/fake_target.hpp"
#include "debug/target/guest_target.hpp"
#include "unit/debug/agent_thread.hpp"

using namespace cowbird;
using namespace cowbird::debug;
using debug_agent::Command;
using debug_agent::Header;
using debug_agent::ResumeRecord;
using debug_agent::StopRecord;
using test::AgentThread;
using test::bytes_of;

namespace {

constexpr std::int64_t kPid = 3;

// Answers one client. A stop that is given to it arrives before the answer to the next ReadMemory.
class FakeAgent {
 public:
  struct Resume {
    std::uint64_t seen = 0;
    std::vector<ResumeRecord> records;
  };
  std::string path() const { return thread_.path(); }
  void stops(std::int32_t tid, bool frozen = false) {
    const std::lock_guard guard(mutex_);
    StopRecord stop;
    stop.pid = kPid;
    stop.tid = tid;
    stop.frozen = frozen ? 1 : 0;
    stop.sequence = ++sequence_;
    stop_ = stop;
  }
  unsigned take_lists() {
    const std::lock_guard guard(mutex_);
    return std::exchange(lists_, 0);
  }
  std::vector<Resume> take_resumes() {
    const std::lock_guard guard(mutex_);
    return std::exchange(resumes_, {});
  }

 private:
  std::vector<std::byte> answer(int client, const debug_agent::Request &request) {
    const std::lock_guard guard(mutex_);
    if (request.command == Command::Hello) return bytes_of(debug_agent::HelloReply{});
    if (request.command == Command::Resume) {
      resumes_.push_back(
          {request.fields.address, debug_agent::records<ResumeRecord>(request.bytes)});
    }
    if (request.command == Command::Threads) return list();
    if (request.command != Command::ReadMemory) return {};
    if (stop_) {
      Header header;
      header.command = static_cast<std::uint16_t>(Command::Stopped);
      AgentThread::say(client, header, bytes_of(*stop_));
      stop_.reset();
    }
    return std::vector<std::byte>(request.fields.length);
  }
  std::vector<std::byte> list() {
    ++lists_;
    std::vector<std::byte> out;
    for (const std::int32_t tid : {30, 31}) {
      debug_agent::ThreadRecord record;
      record.pid = kPid;
      record.tid = tid;
      const auto bytes = bytes_of(record);
      out.insert(out.end(), bytes.begin(), bytes.end());
    }
    return out;
  }

  std::mutex mutex_;
  std::optional<StopRecord> stop_;
  std::uint64_t sequence_ = 0;
  std::vector<Resume> resumes_;
  unsigned lists_ = 0;
  AgentThread thread_{
      [this](int client, const debug_agent::Request &request) { return answer(client, request); }};
};

// A guest whose kernel runs, with process 3 attached and running.
struct Guest {
  explicit Guest(bool non_stop) {
    GuestTarget::KernelSide side;
    side.hard_stopped = [] { return false; };
    side.serves = [] { return true; };
    side.pause = [this] { ++pauses; };
    side.unpause = [] {};
    side.agent_socket = [this] { return agent.path(); };
    target.emplace(kernel, std::move(side));
    REQUIRE(target->attach());
    target->set_non_stop(non_stop);
    go_on({kKernelPid, kAll});
    REQUIRE(target->attach_process(kPid));
    go_on({kPid, kAll});
    agent.take_resumes();
  }
  void go_on(ThreadId which, int signal = 0) {
    ResumeAction action;
    action.thread = which;
    action.signal = signal;
    REQUIRE(target->resume(std::span(&action, 1)));
  }
  // While the answer to this is waited for, the stop comes.
  void look() {
    std::byte byte{};
    REQUIRE(target->read_memory(kPid, 0x1000, std::span(&byte, 1)));
  }
  FakeAgent agent;
  FakeTarget kernel{{}};
  unsigned pauses = 0;
  std::optional<GuestTarget> target;
};

}  // namespace

TEST_CASE("non-stop: a stop that gdb has not seen keeps nobody else from going on") {
  Guest guest(true);
  guest.agent.stops(31);
  guest.look();
  guest.go_on({kPid, 30});
  auto asked = guest.agent.take_resumes();
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].seen == 0);  // so the agent leaves thread 31 as it is
  REQUIRE(asked[0].records.size() == 1);
  CHECK(asked[0].records[0].tid == 30);
  const auto event = guest.target->next_event();
  REQUIRE(event);
  CHECK(event->thread == ThreadId{kPid, 31});
  guest.go_on({kPid, kAll});
  asked = guest.agent.take_resumes();
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].seen == 1);
}

TEST_CASE("all-stop: the agent is told the signals although a stop comes first") {
  Guest guest(false);
  guest.agent.stops(30);
  guest.look();
  REQUIRE(guest.target->next_event());
  guest.agent.stops(31);
  guest.look();
  guest.go_on({kPid, 30}, SIGUSR1);
  const auto asked = guest.agent.take_resumes();
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].seen == 1);
  REQUIRE_FALSE(asked[0].records.empty());
  CHECK(asked[0].records[0].signal == SIGUSR1);
  const auto event = guest.target->next_event();
  REQUIRE(event);
  CHECK(event->thread == ThreadId{kPid, 31});
}

TEST_CASE("the stop of a process that was detached meanwhile is not told") {
  Guest guest(true);
  guest.agent.stops(31);
  guest.look();
  REQUIRE(guest.target->detach_process(kPid));
  CHECK_FALSE(guest.target->next_event());
}

TEST_CASE("while a guest stands still its threads are listed once, and the kernel is left alone") {
  Guest guest(false);
  guest.agent.stops(30, true);
  guest.look();
  REQUIRE(guest.target->next_event());
  guest.agent.take_lists();
  guest.pauses = 0;
  for (int i = 0; i < 3; ++i) {
    CHECK(guest.target->is_alive({kPid, 31}));
    CHECK_FALSE(guest.target->is_alive({kPid, 32}));
  }
  CHECK(guest.agent.take_lists() == 1);
  CHECK(guest.pauses == 0);
  guest.go_on({kPid, kAll});
  CHECK(guest.target->is_alive({kPid, 31}));
  CHECK(guest.target->is_alive({kPid, 31}));
  CHECK(guest.agent.take_lists() == 2);  // it runs
}
