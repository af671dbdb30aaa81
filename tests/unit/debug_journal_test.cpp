// What the kernel's handler of SIGTRAP makes of the remains of a debugger.
#include "boot/debug_journal.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using cowbird::boot::outlive_debugger;

namespace {

constexpr unsigned char kNop = 0x90, kInt3 = 0xcc;

struct Trap {
  siginfo_t info{};
  ucontext_t context{};

  // As after an int3 at `code`.
  explicit Trap(const volatile unsigned char *code, int si_code = SI_KERNEL) {
    info.si_signo = SIGTRAP;
    info.si_code = si_code;
    context.uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(code) + 1;
  }
  const unsigned char *at() const {
    return reinterpret_cast<const unsigned char *>(context.uc_mcontext.gregs[REG_RIP]);
  }
};

}  // namespace

TEST_CASE("a breakpoint of the journal is taken out and its instruction executed") {
  unsigned char code[2] = {kInt3, kNop}, other = kInt3;
  auto &entries = cowbird_debug_journal.entries;
  entries[3] = {reinterpret_cast<std::uint64_t>(&code[0]), kNop};
  entries[9] = {reinterpret_cast<std::uint64_t>(&other), kNop};
  for (int thread = 0; thread < 2; ++thread) {  // the second one met it before it was out
    Trap trap(code);
    CHECK(outlive_debugger(trap.info, trap.context));
    CHECK(trap.at() == code);
  }
  CHECK(code[0] == kNop);
  CHECK(other == kNop);
  entries[3] = entries[9] = {};
}

TEST_CASE("a breakpoint that the next debugger has taken out in between is no trap") {
  const unsigned char code[2] = {kNop, kNop};
  Trap trap(code);
  CHECK(outlive_debugger(trap.info, trap.context));
  CHECK(trap.at() == code);
}

TEST_CASE("a trap of the kernel's own stays one") {
  const unsigned char code[2] = {kInt3, kNop};
  Trap trap(code);
  CHECK_FALSE(outlive_debugger(trap.info, trap.context));
  CHECK(trap.at() == code + 1);
  Trap sent(code, SI_TKILL);
  CHECK_FALSE(outlive_debugger(sent.info, sent.context));
}

TEST_CASE("a step that nobody waits for ends the stepping") {
  const unsigned char code[2] = {kNop, kNop};
  constexpr greg_t kTrapFlag = 0x100;
  Trap trap(code, TRAP_TRACE);
  trap.context.uc_mcontext.gregs[REG_EFL] = kTrapFlag | 2;
  CHECK(outlive_debugger(trap.info, trap.context));
  CHECK(trap.context.uc_mcontext.gregs[REG_EFL] == 2);
  CHECK(trap.at() == code + 1);
}

TEST_CASE("a thread that was sent back already stays where it is") {
  unsigned char code[2] = {kNop, kInt3};
  cowbird_debug_journal.entries[0] = {reinterpret_cast<std::uint64_t>(&code[1]), kNop};
  Trap trap(code);  // its rip is at code[1]
  CHECK(outlive_debugger(trap.info, trap.context));
  CHECK(trap.at() == code + 1);
  CHECK(code[1] == kNop);
  cowbird_debug_journal.entries[0] = {};
  const auto *place = reinterpret_cast<const unsigned char *>(&cowbird_debug_room) + 64;
  Trap sent(place - 1);
  CHECK(outlive_debugger(sent.info, sent.context));
  CHECK(sent.at() == place);
}

namespace {

constexpr std::uint64_t kFrom = 0x1000, kPlace = 0x9000, kLength = 5;

// A step of this thread, which has come to `rip`.
struct Step : Trap {
  std::uint64_t stack[2] = {};
  explicit Step(std::uint64_t rip, int si_code = TRAP_TRACE) : Trap(nullptr, si_code) {
    auto &step = cowbird_debug_journal.step;
    step = {};
    step.tid = static_cast<std::uint64_t>(::syscall(SYS_gettid));
    step.from = kFrom;
    step.place = kPlace;
    step.length = kLength;
    context.uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(rip);
    context.uc_mcontext.gregs[REG_RSP] = reinterpret_cast<greg_t>(&stack[0]);
  }
  ~Step() { cowbird_debug_journal.step = {}; }
  greg_t &reg(int which) { return context.uc_mcontext.gregs[which]; }
  bool survived() { return outlive_debugger(info, context); }
  std::uint64_t rip() { return static_cast<std::uint64_t>(reg(REG_RIP)); }
};

}  // namespace

TEST_CASE("a step elsewhere ends in the instruction's own place") {
  SECTION("not begun") {
    Step step(kPlace, SI_KERNEL);
    CHECK(step.survived());
    CHECK(step.rip() == kFrom);
    CHECK(cowbird_debug_journal.step.tid == 0);
  }
  SECTION("done, and stopped by the step or by the int3 behind the copy") {
    Step step(kPlace + kLength);
    CHECK(step.survived());
    CHECK(step.rip() == kFrom + kLength);
    Step ran_on(kPlace + kLength + 1, SI_KERNEL);
    CHECK(ran_on.survived());
    CHECK(ran_on.rip() == kFrom + kLength);
  }
  SECTION("a relative jump, before and after the debugger has corrected it") {
    Step step(kPlace + kLength + 0x40);
    cowbird_debug_journal.step.displacement = 0x40;
    CHECK(step.survived());
    CHECK(step.rip() == kFrom + kLength + 0x40);
    Step corrected(kFrom + kLength + 0x40);
    cowbird_debug_journal.step.displacement = 0x40;
    CHECK(corrected.survived());
    CHECK(corrected.rip() == kFrom + kLength + 0x40);
  }
  SECTION("a call through a register") {
    Step step(0x7000);
    cowbird_debug_journal.step.call = 1;
    step.stack[0] = kPlace + kLength;
    CHECK(step.survived());
    CHECK(step.rip() == 0x7000);
    CHECK(step.stack[0] == kFrom + kLength);
  }
  SECTION("a register stood in for rip") {
    Step step(kPlace + kLength);
    cowbird_debug_journal.step.stand_in = REG_RSI + 1;
    cowbird_debug_journal.step.value = 42;
    step.reg(REG_RSI) = kFrom + kLength;
    CHECK(step.survived());
    CHECK(step.reg(REG_RSI) == 42);
    CHECK(step.rip() == kFrom + kLength);
  }
  SECTION("of another thread") {
    Step step(kPlace + kLength);
    cowbird_debug_journal.step.tid += 1;
    CHECK(step.survived());
    CHECK(step.rip() == kPlace + kLength);
  }
}
