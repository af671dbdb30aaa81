// The debugger's view of the kernel's structures, looking at this very process while the big kernel
// lock keeps it still.
#include "boot/debug_view.hpp"

#include <elf.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <map>
#include <thread>

#include "boot/gdb_device.hpp"
#include "debug/view/elf_symbols.hpp"
#include "debug/view/kernel_view.hpp"
#include "engine/platform.hpp"
#include "sched/clock.hpp"
#include "sched/internals.hpp"
#include "unit/sched_support.hpp"

using namespace cowbird;
using debug::KernelThread;
using debug::KernelThreadState;
using debug::Reg;

namespace {

// This process, read as another one is, so that a bad address is an error. Words can be replaced.
class SelfReader final : public debug::MemoryReader {
 public:
  Result<void> read(std::uint64_t address, std::span<std::byte> out) override {
    ++reads;
    iovec to{out.data(), out.size()};
    iovec from{reinterpret_cast<void *>(address), out.size()};
    if (::process_vm_readv(::getpid(), &to, 1, &from, 1, 0) != static_cast<ssize_t>(out.size()))
      return Err(Errno::Fault);
    for (const auto &[at, word] : replaced) {
      if (at < address || at + sizeof word > address + out.size()) continue;
      std::memcpy(out.data() + (at - address), &word, sizeof word);
    }
    return {};
  }
  void read_pieces(std::span<Piece> pieces) override {
    const unsigned before = reads;
    MemoryReader::read_pieces(pieces);
    reads = before + 1;
  }
  std::map<std::uint64_t, std::uint64_t> replaced;
  unsigned reads = 0;
};

struct Fixture {
  SelfReader reader;
  std::unique_ptr<debug::KernelView> view;
  explicit Fixture() {
    auto symbols = debug::ElfSymbols::open("/proc/self/exe");
    REQUIRE(symbols);
    const std::uint64_t base = ::getauxval(AT_ENTRY) - (*symbols)->entry();
    std::string why;
    auto opened = debug::KernelView::open(reader, "/proc/self/exe", base, why);
    INFO(why);
    REQUIRE(opened);
    view = std::move(*opened);
  }
  const KernelThread *named(const std::string &name) const {
    for (const auto &thread : view->threads()) {
      if (thread.name == name) return &thread;
    }
    return nullptr;
  }
};

// Kernel threads that sleep until the end of the test.
class Sleepers {
 public:
  void add(const std::string &name, SleepMode mode = SleepMode::Interruptible) {
    auto thread = Thread::spawn(name, [this, mode] {
      ++asleep_;
      [[maybe_unused]] const auto slept = wait_event(
          queue_, [this] { return done_; }, mode, "test_sleep");
      --asleep_;
    });
    KASSERT(thread);
    ++count_;
  }
  void wait_until_asleep() {
    for (;;) {
      BklGuard guard;
      if (asleep_ == count_) return;
    }
  }
  ~Sleepers() {
    {
      BklGuard guard;
      done_ = true;
      queue_.wake_all();
    }
    for (;;) {
      BklGuard guard;
      if (asleep_ == 0) return;
    }
  }

 private:
  WaitQueue queue_;
  bool done_ = false;
  unsigned asleep_ = 0, count_ = 0;
};

class SpinningContext final : public Context {
 public:
  std::atomic<bool> entered{false}, leave{false};
  Trap run() override {
    entered.store(true);
    while (!leave.load()) ::usleep(100);
    return {};
  }
  void interrupt() override {}
  void park() override {}
  std::size_t get_xstate(std::span<std::byte>) override { return 0; }
  Result<void> set_xstate(std::span<const std::byte>) override { return {}; }
  void reset_xstate() override {}
};

}  // namespace

TEST_CASE("the view finds its table, and says what is wrong with a program that has none") {
  SelfReader reader;
  std::string why;
  CHECK(debug::KernelView::open(reader, "/bin/true", 0, why).is(Errno::NoEnt));
  CHECK_THAT(why, Catch::Matchers::Contains("cowbird_debug_view") ||
                      Catch::Matchers::Contains("cannot be read"));
  CHECK_FALSE(debug::KernelView::open(reader, "/nowhere", 0, why).ok());
  CHECK_THAT(why, Catch::Matchers::Contains("/nowhere"));
  // A base that is wrong: what is there is no table.
  CHECK_FALSE(debug::KernelView::open(reader, "/proc/self/exe", 0x1000, why).ok());
}

TEST_CASE("a table of another version is refused in words") {
  Fixture fixture;
  SelfReader reader;
  const auto at = reinterpret_cast<std::uint64_t>(&cowbird_debug_view) + 8;
  reader.replaced[at] = (static_cast<std::uint64_t>(sizeof(debug_view::Table)) << 32) | 999;
  auto symbols = debug::ElfSymbols::open("/proc/self/exe");
  REQUIRE(symbols);
  std::string why;
  const auto opened = debug::KernelView::open(reader, "/proc/self/exe",
                                              ::getauxval(AT_ENTRY) - (*symbols)->entry(), why);
  CHECK(opened.is(Errno::OpNotSupp));
  CHECK_THAT(why, Catch::Matchers::Contains("version 999"));
}

TEST_CASE("threads that sleep have a name, a place and registers") {
  Fixture fixture;
  test::Machine machine(1);
  Sleepers sleepers;
  {
    BklGuard guard;
    sleepers.add("sleeper");
    sleepers.add("a name of more than fifteen characters", SleepMode::Uninterruptible);
  }
  sleepers.wait_until_asleep();
  BklGuard guard;
  REQUIRE(fixture.view->refresh());
  CHECK(fixture.view->damage() == 0);

  const KernelThread *thread = fixture.named("sleeper");
  REQUIRE(thread);
  CHECK(thread->state == KernelThreadState::Sleeping);
  CHECK(thread->wait_channel == "test_sleep");
  CHECK(thread->vcpu == -1);
  CHECK(thread->pid == 0);
  CHECK_FALSE(thread->syscall);
  CHECK(describe_state(*thread) == "sleeping in test_sleep");
  CHECK(fixture.view->find(thread->tid) == thread);
  CHECK(fixture.view->find_by_stack(thread->saved_rsp) == thread);
  CHECK(fixture.view->find_by_stack(reinterpret_cast<std::uint64_t>(&machine)) == nullptr);

  const auto registers = fixture.view->saved_registers(*thread);
  REQUIRE(registers);
  const std::uint64_t pc = registers->get(Reg::Rip);
  const std::uint64_t function = fixture.view->symbol("cowbird_switch_context");
  CHECK(function != 0);
  CHECK(pc > function);
  CHECK(pc < function + 100);
  CHECK(registers->get(Reg::Rsp) >= thread->stack_low);
  CHECK(registers->get(Reg::Rsp) < thread->stack_high);
  CHECK(registers->has(Reg::Rbx));
  CHECK_FALSE(registers->has(Reg::Rax));
  CHECK(fixture.view->user_registers(*thread).is(Errno::Inval));

  const KernelThread *other = fixture.named("a name of more than fifteen characters");
  REQUIRE(other);
  CHECK(other->state == KernelThreadState::Uninterruptible);
  CHECK(other->tid != thread->tid);
}

TEST_CASE("a thread that was just made is ready at its entry") {
  Fixture fixture;
  test::Machine machine(1);
  std::atomic<bool> ran{false};
  {
    // The vCPU cannot take it while the lock is ours.
    BklGuard guard;
    REQUIRE(Thread::spawn("newborn", [&ran] { ran.store(true); }));
    REQUIRE(fixture.view->refresh());
    const KernelThread *thread = fixture.named("newborn");
    REQUIRE(thread);
    CHECK(thread->state == KernelThreadState::Ready);
    CHECK(describe_state(*thread) == "ready");
    const auto registers = fixture.view->saved_registers(*thread);
    REQUIRE(registers);
    // The frame above: what switch_context returns to.
    std::uint64_t return_address = 0;
    REQUIRE(fixture.reader.read(registers->get(Reg::Rsp) + 56,
                                std::as_writable_bytes(std::span(&return_address, 1))));
    CHECK(return_address - 1 == fixture.view->symbol("cowbird_thread_entry"));
  }
  while (!ran.load()) ::usleep(100);
  for (bool gone = false; !gone; ::usleep(100)) {
    BklGuard guard;
    REQUIRE(fixture.view->refresh());
    gone = fixture.named("newborn") == nullptr;
  }
}

TEST_CASE("threads that run are on a vCPU, in kernel or guest code") {
  Fixture fixture;
  SpinningContext guest;  // outlives the machine, which interrupts it when it stops
  test::Machine machine(2);
  std::atomic<bool> waiting{false}, go{false};
  {
    BklGuard guard;
    REQUIRE(
        Thread::spawn("in user", [&] { scheduler::run_user(guest, [&] { return guest.run(); }); }));
    REQUIRE(Thread::spawn("in kernel", [&] {
      BklReleased released;
      waiting.store(true);
      while (!go.load()) ::usleep(100);
    }));
  }
  while (!waiting.load() || !guest.entered.load()) ::usleep(100);
  {
    BklGuard guard;
    REQUIRE(fixture.view->refresh());
    const KernelThread *user = fixture.named("in user");
    const KernelThread *kernel = fixture.named("in kernel");
    REQUIRE(user);
    REQUIRE(kernel);
    CHECK(user->state == KernelThreadState::Running);
    CHECK(user->in_user);
    CHECK(kernel->state == KernelThreadState::Running);
    CHECK_FALSE(kernel->in_user);
    CHECK(user->vcpu + kernel->vcpu == 1);  // 0 and 1
    CHECK(describe_state(*user) == "running guest code on vcpu " + std::to_string(user->vcpu));
    CHECK(fixture.view->saved_registers(*user).is(Errno::Inval));
    REQUIRE(fixture.view->vcpus().size() == 2);
    for (const auto &vcpu : fixture.view->vcpus()) {
      CHECK(vcpu.current != 0);
      CHECK(vcpu.pthread != 0);
      CHECK(fixture.view->idle_registers(vcpu).ok());
    }
  }
  guest.leave.store(true);
  go.store(true);
}

TEST_CASE("many threads cost few reads once they are known") {
  Fixture fixture;
  test::Machine machine(1);
  Sleepers sleepers;
  {
    BklGuard guard;
    for (int i = 0; i < 300; ++i) sleepers.add("many/" + std::to_string(i));
  }
  sleepers.wait_until_asleep();
  BklGuard guard;
  REQUIRE(fixture.view->refresh());
  CHECK(fixture.view->threads().size() == 300);
  fixture.reader.reads = 0;
  REQUIRE(fixture.view->refresh());
  CHECK(fixture.view->threads().size() == 300);
  CHECK(fixture.view->damage() == 0);
  CHECK(fixture.reader.reads < 20);
}

TEST_CASE("damaged structures end the walk and are counted") {
  Fixture fixture;
  test::Machine machine(1);
  Sleepers sleepers;
  {
    BklGuard guard;
    for (int i = 0; i < 5; ++i) sleepers.add("damaged/" + std::to_string(i));
  }
  sleepers.wait_until_asleep();
  BklGuard guard;
  REQUIRE(fixture.view->refresh());
  REQUIRE(fixture.view->threads().size() == 5);
  const auto &layout = cowbird_debug_view;
  const std::uint64_t third = fixture.view->threads()[2].address;
  const std::uint64_t next = third + layout.thread.all_link + layout.list.next;

  SECTION("a list that runs in a ring") {
    fixture.reader.replaced[next] = third + layout.thread.all_link;
  }
  SECTION("a list that ends nowhere") { fixture.reader.replaced[next] = 0; }
  SECTION("a list that leaves readable memory") { fixture.reader.replaced[next] = 0x10; }
  REQUIRE(fixture.view->refresh());
  CHECK(fixture.view->threads().size() == 3);
  CHECK(fixture.view->damage() > 0);
  fixture.reader.replaced.clear();
  REQUIRE(fixture.view->refresh());
  CHECK(fixture.view->threads().size() == 5);
  CHECK(fixture.view->damage() == 0);
}

TEST_CASE("damaged members spoil only their thread") {
  Fixture fixture;
  test::Machine machine(1);
  Sleepers sleepers;
  {
    BklGuard guard;
    for (int i = 0; i < 5; ++i) sleepers.add("spoilt/" + std::to_string(i));
  }
  sleepers.wait_until_asleep();
  BklGuard guard;
  REQUIRE(fixture.view->refresh());
  const auto &layout = cowbird_debug_view;
  const std::uint64_t third = fixture.view->threads()[2].address;
  std::size_t left = 5;
  SECTION("no scheduler's side") {
    fixture.reader.replaced[third + layout.thread.sched] = 8;
    left = 4;
  }
  SECTION("a name of 1 EiB at nowhere") {
    fixture.reader.replaced[third + layout.thread.name] = 16;
    fixture.reader.replaced[third + layout.thread.name + 8] = 1ull << 60;
  }
  SECTION("a wait channel at nowhere") {
    fixture.reader.replaced[third + layout.thread.wait_channel] = 16;
  }
  REQUIRE(fixture.view->refresh());
  CHECK(fixture.view->threads().size() == left);
  CHECK(fixture.view->damage() > 0);
}

TEST_CASE("a saved stack pointer that is outside its stack gives no registers") {
  Fixture fixture;
  test::Machine machine(1);
  Sleepers sleepers;
  {
    BklGuard guard;
    sleepers.add("astray");
  }
  sleepers.wait_until_asleep();
  BklGuard guard;
  REQUIRE(fixture.view->refresh());
  KernelThread thread = fixture.view->threads().at(0);
  CHECK(fixture.view->saved_registers(thread).ok());
  thread.saved_rsp = thread.stack_high - 8;
  CHECK(fixture.view->saved_registers(thread).is(Errno::Fault));
  thread.saved_rsp = 0;
  CHECK(fixture.view->saved_registers(thread).is(Errno::Fault));
}

TEST_CASE("the holder of the big kernel lock is known") {
  Fixture fixture;
  CHECK(fixture.view->big_kernel_lock_owner() == 0);
  {
    BklGuard guard;
    CHECK(fixture.view->big_kernel_lock_owner() == ::syscall(SYS_gettid));
    std::thread([&] {
      CHECK(fixture.view->big_kernel_lock_owner().value_or(0) != ::syscall(SYS_gettid));
    }).join();
  }
  CHECK(fixture.view->big_kernel_lock_owner() == 0);
}

TEST_CASE("the guest's clock is put back by the time of a halt") {
  Fixture fixture;
  BklGuard guard;
  constexpr std::int64_t kHour = 3600ll * 1'000'000'000;
  const std::uint32_t halts = clock::halts();
  const std::int64_t before = clock::monotonic_ns();
  const auto apply = [&](std::int64_t ns) {
    const auto patches = fixture.view->clock_patch(0, ns);
    REQUIRE(patches);
    for (const auto &patch : *patches) {
      std::memcpy(reinterpret_cast<void *>(patch.address), patch.bytes.data(), patch.bytes.size());
    }
  };
  apply(kHour);
  CHECK(clock::monotonic_ns() < before);
  CHECK(clock::halts() == halts + 1);
  apply(-kHour);
  const std::int64_t after = clock::monotonic_ns();
  CHECK(after >= before);
  CHECK(after - before < kHour / 2);

  // A clock that the kernel itself has stopped stays where it is.
  clock::stop();
  const std::int64_t still = clock::monotonic_ns();
  apply(kHour);
  CHECK(clock::monotonic_ns() == still);
  clock::go();
  CHECK(clock::monotonic_ns() - still < kHour / 2);
}

TEST_CASE("a reading of the clock ends though each of its steps is a halt") {
  static Fixture *fixture = nullptr;
  Fixture here;
  fixture = &here;
  BklGuard guard;
  static std::int64_t host = 0;
  static bool halts = false;
  host = 1000;
  halts = false;
  clock::set_source([] {
    if (!halts) return host;
    host += 50;
    const auto patches = fixture->view->clock_patch(host, host + 1'000'000);
    REQUIRE(patches);
    for (const auto &patch : *patches) {
      std::memcpy(reinterpret_cast<void *>(patch.address), patch.bytes.data(), patch.bytes.size());
    }
    return host += 1'000'000;
  });
  CHECK(clock::monotonic_ns() == 1000);
  halts = true;
  // What each reading sees is the time that the guest has come to: without the halts, and ever
  // later.
  const std::int64_t first = clock::monotonic_ns();
  const std::int64_t second = clock::monotonic_ns();
  CHECK(first < 2000);
  CHECK(second == first + 50);
  clock::set_source(nullptr);
}

TEST_CASE("the gdb device says what it has and what it takes") {
  test::Machine machine(1);
  std::unique_ptr<GdbServer> server;
  GdbDevice device(server, nullptr);
  machine.run([&] {
    CHECK(device.query("").text == "none");
    CHECK_FALSE(device.query("0").ok);
    CHECK_FALSE(device.remove("").ok);
    CHECK_FALSE(device.configure("1", "tcp:1234").ok);
    for (const char *wrong : {"", "1234", "stdio", "unix:relative"}) {
      const DeviceReply reply = device.configure("", wrong);
      CHECK_FALSE(reply.ok);
      CHECK_THAT(reply.text, Catch::Matchers::Contains("write gdb=tcp:127.0.0.1:1234"));
    }
    // This program is no gdb server and says nothing.
    const DeviceReply reply = device.configure("", "tcp:127.0.0.1:0");
    CHECK_FALSE(reply.ok);
    CHECK_THAT(reply.text, Catch::Matchers::Contains("did not begin to listen"));
    CHECK(device.query("").text == "none");
  });
}
