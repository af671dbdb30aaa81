// GuestTarget where the kernel and the agent get in each other's way: a kernel that stops at a
// breakpoint while the agent is at work. Both are made up.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <csignal>
#include <mutex>

#include "base/log.hpp"
#include "debug/target/fake_target.hpp"
#include "debug/target/guest_target.hpp"
#include "unit/debug/agent_thread.hpp"

using namespace cowbird;
using namespace cowbird::debug;
using debug_agent::Command;

namespace {

constexpr std::int64_t kProgram = 3;
constexpr int kPatienceMs = 20'000;

// The kernel: it runs or stands, and meets a breakpoint when it is told to.
class Kernel final : public FakeTarget {
 public:
  Kernel() : FakeTarget(Options{}), fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  Result<void> resume(std::span<const ResumeAction>) override {
    stands_ = false;
    const std::lock_guard guard(lock_);
    runs_.notify_all();
    return {};
  }
  void interrupt(ThreadId) override { meet_breakpoint(StopReason::Interrupted); }
  int event_fd() const override { return fd_.get(); }
  std::optional<StopEvent> next_event() override {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto drained = ::read(fd_.get(), &count, sizeof count);
    if (!due_.exchange(false)) return std::nullopt;
    StopEvent event;
    event.thread = {kKernelPid, 1};
    event.reason = reason_;
    event.signal = SIGTRAP;
    return event;
  }
  // From any thread.
  void meet_breakpoint(StopReason reason = StopReason::SoftBreakpoint) {
    if (stands_.exchange(true)) return;
    reason_ = reason;
    due_ = true;
    const std::uint64_t one = 1;
    KASSERT(::write(fd_.get(), &one, sizeof one) == sizeof one);
  }
  void await_run() {
    std::unique_lock guard(lock_);
    runs_.wait(guard, [this] { return !stands_ || over_; });
  }
  void end() {
    over_ = true;
    const std::lock_guard guard(lock_);
    runs_.notify_all();
  }
  bool stands() const { return stands_; }

 private:
  UniqueFd fd_;
  std::atomic<bool> stands_{true}, due_{false}, over_{false};
  std::atomic<StopReason> reason_{StopReason::SoftBreakpoint};
  std::mutex lock_;
  std::condition_variable runs_;
};

// The agent, which obeys while the kernel runs. `stop_at` says with which request the kernel meets
// a breakpoint: that one is answered when the kernel runs on.
class Agent {
 public:
  explicit Agent(Kernel &kernel) : kernel_(kernel) {}
  ~Agent() { kernel_.end(); }
  std::string socket() const { return thread_.path(); }
  void stop_at(Command command) { stop_at_ = command; }
  // What was asked since the last time.
  std::vector<Command> asked() {
    const std::lock_guard guard(lock_);
    return std::exchange(asked_, {});
  }
  bool frozen() const { return frozen_; }

 private:
  std::vector<std::byte> answer(Command command) {
    kernel_.await_run();
    {
      const std::lock_guard guard(lock_);
      asked_.push_back(command);
    }
    if (command == Command::Freeze) frozen_ = true;
    if (command == Command::Resume || command == Command::Thaw) frozen_ = false;
    if (stop_at_ == command) {
      stop_at_ = Command{};
      kernel_.meet_breakpoint();
      kernel_.await_run();
    }
    if (command == Command::Hello) return test::bytes_of(debug_agent::HelloReply{});
    if (command != Command::Threads) return {};
    debug_agent::ThreadRecord thread;
    thread.pid = thread.tid = kProgram;
    return test::bytes_of(thread);
  }

  Kernel &kernel_;
  std::atomic<Command> stop_at_{Command{}};
  std::atomic<bool> frozen_{false};
  std::mutex lock_;
  std::vector<Command> asked_;
  test::AgentThread thread_{
      [this](int, const debug_agent::Request &request) { return answer(request.command); }};
};

// With the guest's program attached, and everything stopped.
struct Guest {
  Guest() {
    GuestTarget::KernelSide side;
    side.hard_stopped = [this] { return kernel.stands(); };
    side.serves = [] { return true; };
    side.pause = side.unpause = [] {};
    side.agent_socket = [this] { return agent.socket(); };
    target.emplace(kernel, std::move(side));
    REQUIRE(target->attach());
    REQUIRE(target->attach_process(kProgram));
    REQUIRE(agent.frozen());
  }
  void go_on() {
    const ResumeAction all{{kKernelPid, kAll}};
    agent.asked();
    REQUIRE(target->resume(std::span(&all, 1)));
  }
  // As the server waits for it.
  StopReason next() {
    pollfd wait{target->event_fd(), POLLIN, 0};
    for (;;) {
      INFO("gdb waits for a stop that is not told");
      REQUIRE(::poll(&wait, 1, kPatienceMs) == 1);
      if (const auto event = target->next_event()) return event->reason;
    }
  }
  // Sends it on to a kernel breakpoint.
  void to_breakpoint() {
    go_on();
    kernel.meet_breakpoint();
    REQUIRE(next() == StopReason::SoftBreakpoint);
  }
  bool asked_last(std::vector<Command> wanted) {
    const auto all = agent.asked();
    return all.size() >= wanted.size() && std::equal(wanted.rbegin(), wanted.rend(), all.rbegin());
  }
  Kernel kernel;
  Agent agent{kernel};
  std::optional<GuestTarget> target;
};

Breakpoint breakpoint_of_program() {
  Breakpoint breakpoint;
  breakpoint.pid = kProgram;
  breakpoint.address = 0x401000;
  return breakpoint;
}

}  // namespace

TEST_CASE("the kernel stops while the agent sends programs on") {
  Guest guest;
  guest.agent.stop_at(Command::Resume);
  guest.go_on();
  CHECK(guest.next() == StopReason::SoftBreakpoint);
  guest.to_breakpoint();
  CHECK_FALSE(guest.agent.frozen());
}

TEST_CASE("the kernel stops while breakpoints of programs are made") {
  const Command where = GENERATE(Command::Freeze, Command::InsertBreakpoint, Command::Resume);
  Guest guest;
  guest.to_breakpoint();
  REQUIRE(guest.target->insert_breakpoint(breakpoint_of_program()));  // the agent cannot, yet
  guest.agent.stop_at(where);
  guest.go_on();
  CHECK(guest.next() == StopReason::SoftBreakpoint);
  if (where == Command::Resume) {
    CHECK(guest.asked_last({Command::Freeze, Command::InsertBreakpoint, Command::Resume}));
    guest.to_breakpoint();
  } else {
    guest.to_breakpoint();
    CHECK(guest.asked_last({Command::InsertBreakpoint, Command::Resume}));
  }
  CHECK_FALSE(guest.agent.frozen());
}

TEST_CASE("the kernel stops while ^C freezes programs") {
  Guest guest;
  ResumeAction program;
  program.thread = {kProgram, kAll};
  REQUIRE(guest.target->resume(std::span(&program, 1)));
  guest.agent.stop_at(Command::Freeze);
  guest.target->interrupt({kAll, kAll});
  CHECK(guest.next() == StopReason::SoftBreakpoint);
  guest.to_breakpoint();
  CHECK_FALSE(guest.agent.frozen());
}
