// KernelTarget on a small program whose "kernel threads" are switched as the kernel's are. What a
// real guest needs on top is in tests/e2e/gdb_kernel.py.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>

#include "boot/debug_view.hpp"
#include "debug/host/out_of_line.hpp"
#include "debug/target/kernel_target.hpp"
#include "unit/debug/traced_program.hpp"

using namespace cowbird;
using namespace cowbird::debug;

namespace {

// The view of the test program: its fibers are threads 1 to 4.
class FakeView final : public KernelView {
 public:
  FakeView(MemoryReader &memory, std::uint64_t info, std::int64_t &hidden, bool has_room)
      : memory_(memory), address_(info), hidden_(hidden), has_room_(has_room) {}

  Result<void> refresh() override {
    TRY(memory_.read(address_, std::as_writable_bytes(std::span(&info_, 1))));
    threads_.clear();
    vcpus_.clear();
    for (unsigned i = 0; i < traced::kFibers; ++i) {
      const traced::FiberInfo &fiber = info_.fibers[i];
      KernelThread thread;
      thread.address = i + 1;
      thread.tid = i + 1;
      thread.name = "fiber";
      thread.state = fiber.state == traced::kReady     ? KernelThreadState::Ready
                     : fiber.state == traced::kRunning ? KernelThreadState::Running
                                                       : KernelThreadState::Sleeping;
      thread.wait_channel = "nap";
      thread.saved_rsp = fiber.saved_rsp;
      thread.stack_low = fiber.stack_low;
      thread.stack_high = fiber.stack_high;
      threads_.push_back(thread);
    }
    for (unsigned i = 0; i < traced::kVcpus; ++i) {
      VcpuState vcpu;
      vcpu.index = i;
      vcpu.current = info_.vcpus[i].current;
      vcpu.idle_rsp = info_.vcpus[i].idle_rsp;
      vcpus_.push_back(vcpu);
    }
    return {};
  }
  const std::vector<KernelThread> &threads() const override { return threads_; }
  const std::vector<VcpuState> &vcpus() const override { return vcpus_; }
  const KernelThread *find(std::int64_t tid) const override {
    for (const KernelThread &thread : threads_) {
      if (thread.tid == tid) return &thread;
    }
    return nullptr;
  }
  const KernelThread *find_by_stack(std::uint64_t rsp) const override {
    for (const KernelThread &thread : threads_) {
      if (rsp > thread.stack_low && rsp <= thread.stack_high) return &thread;
    }
    return nullptr;
  }
  MemoryReader &memory() override { return memory_; }
  const debug_view::Table &table() const override { return table_; }
  Result<Registers> user_registers(const KernelThread &) override { return Err(Errno::Inval); }
  unsigned damage() const override { return 0; }
  Result<Registers> saved_registers(const KernelThread &thread) override {
    return at_label(thread.saved_rsp);
  }
  Result<Registers> idle_registers(const VcpuState &vcpu) override {
    return at_label(vcpu.idle_rsp);
  }
  std::uint64_t symbol(const std::string &name) const override {
    if (name == "cowbird_switched_address") return info_.switched_address;
    if (name == "cowbird_panic_stop") return info_.panic_stop;
    if (name == "cowbird_debug_hold") return info_.hold;
    if (name == "cowbird_debug_room" && has_room_) return info_.room;
    if (name == "cowbird_debug_journal") return info_.journal;
    return 0;
  }
  std::string system_call_name(std::uint64_t) override { return "call"; }
  std::optional<std::int64_t> big_kernel_lock_owner() override { return std::nullopt; }
  Result<std::vector<ClockPatch>> clock_patch(std::int64_t since_ns,
                                              std::int64_t until_ns) override {
    hidden_ += until_ns - since_ns;
    return std::vector<ClockPatch>{};
  }

 private:
  Result<Registers> at_label(std::uint64_t rsp) {
    Registers registers;
    registers.set(Reg::Rsp, rsp);
    std::uint64_t label = 0;
    TRY(memory_.read(info_.switched_address, std::as_writable_bytes(std::span(&label, 1))));
    registers.set(Reg::Rip, label);
    return registers;
  }
  MemoryReader &memory_;
  std::uint64_t address_;
  std::int64_t &hidden_;
  bool has_room_;
  traced::Info info_{};
  debug_view::Table table_{};
  std::vector<KernelThread> threads_;
  std::vector<VcpuState> vcpus_;
};

class Program {
 public:
  // Without room for copies of instructions it is as an older kernel.
  explicit Program(bool non_stop = false, bool has_room = true) {
    int out[2];
    REQUIRE(::pipe2(out, O_CLOEXEC) == 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out[1], 1);
      ::execl(TRACED_PROGRAM, TRACED_PROGRAM, nullptr);
      ::_exit(99);
    }
    ::close(out[1]);
    out_.reset(out[0]);
    address_ = read_address();
    target_ = std::make_unique<KernelTarget>(
        pid_,
        [this, has_room](MemoryReader &memory, const std::string &, std::uint64_t,
                         std::string &why) -> Result<std::unique_ptr<KernelView>> {
          auto view = std::make_unique<FakeView>(memory, address_, hidden_ns, has_room);
          if (!view->refresh()) {
            why = "The program has no table.";
            return Err(Errno::NoEnt);
          }
          return std::unique_ptr<KernelView>(std::move(view));
        });
    target_->set_non_stop(non_stop);
    target_->report_exec_events(true);
  }
  ~Program() {
    target_.reset();
    if (pid_ <= 0 || gone_) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  std::uint64_t read_address() {
    std::string line;
    for (char c = 0; ::read(out_.get(), &c, 1) == 1 && c != '\n';) line += c;
    return std::stoull(line, nullptr, 16);
  }
  KernelTarget &operator*() { return *target_; }
  KernelTarget *operator->() { return target_.get(); }
  pid_t pid() const { return pid_; }
  // Its first thread has stopped, whether or not we have seen it (proc(5): 't').
  bool stands_for_tracer() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
    std::string line;
    std::getline(file, line);
    return line.find(") t ") != std::string::npos;
  }
  void set_address(std::uint64_t address) { address_ = address; }
  void reaped() { gone_ = true; }

  traced::Info info() {
    traced::Info info{};
    const UniqueFd fd(::open(("/proc/" + std::to_string(pid_) + "/mem").c_str(), O_RDONLY));
    [[maybe_unused]] const ssize_t got =
        ::pread(fd.get(), &info, sizeof info, static_cast<off_t>(address_));
    return info;
  }
  void order(std::uint32_t traced::Info::*what) {
    const traced::Info *none = nullptr;
    const auto offset = reinterpret_cast<std::uint64_t>(&(none->*what));
    const std::uint32_t one = 1;
    REQUIRE(
        target_->write_memory(kKernelPid, address_ + offset, std::as_bytes(std::span(&one, 1))));
  }
  template <typename T = std::uint64_t>
  T peek(std::uint64_t address) {
    T value{};
    REQUIRE(
        target_->read_memory(kKernelPid, address, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  long count() {
    const UniqueFd fd(::open(("/proc/" + std::to_string(pid_) + "/mem").c_str(), O_RDONLY));
    long value = 0;
    [[maybe_unused]] const ssize_t got =
        ::pread(fd.get(), &value, sizeof value, static_cast<off_t>(info().count));
    return value;
  }

  std::optional<StopEvent> event(int timeout_ms = 20'000) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    for (;;) {
      if (auto event = target_->next_event()) return event;
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          end - std::chrono::steady_clock::now());
      if (left.count() <= 0) return std::nullopt;
      pollfd wait{target_->event_fd(), POLLIN, 0};
      ::poll(&wait, 1, static_cast<int>(left.count()));
    }
  }
  StopEvent next() {
    auto got = event();
    REQUIRE(got);
    return *got;
  }
  void resume(std::vector<ResumeAction> actions) { REQUIRE(target_->resume(actions)); }
  void go() { resume({{{kKernelPid, kAll}}}); }
  // This thread alone, or with the others.
  void step(std::int64_t tid, bool alone, std::uint64_t low = 0, std::uint64_t high = 0) {
    std::vector<ResumeAction> actions{
        {{kKernelPid, tid}, high ? ResumeKind::StepRange : ResumeKind::Step}};
    actions[0].range_low = low;
    actions[0].range_high = high;
    if (!alone) actions.push_back({{kKernelPid, kAll}});
    resume(actions);
  }
  std::uint64_t reg(std::int64_t tid, Reg which) {
    auto registers = target_->read_registers({kKernelPid, tid});
    REQUIRE(registers);
    REQUIRE(registers->has(which));
    return registers->get(which);
  }
  std::int64_t thread_named(const std::string &name) {
    for (const ThreadInfo &info : target_->threads()) {
      if (info.name == name) return info.id.tid;
    }
    return 0;
  }
  // The program runs on by itself, untraced.
  void check_free() {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(file, line);) {
      if (line.rfind("TracerPid:", 0) == 0) CHECK(line == "TracerPid:\t0");
    }
    check_runs();
  }
  void check_runs() {
    const long before = count();
    for (int i = 0; i < 2000 && count() == before; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    CHECK(count() != before);
  }

  std::int64_t hidden_ns = 0;

 private:
  pid_t pid_ = 0;
  bool gone_ = false;
  UniqueFd out_;
  std::uint64_t address_ = 0;
  std::unique_ptr<KernelTarget> target_;
};

Breakpoint software(std::uint64_t address, std::vector<AgentExpression> conditions = {}) {
  return {BreakpointKind::Software, kKernelPid, address, 1, std::move(conditions)};
}
AgentExpression expression(std::initializer_list<int> code) {
  std::vector<std::byte> bytes;
  for (const int byte : code) bytes.push_back(static_cast<std::byte>(byte));
  auto parsed = AgentExpression::parse(bytes);
  REQUIRE(parsed);
  return *parsed;
}
constexpr int kRdi = 5;
// $rdi == value
AgentExpression rdi_is(int value) {
  return expression({0x26, 0, kRdi, 0x23, value >> 8 & 255, value & 255, 0x13, 0x27});
}
AgentExpression never() { return expression({0x22, 0, 0x27}); }

}  // namespace

TEST_CASE("attach stops all threads, detach leaves them as they were", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  CHECK(program->hard_stopped());
  std::set<std::string> names;
  for (const ThreadInfo &info : program->threads()) names.insert(info.name);
  CHECK(names.count("fiber") == 1);
  CHECK(names.count("vcpu0 (host)") == 1);
  CHECK(names.count("counter (host)") == 1);
  const long before = program.count();
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  CHECK(program.count() == before);
  CHECK(program->is_alive(program->current_thread()));
  program->detach_all();
  program.check_free();
  CHECK(program.hidden_ns >= 30'000'000);

  REQUIRE(program->attach());  // and once more
  program.go();
  program.check_runs();
  program->detach_all();
  program.check_free();
}

TEST_CASE("a process that is not there, and one that is traced already", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  KernelTarget second(program.pid(), {});
  CHECK(second.attach().is(Errno::Busy));
  CHECK(second.last_words().find("already") != std::string::npos);
  const pid_t gone = ::fork();
  if (gone == 0) ::_exit(0);
  ::waitpid(gone, nullptr, 0);
  KernelTarget nobody(gone, {});
  CHECK(nobody.attach().is(Errno::Srch));
}

TEST_CASE("software breakpoints stop, are not seen in memory, and are stepped over",
          "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  const auto original = program.peek(info.counted);
  REQUIRE(program->insert_breakpoint(software(info.counted)));
  CHECK(program.peek(info.counted) == original);
  program.go();
  const StopEvent event = program.next();
  CHECK(event.reason == StopReason::SoftBreakpoint);
  CHECK(event.signal == SIGTRAP);
  CHECK(event.thread.tid == program.thread_named("counter (host)"));
  CHECK(program.reg(event.thread.tid, Reg::Rip) == info.counted);
  CHECK(program->hard_stopped());
  // As gdb does it: take it out, step, put it in.
  REQUIRE(program->remove_breakpoint(software(info.counted)));
  program.step(event.thread.tid, true);
  CHECK(program.next().reason == StopReason::StepDone);
  CHECK(program.reg(event.thread.tid, Reg::Rip) > info.counted);
  REQUIRE(program->insert_breakpoint(software(info.counted)));
  const auto round = program.reg(event.thread.tid, Reg::Rdi);
  program.go();
  CHECK(program.next().reason == StopReason::SoftBreakpoint);
  CHECK(program.reg(event.thread.tid, Reg::Rdi) == round + 1);
  // Gone in the middle of it.
  program->detach_all();
  program.check_free();
}

TEST_CASE("conditions are evaluated here", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  const auto now = static_cast<int>(program.count());
  REQUIRE(now < 30'000);
  REQUIRE(program->insert_breakpoint(software(info.counted, {rdi_is(now + 700)})));
  program.go();
  const StopEvent event = program.next();
  CHECK(event.reason == StopReason::SoftBreakpoint);
  CHECK(program.reg(event.thread.tid, Reg::Rdi) == static_cast<std::uint64_t>(now + 700));
  // The same place without a condition.
  REQUIRE(program->insert_breakpoint(software(info.counted)));
}

TEST_CASE("what stands in code is in the program's journal", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  const auto entries = [&] {
    std::set<std::uint64_t> found;
    const auto count = program.peek(info.journal);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto address = program.peek(info.journal + 8 + 16 * i);
      if (address != 0) found.insert(address);
    }
    return found;
  };
  CHECK(entries().count(info.panic_stop) == 1);  // our own
  CHECK(entries().count(info.counted) == 0);
  REQUIRE(program->insert_breakpoint(software(info.counted)));
  CHECK(entries().count(info.counted) == 1);
  REQUIRE(program->remove_breakpoint(software(info.counted)));
  CHECK(entries().count(info.counted) == 0);
  std::byte original{};
  REQUIRE(program->read_memory(kKernelPid, info.counted, {&original, 1}));
  const std::array<std::uint64_t, 2> left{info.counted, static_cast<std::uint64_t>(original)};
  const std::uint64_t last = info.journal + 8 + 16 * (program.peek(info.journal) - 1);
  for (int i = 0; i < 40; ++i) {
    // As if a server had been killed: an int3 where a byte of code was. The program may run into
    // it before the next server comes, or while that one takes it out.
    REQUIRE(program->write_memory(kKernelPid, last, std::as_bytes(std::span(left))));
    const std::byte int3{0xcc};
    REQUIRE(program->write_memory(kKernelPid, info.counted, {&int3, 1}));
    program->detach_all();
    std::this_thread::sleep_for(std::chrono::microseconds(25 * (i % 10)));
    REQUIRE(program->attach());
    std::byte now{};
    REQUIRE(program->read_memory(kKernelPid, info.counted, {&now, 1}));
    CHECK(now == original);
    CHECK(entries().count(info.counted) == 0);
  }
  program->detach_all();
  program.check_free();
}

// The death of a server at any moment: each of them is a process that looks at breakpoints whose
// conditions are false. Run by name only: the moments between the host's answer to a wait and the
// next order stay, in which nobody can help, and so many deaths find one of them now and then.
TEST_CASE("the program outlives servers that are killed", "[.][kernel_target]") {
  Program program(false, GENERATE(true, false));
  const auto info = program.info();
  const std::size_t length = info.code_end - info.rip_relative;
  for (int i = 0; i < 150; ++i) {
    const pid_t server = ::fork();
    REQUIRE(server >= 0);
    if (server == 0) {
      std::array<std::byte, 512> code;
      if (!program->attach()) ::_exit(2);
      [[maybe_unused]] const auto read =
          program->read_memory(kKernelPid, info.rip_relative, std::span(code).first(length));
      for (std::size_t at = 0; at < length;) {
        const auto decoded = OutOfLine::decode(std::span(code).subspan(at, length - at));
        if (!decoded) ::_exit(3);
        // A step of a branch that is cut short is not put right.
        if (!decoded->branch &&
            !program->insert_breakpoint(software(info.rip_relative + at, {never()}))) {
          ::_exit(3);
        }
        at += decoded->length;
      }
      program.go();
      program.event(60'000);
      ::_exit(5);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(3000 + 137 * (i % 61)));
    ::kill(server, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(server, &status, 0) == server);
    CAPTURE(i, status);
    REQUIRE(WIFSIGNALED(status));
    program.check_runs();
  }
  program.check_free();
}

TEST_CASE("the end of a program that was killed while it stood is not kept", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  REQUIRE(::kill(program.pid(), SIGKILL) == 0);
  program->detach_all();
  // We are its parent too, so that its tracer may have been the one who was told.
  pid_t ended = 0;
  for (int i = 0; i < 3000 && ended == 0; ++i) {
    ended = ::waitpid(program.pid(), nullptr, WNOHANG);
    if (ended == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK((ended == program.pid() || (ended < 0 && errno == ECHILD)));
  program.reaped();
}

TEST_CASE("instructions of all kinds run beside their breakpoints", "[kernel_target]") {
  Program program(false, GENERATE(true, false));
  REQUIRE(program->attach());
  const auto info = program.info();
  std::array<std::byte, 512> code;
  const std::size_t length = info.code_end - info.rip_relative;
  REQUIRE(length < code.size());
  REQUIRE(program->read_memory(kKernelPid, info.rip_relative, code));
  unsigned instructions = 0;
  for (std::size_t at = 0; at < length; ++instructions) {
    const auto decoded = OutOfLine::decode(std::span(code).subspan(at));
    REQUIRE(decoded);
    REQUIRE(program->insert_breakpoint(software(info.rip_relative + at, {never()})));
    at += decoded->length;
  }
  CHECK(instructions > 25);
  program.go();
  const long before = program.count();
  while (program.count() < before + 50) {
    // The program ends with 90 to 93 when a result is wrong.
    const auto event = program.event(20);
    REQUIRE_FALSE(event);
  }
  program->detach_all();
  program.check_free();
}

TEST_CASE("steps, ranges and the other threads", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  REQUIRE(program->insert_breakpoint(software(info.counted)));
  program.go();
  const auto tid = program.next().thread.tid;
  REQUIRE(program->remove_breakpoint(software(info.counted)));
  const long round = static_cast<long>(program.reg(tid, Reg::Rdi));
  program.step(tid, false, info.counted, info.counted + 8);
  const StopEvent event = program.next();
  CHECK(event.reason == StopReason::StepDone);
  CHECK(event.thread.tid == tid);
  CHECK(program.reg(tid, Reg::Rip) >= info.counted + 8);
  for (int i = 0; i < 200; ++i) {
    program.step(tid, i % 2 == 0);
    const StopEvent one = program.next();
    REQUIRE(one.reason == StopReason::StepDone);
    REQUIRE(one.thread.tid == tid);
  }
  CHECK(program.count() >= round);
}

TEST_CASE("steps of one thread leave the others their turn", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  REQUIRE(
      program->insert_breakpoint(software(info.fiber_work, {rdi_is(1)})));  // one that never sleeps
  program.go();
  const auto tid = program.next().thread.tid;
  REQUIRE(program->remove_breakpoint(software(info.fiber_work)));
  const long before = program.count();
  for (int i = 0; i < 50'000 && program.count() == before; ++i) {
    program.step(tid, false);
    REQUIRE(program.next().reason == StopReason::StepDone);
  }
  CHECK(program.count() != before);
}

TEST_CASE("a step that waits in the host does not keep the others", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto tid = program.thread_named("sleeper (host)");
  REQUIRE(tid != 0);
  program.step(tid, false);  // in pause(2)
  program.check_runs();
  program->interrupt({kKernelPid, kAll});
  CHECK(program.next().reason == StopReason::Interrupted);
  program->detach_all();
  program.check_free();
}

TEST_CASE("watchpoints and hardware breakpoints, and their limits", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  const Breakpoint watch{BreakpointKind::Write, kKernelPid, info.watched, 8, {}};
  REQUIRE(program->insert_breakpoint(watch));
  program.go();
  StopEvent event = program.next();
  CHECK(event.reason == StopReason::Watch);
  CHECK(event.address == info.watched);
  CHECK(program.peek<long>(info.watched) % 4 == 0);
  CHECK(program.peek<long>(info.watched) == program.count());
  REQUIRE(program->remove_breakpoint(watch));

  const Breakpoint access{BreakpointKind::Access, kKernelPid, info.count, 8, {}};
  REQUIRE(program->insert_breakpoint(access));
  program.go();
  event = program.next();
  CHECK(event.reason == StopReason::AccessWatch);
  CHECK(event.address == info.count);
  REQUIRE(program->remove_breakpoint(access));

  // Also in a thread that does not exist yet.
  const Breakpoint hard{BreakpointKind::Hardware,
                        kKernelPid,
                        info.counted,
                        1,
                        {expression({0x26, 0, kRdi, 0x22, 1, 0x02, 0x0e, 0x27})}};  // $rdi + 1 == 0
  REQUIRE(program->insert_breakpoint(hard));
  program.order(&traced::Info::make_thread);
  program.go();
  event = program.next();
  CHECK(event.reason == StopReason::HardBreakpoint);
  CHECK(event.thread.tid == program.thread_named("late (host)"));
  REQUIRE(program->remove_breakpoint(hard));

  const auto range = [&](std::uint32_t size, std::uint64_t offset = 0) {
    return Breakpoint{BreakpointKind::Write, kKernelPid, info.watched + offset, size, {}};
  };
  CHECK(program->insert_breakpoint(range(0)).is(Errno::Inval));
  CHECK(program->insert_breakpoint(range(64)).is(Errno::NoSpc));
  CHECK(program->insert_breakpoint({BreakpointKind::Hardware, kKernelPid, info.counted, 2, {}})
            .is(Errno::Inval));
  REQUIRE(program->insert_breakpoint(range(24)));  // three of four
  CHECK(program->insert_breakpoint(range(7, 25)).is(Errno::NoSpc));
  REQUIRE(program->insert_breakpoint(range(8, 32)));
  CHECK(program->insert_breakpoint(range(8, 64)).is(Errno::NoSpc));
  CHECK(program->last_words().find("four debug registers") != std::string::npos);
  program->detach_all();
  program.check_free();
}

TEST_CASE("faults and panics of kernel code", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  program.order(&traced::Info::panic);
  program.go();
  StopEvent event = program.next();
  CHECK(event.reason == StopReason::Signal);
  CHECK(event.signal == SIGABRT);
  CHECK(event.words == "guest kernel panic: the roof is on fire");
  // gdb passes the signal on, which was none.
  program.resume({{event.thread, ResumeKind::Continue, SIGABRT}, {{kKernelPid, kAll}}});
  program.check_runs();
  program->interrupt({kKernelPid, kAll});
  CHECK(program.next().reason == StopReason::Interrupted);

  program.order(&traced::Info::fault);
  program.go();
  event = program.next();
  CHECK(event.reason == StopReason::Signal);
  CHECK(event.signal == SIGSEGV);
  CHECK(event.thread.tid == program.thread_named("counter (host)"));
  auto info = program->siginfo(event.thread);
  REQUIRE(info);
  siginfo_t host;
  REQUIRE(info->size() == sizeof host);
  std::memcpy(&host, info->data(), sizeof host);
  CHECK(host.si_addr == nullptr);
  program.resume({{event.thread, ResumeKind::Continue, SIGSEGV}, {{kKernelPid, kAll}}});
  event = program.next();
  CHECK(event.reason == StopReason::ProcessKilled);
  CHECK(event.signal == SIGSEGV);
  CHECK(program->processes().empty());
}

TEST_CASE("the end and a new beginning", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  REQUIRE(program->insert_breakpoint(software(program.info().counted, {never()})));
  program.order(&traced::Info::run_again);
  program.go();
  StopEvent event = program.next();
  CHECK(event.reason == StopReason::Exec);
  CHECK(event.path.find("traced-program") != std::string::npos);
  program.go();
  event = program.next();
  CHECK(event.reason == StopReason::LibrariesChanged);
  CHECK(program->libraries(kKernelPid)->size() > 2);
  program->detach_all();
  program.set_address(program.read_address());
  program.check_free();

  REQUIRE(program->attach());
  program.order(&traced::Info::end);
  program.go();
  event = program.next();
  CHECK(event.reason == StopReason::ProcessExited);
  CHECK(event.number == 5);
}

TEST_CASE("a library that is loaded later is told", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto before = program->libraries(kKernelPid);
  REQUIRE(before);
  program.order(&traced::Info::load_plugin);
  program.go();
  CHECK(program.next().reason == StopReason::LibrariesChanged);
  const auto after = program->libraries(kKernelPid);
  REQUIRE(after);
  CHECK(after->size() > before->size());
  CHECK(program->executable(kKernelPid).value_or("").find("traced-program") != std::string::npos);
  auto file = program->open_file(0, after->back().name);
  REQUIRE(file);
  std::array<std::byte, 4> magic;
  REQUIRE((*file)->read_at(0, magic));
  CHECK(magic[1] == std::byte{'E'});
}

TEST_CASE("a child of vfork does not die of our breakpoints", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  REQUIRE(program->insert_breakpoint(software(program.info().spawned)));
  program.order(&traced::Info::spawn);
  program.go();
  for (int i = 0; i < 1000 && program.info().spawn_status == 0; ++i) {
    REQUIRE_FALSE(program.event(10));
  }
  CHECK(program.info().spawn_status == 1);
}

TEST_CASE("a function is called on a thread that sleeps in the host", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  const ThreadId id{kKernelPid, program.thread_named("sleeper (host)")};
  const auto saved = program->read_registers(id);
  REQUIRE(saved);
  CHECK_FALSE(saved->xstate.empty());
  Registers call = *saved;
  call.set(Reg::Rsp, (saved->get(Reg::Rsp) - 512) / 16 * 16 - 8);
  call.set(Reg::Rip, info.addition);
  call.set(Reg::Rdi, 20);
  call.set(Reg::Rsi, 22);
  call.set(Reg::OrigRax, ~std::uint64_t{0});
  REQUIRE(program->insert_breakpoint(software(info.spawned)));
  const std::uint64_t there = info.spawned;  // where the call returns to
  REQUIRE(
      program->write_memory(kKernelPid, call.get(Reg::Rsp), std::as_bytes(std::span(&there, 1))));
  REQUIRE(program->write_registers(id, call));
  program.resume({{id}});
  const StopEvent event = program.next();
  CHECK(event.thread == id);
  CHECK(event.reason == StopReason::SoftBreakpoint);
  CHECK(program.reg(id.tid, Reg::Rax) == 42);
  REQUIRE(program->write_registers(id, *saved));
  REQUIRE(program->remove_breakpoint(software(info.spawned)));
  program.go();
  CHECK_FALSE(program.event(50));
  program->interrupt({kKernelPid, kAll});
  program.next();
  CHECK(program.reg(id.tid, Reg::Rip) == saved->get(Reg::Rip));
  CHECK(program.reg(id.tid, Reg::OrigRax) == saved->get(Reg::OrigRax));
}

TEST_CASE("a kernel thread is stepped across switches", "[kernel_target]") {
  const bool alone = GENERATE(true, false);
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  REQUIRE(program->insert_breakpoint(software(info.fiber_work, {rdi_is(1)})));
  program.go();
  const StopEvent event = program.next();
  REQUIRE(event.thread.tid == 2);
  REQUIRE(program->remove_breakpoint(software(info.fiber_work)));
  const std::uint64_t rounds = info.fibers[1].rounds;
  const std::uint64_t low = info.fibers[1].stack_low, high = info.fibers[1].stack_high;
  for (int i = 0; i < 300; ++i) {
    program.step(2, alone);
    const StopEvent one = program.next();
    REQUIRE(one.reason == StopReason::StepDone);
    REQUIRE(one.thread.tid == 2);
    const auto rsp = program.reg(2, Reg::Rsp);
    REQUIRE(rsp > low);
    REQUIRE(rsp <= high);
  }
  CHECK(program.info().fibers[1].rounds > rounds + 2);
  program->detach_all();
  program.check_free();
}

TEST_CASE("a kernel thread that runs alone may sleep", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  REQUIRE(program->insert_breakpoint(software(info.fiber_work, {rdi_is(0)})));
  program.go();
  REQUIRE(program.next().thread.tid == 1);
  for (int i = 0; i < 5; ++i) {
    REQUIRE(program->remove_breakpoint(software(info.fiber_work)));
    program.step(1, true);
    REQUIRE(program.next().reason == StopReason::StepDone);
    REQUIRE(program->insert_breakpoint(software(info.fiber_work, {rdi_is(0)})));
    const auto before = program.info().fibers[0].rounds;
    program.resume({{{kKernelPid, 1}}});
    const StopEvent event = program.next();
    REQUIRE(event.reason == StopReason::SoftBreakpoint);
    REQUIRE(event.thread.tid == 1);
    CHECK(program.info().fibers[0].rounds == before + 1);
  }
}

TEST_CASE("a step of a sleeping kernel thread is done when it runs again", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  const auto info = program.info();
  const auto label = program.peek(info.switched_address);
  for (int i = 0; i < 200 && program.info().fibers[3].state != traced::kSleeping; ++i) {
    program.go();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    program->interrupt({kKernelPid, kAll});
    program.next();
  }
  CHECK(program.reg(4, Reg::Rip) == label);
  Registers other;
  other.set(Reg::Rax, 1);
  CHECK(program->write_registers({kKernelPid, 4}, other).is(Errno::OpNotSupp));
  CHECK(program->last_words().find("not on a vCPU") != std::string::npos);
  const auto rsp = program.reg(4, Reg::Rsp);
  program.step(4, false);
  CHECK_FALSE(program.event(50));
  program.order(&traced::Info::wake_sleeper);
  const StopEvent event = program.next();
  CHECK(event.reason == StopReason::StepDone);
  CHECK(event.thread.tid == 4);
  CHECK(program.reg(4, Reg::Rsp) == rsp);
  CHECK(program.reg(4, Reg::Rip) > label);
  CHECK(program.reg(4, Reg::Rip) < label + 8);
}

TEST_CASE("non-stop: only the asked thread stands", "[kernel_target]") {
  Program program(true);
  REQUIRE(program->attach());
  program.go();
  program.check_runs();
  // Also one that is not on a vCPU: it does not run when its turn comes.
  program->interrupt({kKernelPid, 1});
  const StopEvent event = program.next();
  CHECK(event.reason == StopReason::Interrupted);
  CHECK(event.signal == 0);
  CHECK(event.thread.tid == 1);
  CHECK_FALSE(program->hard_stopped());
  const auto before = program.info();
  const auto later = [&] {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (program.info().fibers[1].rounds < before.fibers[1].rounds + 20 &&
           std::chrono::steady_clock::now() < end) {
      REQUIRE_FALSE(program.event(5));
    }
    return program.info();
  };
  auto after = later();
  CHECK(after.fibers[0].rounds <= before.fibers[0].rounds + 1);
  CHECK(after.fibers[1].rounds >= before.fibers[1].rounds + 20);
  program.check_runs();
  // A breakpoint stops one thread more.
  REQUIRE(program->insert_breakpoint(software(program.info().counted)));
  const StopEvent hit = program.next();
  CHECK(hit.reason == StopReason::SoftBreakpoint);
  CHECK(hit.thread.tid == program.thread_named("counter (host)"));
  REQUIRE(program->remove_breakpoint(software(program.info().counted)));
  program.resume({{{kKernelPid, 1}}});
  for (int i = 0; i < 2000 && program.info().fibers[0].rounds < after.fibers[0].rounds + 3; ++i) {
    program.event(5);
  }
  CHECK(program.info().fibers[0].rounds >= after.fibers[0].rounds + 3);
  program.step(hit.thread.tid, true);
  CHECK(program.next().reason == StopReason::StepDone);
  program->detach_all();
  program.check_free();
}

TEST_CASE("pause shows a moment and is not an event", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  program.go();
  program->pause();
  CHECK(program->hard_stopped());
  CHECK(program->view() != nullptr);
  program->unpause();
  CHECK_FALSE(program->hard_stopped());
  program.check_runs();
  CHECK_FALSE(program.event(10));
}

TEST_CASE("a child of vfork that comes in a pause goes on after it", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  program.order(&traced::Info::spawn);
  program.go();
  // It is seen no earlier than by the pause, which finds its parent in vfork(2).
  for (int i = 0; i < 5000 && !program.stands_for_tracer(); ++i) ::usleep(1000);
  REQUIRE(program.stands_for_tracer());
  program->pause();
  program->unpause();
  for (int i = 0; i < 1000 && program.info().spawn_status == 0; ++i) {
    REQUIRE_FALSE(program.event(10));
  }
  CHECK(program.info().spawn_status == 1);
}

TEST_CASE("kill ends the program", "[kernel_target]") {
  Program program;
  REQUIRE(program->attach());
  REQUIRE(program->kill(kKernelPid));
  int status = 0;
  CHECK(::waitpid(program.pid(), &status, 0) == program.pid());
  CHECK(WIFSIGNALED(status));
  program.reaped();
}
