// The parts of the engine that need no host process: layout, governors, order queue, extended
// state.
#include <signal.h>
#include <ucontext.h>

#include <catch2/catch.hpp>
#include <vector>

#include "engine/deaf_watch.hpp"
#include "engine/order_queue.hpp"
#include "engine/spin_governor.hpp"
#include "engine/stub_protocol.hpp"
#include "engine/xstate.hpp"

using namespace cowbird;

TEST_CASE("the host's signal frame has the layout that the protocol says", "[engine]") {
  using stub::HostFrame;
  const auto gregs = offsetof(ucontext_t, uc_mcontext.gregs);
  CHECK(offsetof(HostFrame, stack_base) == offsetof(ucontext_t, uc_stack.ss_sp));
  CHECK(offsetof(HostFrame, stack_flags) == offsetof(ucontext_t, uc_stack.ss_flags));
  CHECK(offsetof(HostFrame, stack_size) == offsetof(ucontext_t, uc_stack.ss_size));
  CHECK(offsetof(HostFrame, r8) == gregs + 8 * REG_R8);
  CHECK(offsetof(HostFrame, rdi) == gregs + 8 * REG_RDI);
  CHECK(offsetof(HostFrame, rsi) == gregs + 8 * REG_RSI);
  CHECK(offsetof(HostFrame, rbp) == gregs + 8 * REG_RBP);
  CHECK(offsetof(HostFrame, rbx) == gregs + 8 * REG_RBX);
  CHECK(offsetof(HostFrame, rdx) == gregs + 8 * REG_RDX);
  CHECK(offsetof(HostFrame, rax) == gregs + 8 * REG_RAX);
  CHECK(offsetof(HostFrame, rcx) == gregs + 8 * REG_RCX);
  CHECK(offsetof(HostFrame, rsp) == gregs + 8 * REG_RSP);
  CHECK(offsetof(HostFrame, rip) == gregs + 8 * REG_RIP);
  CHECK(offsetof(HostFrame, eflags) == gregs + 8 * REG_EFL);
  CHECK(offsetof(HostFrame, cs) == gregs + 8 * REG_CSGSFS);
  CHECK(offsetof(HostFrame, error) == gregs + 8 * REG_ERR);
  CHECK(offsetof(HostFrame, trap_number) == gregs + 8 * REG_TRAPNO);
  CHECK(offsetof(HostFrame, cr2) == gregs + 8 * REG_CR2);
  CHECK(offsetof(HostFrame, fp_state) == offsetof(ucontext_t, uc_mcontext.fpregs));
  CHECK(offsetof(HostFrame, signal_mask) == offsetof(ucontext_t, uc_sigmask));
  const std::size_t info = offsetof(HostFrame, signal);
  CHECK(offsetof(HostFrame, code) == info + offsetof(siginfo_t, si_code));
  CHECK(offsetof(HostFrame, info_address) == info + offsetof(siginfo_t, si_addr));
  CHECK(offsetof(HostFrame, info_syscall) == info + offsetof(siginfo_t, si_syscall));
  CHECK(offsetof(HostFrame, info_arch) == info + offsetof(siginfo_t, si_arch));
  // Each writer has cache lines of its own.
  CHECK(offsetof(stub::Mailbox, to_kernel) / 64 != offsetof(stub::Mailbox, to_guest) / 64);
  CHECK(offsetof(stub::Mailbox, park_request) / 64 == offsetof(stub::Mailbox, to_guest) / 64);
  CHECK(offsetof(stub::Mailbox, entry) / 64 == offsetof(stub::Mailbox, to_kernel) / 64);
  CHECK(stub::kFutexLow >= kUserMax);
  CHECK(stub::kTextBase >= kUserMax);
}

TEST_CASE("the spin budget grows with success and ends with failure", "[engine]") {
  SpinGovernor governor;
  CHECK(governor.begin_wait() == SpinGovernor::kStartNs);
  for (int i = 0; i < 200; ++i) {
    CHECK(governor.begin_wait() > 0);
    governor.won(1000);
  }
  CHECK(governor.begin_wait() == SpinGovernor::kFloorNs);
  governor.won(30'000);
  CHECK(governor.begin_wait() == SpinGovernor::kMaxNs);
  while (governor.begin_wait() > 0) governor.lost();
  // Parked now; trials become rarer.
  const auto waits_until_trial = [&] {
    unsigned waits = 1;
    while (governor.begin_wait() == 0) ++waits;
    return waits;
  };
  const unsigned first = waits_until_trial();
  while (governor.begin_wait() > 0) governor.lost();
  const unsigned second = waits_until_trial();
  CHECK(second > first);
  for (int i = 0; i < 20; ++i) {
    while (governor.begin_wait() > 0) governor.lost();
  }
  CHECK(waits_until_trial() <= SpinGovernor::kMaxBackoff + 1);
}

TEST_CASE("the faster kind of hand-over is found and kept", "[engine]") {
  HandOverGovernor governor;
  std::int64_t one = 6000, two = 2000;
  const auto run = [&](int count, bool room = true) {
    int spun = 0;
    for (int i = 0; i < count; ++i) {
      const HandOver mode = governor.begin(room);
      spun += mode == HandOver::TwoCpus;
      governor.end(mode == HandOver::TwoCpus ? two : one);
    }
    return spun;
  };
  SECTION("a short program is never moved") { CHECK(run(50) == 0); }
  SECTION("spinning wins") {
    run(500);
    CHECK(run(10000) > 9000);
    SECTION("until it gets bad") {
      two = 60'000;
      run(200);
      CHECK(run(500) < 150);
    }
    SECTION("until others need the processor") {
      governor.contended();
      CHECK(run(10000) == 0);
    }
    SECTION("without room it is not done") { CHECK(run(1000, false) == 0); }
  }
  SECTION("little gain is not worth a processor") {
    two = 5800;
    run(500);
    CHECK(run(10000) < 1000);
  }
  SECTION("long computing says nothing") {
    one = 5'000'000, two = 4'000'000;
    run(500);
    CHECK(run(10000) < 1000);
  }
}

namespace {

std::vector<Order> drain(OrderQueue &queue) {
  std::vector<Order> orders;
  for (; !queue.empty(); queue.pop()) orders.push_back(queue.front());
  return orders;
}
constexpr Prot kRw = Prot::Read | Prot::Write;

}  // namespace

TEST_CASE("a guest thread is deaf when it runs or sleeps, not when it waits", "[engine]") {
  constexpr std::uint64_t kLookNs = 100'000'000;
  DeafWatch watch;
  SECTION("it has no processor") {
    for (int i = 0; i < 1000; ++i) CHECK_FALSE(watch.look(false, 5000));
  }
  SECTION("its processor stood still, and the host counted that") {
    CHECK_FALSE(watch.look(false, 0));
    for (int i = 0; i < 1000; ++i) CHECK_FALSE(watch.look(false, 50 * kLookNs));
  }
  SECTION("it sleeps") {
    for (unsigned i = 1; i < DeafWatch::kLooks; ++i) CHECK_FALSE(watch.look(true, 0));
    CHECK(watch.look(true, 0));
  }
  SECTION("it sleeps and wakes") {
    int looks = 1;
    while (!watch.look(looks % 2 == 0, 0)) REQUIRE(++looks < 100);
  }
  SECTION("it runs") {
    for (unsigned i = 0; i < DeafWatch::kLooks; ++i) CHECK_FALSE(watch.look(false, i * kLookNs));
    CHECK(watch.look(false, DeafWatch::kLooks * kLookNs));
  }
  SECTION("it runs where many others do") {
    std::uint64_t ran = 0;
    while (!watch.look(false, ran)) REQUIRE((ran += 3'000'000) < 100 * kLookNs);
  }
  SECTION("it listens now and then") {
    for (unsigned i = 1; i < DeafWatch::kLooks; ++i) watch.look(true, 0);
    watch.heard();
    CHECK_FALSE(watch.look(true, 0));
  }
}

TEST_CASE("neighbouring orders are joined", "[engine]") {
  OrderQueue queue(10, 1000);
  queue.map(0x10000, 5, 2, kRw, true);
  queue.map(0x12000, 7, 1, kRw, true);
  const SyncPoint point = queue.last_point();
  auto orders = drain(queue);
  REQUIRE(orders.size() == 1);
  CHECK(orders[0].pages == 3);
  CHECK(orders[0].point == point);
  CHECK(queue.mapped_runs() == 1);
  queue.map(0x13000, 9, 1, kRw, true);          // another frame
  queue.map(0x14000, 10, 1, Prot::Read, true);  // another protection
  CHECK(drain(queue).size() == 2);
  CHECK(queue.mapped_runs() == 3);
}

TEST_CASE("orders that change nothing are not given", "[engine]") {
  OrderQueue queue(0, 1000);
  queue.unmap(0x10000, 100);
  queue.protect(0x10000, 100, Prot::Read);
  CHECK(queue.empty());
  CHECK(queue.last_point() == 0);
  queue.map(0x20000, 1, 4, kRw, false);
  drain(queue);
  queue.protect(0x20000, 4, kRw);
  CHECK(queue.empty());
  queue.unmap(0x10000, 1000);
  const auto orders = drain(queue);
  REQUIRE(orders.size() == 1);
  CHECK(orders[0].address == 0x20000);
  CHECK(orders[0].pages == 4);
  CHECK(queue.mapped_runs() == 0);
}

TEST_CASE("protection goes around holes", "[engine]") {
  OrderQueue queue(0, 1000);
  queue.map(0x20000, 1, 2, kRw, false);
  queue.map(0x22000, 50, 2, kRw, false);  // adjacent, another frame
  queue.map(0x30000, 9, 1, kRw, false);   // behind a hole
  drain(queue);
  queue.protect(0x21000, 100, Prot::Read);
  const auto orders = drain(queue);
  REQUIRE(orders.size() == 2);
  CHECK(orders[0].address == 0x21000);
  CHECK(orders[0].pages == 3);
  CHECK(orders[1].address == 0x30000);
  CHECK(orders[1].pages == 1);
  queue.protect(0x20000, 1, Prot::None);
  CHECK(drain(queue)[0].kind == Order::Kind::Unmap);
}

TEST_CASE("a replaced middle splits its run", "[engine]") {
  OrderQueue queue(0, 1000);
  queue.map(0x20000, 1, 8, kRw, false);
  queue.map(0x22000, 100, 1, kRw, false);
  CHECK(queue.mapped_runs() == 3);
  queue.unmap(0x20000, 3);
  CHECK(queue.mapped_runs() == 1);
}

TEST_CASE("too much becomes one order that drops all; threads stay", "[engine]") {
  OrderQueue queue(0, 64);
  queue.new_thread(3);
  for (std::uint64_t i = 0; i < 65; ++i) queue.map(0x100000 + i * 0x2000, i, 1, kRw, false);
  const SyncPoint point = queue.last_point();
  CHECK(queue.mapped_runs() == 0);
  const auto orders = drain(queue);
  REQUIRE(orders.size() == 3);
  CHECK(orders[0].kind == Order::Kind::MapMailbox);
  CHECK(orders[1].kind == Order::Kind::NewThread);
  CHECK(orders[2].kind == Order::Kind::UnmapAll);
  CHECK(orders[2].point == point);
}

TEST_CASE("extended state is checked and cleaned", "[engine]") {
  const auto &layout = XstateLayout::host();
  std::vector<std::byte> state(layout.size());
  layout.write_initial(state);
  CHECK(layout.check(state).ok());
  const auto poke = [&](std::size_t at, std::byte value) {
    auto copy = state;
    copy[at] = value;
    return copy;
  };
  CHECK(layout.check(poke(27, std::byte{0xff})).is(Errno::Inval));   // MXCSR, reserved bits
  CHECK(layout.check(poke(519, std::byte{0x80})).is(Errno::Inval));  // XCOMP bit 63 in XSTATE_BV
  CHECK(layout.check(poke(527, std::byte{0x80})).is(Errno::Inval));  // compacted form
  CHECK(layout.check(poke(540, std::byte{1})).is(Errno::Inval));     // reserved header bytes
  CHECK(layout.check(std::span(state).first(512)).is(Errno::Inval));
  std::vector<std::byte> garbage(layout.size(), std::byte{0xff});
  layout.sanitise(garbage);
  CHECK(layout.check(garbage).ok());
}
