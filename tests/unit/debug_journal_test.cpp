// What the kernel's handler of SIGTRAP makes of the remains of a debugger.
#include "boot/debug_journal.hpp"

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
