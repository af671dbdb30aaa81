// The stub engine with real stub processes, and no kernel: small pieces of machine code run in a stub through
// the Platform interface.
#include <catch2/catch.hpp>

#include "unit/engine_guest.hpp"

using namespace cowbird;
using namespace cowbird::test;

TEST_CASE("a system call traps with its number and arguments", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  // mov $39,%eax; mov $1,%edi; syscall; mov $60,%eax; syscall
  guest.code({0xb8, 39, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x0f, 0x05, 0xb8, 60, 0, 0, 0, 0x0f, 0x05});
  Trap trap = guest.run();
  REQUIRE(trap.kind == TrapKind::SystemCall);
  CHECK(!trap.foreign_abi);
  CHECK(guest.regs().orig_rax == 39);
  CHECK(guest.regs().rax == static_cast<std::uint64_t>(-38));
  CHECK(guest.regs().rdi == 1);
  CHECK(guest.regs().rip == kCode + 12);
  guest.regs().rax = 4711;
  trap = guest.run();
  REQUIRE(trap.kind == TrapKind::SystemCall);
  CHECK(guest.regs().orig_rax == 60);
}
