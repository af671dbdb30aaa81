// The stub engine with real stub processes, and no kernel: small pieces of machine code run in a
// stub through the Platform interface.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <thread>

#include "engine/xstate.hpp"
#include "unit/engine_guest.hpp"

using namespace cowbird;
using namespace cowbird::test;
using namespace std::chrono_literals;

namespace {

// mov $39,%eax; syscall
const std::vector<std::uint8_t> kGetpid = {0xb8, 39, 0, 0, 0, 0x0f, 0x05};
// jmp .
const std::vector<std::uint8_t> kLoop = {0xeb, 0xfe};

bool wait_until(const std::function<bool()> &condition) {
  for (int i = 0; i < 300; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return condition();
}

}  // namespace

TEST_CASE("a system call traps with its number and arguments", "[engine]") {
  StubPlatformOptions options;
  options.without_fsgsbase = GENERATE(false, true);
  GuestMachine machine(options);
  Guest guest(machine);
  // mov $39,%eax; mov $1,%edi; syscall; mov $60,%eax; syscall
  guest.code({0xb8, 39, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x0f, 0x05, 0xb8, 60, 0, 0, 0, 0x0f, 0x05});
  guest.regs().fs_base = 0x1234000;
  Trap trap = guest.run();
  REQUIRE(trap.kind == TrapKind::SystemCall);
  CHECK(!trap.foreign_abi);
  CHECK(guest.regs().orig_rax == 39);
  CHECK(guest.regs().rax == static_cast<std::uint64_t>(-38));
  CHECK(guest.regs().rdi == 1);
  CHECK(guest.regs().rip == kCode + 12);
  CHECK(guest.regs().rsp == kStack);
  CHECK(guest.regs().fs_base == 0x1234000);
  guest.regs().rax = 4711;
  guest.regs().rbx = 99;
  trap = guest.run();
  REQUIRE(trap.kind == TrapKind::SystemCall);
  CHECK(guest.regs().orig_rax == 60);
  CHECK(guest.regs().rbx == 99);
}

TEST_CASE("all general registers reach the guest and come back", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  guest.code(kGetpid);
  auto &r = guest.regs();
  std::uint64_t value = 0x1111222233330000;
  for (std::uint64_t *p : {&r.r15, &r.r14, &r.r13, &r.r12, &r.rbp, &r.rbx, &r.r10, &r.r9, &r.r8,
                           &r.rdx, &r.rsi, &r.rdi}) {
    *p = ++value;
  }
  const abi::UserRegs before = r;
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  CHECK(r.r15 == before.r15);
  CHECK(r.r14 == before.r14);
  CHECK(r.r13 == before.r13);
  CHECK(r.r12 == before.r12);
  CHECK(r.rbp == before.rbp);
  CHECK(r.rbx == before.rbx);
  CHECK(r.r10 == before.r10);
  CHECK(r.r9 == before.r9);
  CHECK(r.r8 == before.r8);
  CHECK(r.rdx == before.rdx);
  CHECK(r.rsi == before.rsi);
  CHECK(r.rdi == before.rdi);
  CHECK(r.rcx == kCode + 7);  // as the syscall instruction leaves it
}

TEST_CASE("the guest's own rt_sigreturn and futex calls trap", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  const auto number = static_cast<std::uint8_t>(GENERATE(15, 202));
  guest.code({0xb8, number, 0, 0, 0, 0x0f, 0x05});
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  CHECK(guest.regs().orig_rax == number);
}

TEST_CASE("32-bit and x32 entries are told apart", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  SECTION("int 0x80") {
    guest.code({0xb8, 20, 0, 0, 0, 0xcd, 0x80});
    const Trap trap = guest.run();
    // A host without 32-bit emulation raises a general protection fault.
    if (trap.kind == TrapKind::SystemCall) {
      CHECK(trap.foreign_abi);
      CHECK(guest.regs().orig_rax == 20);
    } else {
      CHECK(trap.kind == TrapKind::Exception);
    }
  }
  SECTION("x32") {
    guest.code({0xb8, 39, 0, 0, 0x40, 0x0f, 0x05});
    const Trap trap = guest.run();
    REQUIRE(trap.kind == TrapKind::SystemCall);
    CHECK(trap.foreign_abi);
  }
  SECTION("vsyscall page") {
    guest.code({0x48, 0xc7, 0xc0, 0x00, 0x00, 0x60, 0xff, 0xff, 0xd0});  // gettimeofday
    const Trap trap = guest.run();
    if (trap.kind == TrapKind::SystemCall) {
      CHECK(guest.regs().orig_rax == 96);
      CHECK(guest.regs().rip == kCode + 9);
    } else {
      CHECK(trap.kind == TrapKind::PageFault);
    }
  }
}

TEST_CASE("page faults carry address and access", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  SECTION("read") {
    guest.code({0x8b, 0x03});  // mov (%rbx),%eax
    guest.regs().rbx = 0x12345678;
    const Trap trap = guest.run();
    REQUIRE(trap.kind == TrapKind::PageFault);
    CHECK(trap.address == 0x12345678);
    CHECK(trap.access == FaultAccess::Read);
    CHECK(guest.regs().rip == kCode);
    const Pfn pfn = machine.allocate();
    *reinterpret_cast<std::uint32_t *>(machine.frame(pfn) + 0x678) = 77;
    guest.space->map(0x12345000, pfn, 1, Prot::Read, false);
    CHECK(guest.run().kind ==
          TrapKind::PageFault);  // the zero bytes after the code: add %al,(%rax)
    CHECK((guest.regs().rax & 0xffffffff) == 77);
  }
  SECTION("write") {
    guest.code({0x89, 0x03});
    guest.regs().rbx = kCode;
    const Trap trap = guest.run();
    REQUIRE(trap.kind == TrapKind::PageFault);
    CHECK(trap.address == kCode);
    CHECK(trap.access == FaultAccess::Write);
  }
  SECTION("exec") {
    guest.regs().rip = kData;
    const Trap trap = guest.run();
    REQUIRE(trap.kind == TrapKind::PageFault);
    CHECK(trap.address == kData);
    CHECK(trap.access == FaultAccess::Exec);
  }
  SECTION("null") {
    guest.regs().rip = 0;
    const Trap trap = guest.run();
    REQUIRE(trap.kind == TrapKind::PageFault);
    CHECK(trap.address == 0);
  }
  SECTION("the host's half of the address space") {
    guest.code({0x8b, 0x03});
    guest.regs().rbx = 0xffff800000000000;
    const Trap trap = guest.run();
    REQUIRE(trap.kind == TrapKind::PageFault);
  }
  SECTION("an address that is not canonical") {
    guest.code({0x8b, 0x03});
    guest.regs().rbx = 0x1234567812345678;
    const Trap trap = guest.run();
    REQUIRE(trap.kind == TrapKind::Exception);
    CHECK(trap.vector == 13);
    CHECK(trap.signal == SIGSEGV);
  }
}

TEST_CASE("exceptions carry vector and signal", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  struct Case {
    std::vector<std::uint8_t> code;
    int vector, signal;
  };
  const auto c = GENERATE(Case{{0x31, 0xc9, 0xf7, 0xf1}, 0, SIGFPE},  // xor %ecx,%ecx; div %ecx
                          Case{{0xcc}, 3, SIGTRAP}, Case{{0x0f, 0x0b}, 6, SIGILL},
                          Case{{0xf4}, 13, SIGSEGV});  // hlt
  guest.code(c.code);
  const Trap trap = guest.run();
  REQUIRE(trap.kind == TrapKind::Exception);
  CHECK(trap.vector == c.vector);
  CHECK(trap.signal == c.signal);
}

TEST_CASE("single steps", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  guest.code({0x90, 0x90, 0x90});
  guest.regs().eflags |= 0x100;
  const Trap trap = guest.run();
  REQUIRE(trap.kind == TrapKind::Exception);
  CHECK(trap.vector == 1);
  CHECK(guest.regs().rip == kCode + 1);
}

TEST_CASE("mappings change, are weakened and go away", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  // mov (%rbx),%eax; mov %eax,(%rbx); mov $39,%eax; syscall; jmp start
  guest.code({0x8b, 0x03, 0x89, 0x03, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf3});
  guest.regs().rbx = kData;
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  guest.space->protect(kData, 16, Prot::Read);
  const SyncPoint point = guest.space->sync_point();
  REQUIRE(guest.space->synchronize(point));
  CHECK(guest.space->reached(point));
  Trap trap = guest.run();
  REQUIRE(trap.kind == TrapKind::PageFault);
  CHECK(trap.access == FaultAccess::Write);
  guest.space->protect(kData, 16, Prot::Read | Prot::Write);
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  guest.space->unmap(kData, 16);
  trap = guest.run();
  REQUIRE(trap.kind == TrapKind::PageFault);
  CHECK(trap.access == FaultAccess::Read);
  const Pfn other = machine.allocate();
  *reinterpret_cast<std::uint32_t *>(machine.frame(other)) = 5;
  guest.space->map(kData, other, 1, Prot::Read | Prot::Write, true);
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
}

TEST_CASE("more changes than the ring holds", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  // Every second page, so that nothing can be joined.
  const Pfn pages = machine.allocate(3000);
  for (std::uint64_t i = 0; i < 3000; ++i) {
    *reinterpret_cast<std::uint64_t *>(machine.frame(pages + i)) = i;
    guest.space->map(0x10000000 + i * 2 * kPageSize, pages + i, 1, Prot::Read, false);
  }
  // mov (%rbx),%rax; mov %rax,%rdi; mov $39,%eax; syscall; jmp start
  guest.code({0x48, 0x8b, 0x03, 0x48, 0x89, 0xc7, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf1});
  for (std::uint64_t i : {0u, 1u, 1500u, 2999u}) {
    guest.regs().rbx = 0x10000000 + i * 2 * kPageSize;
    REQUIRE(guest.run().kind == TrapKind::SystemCall);
    CHECK(guest.regs().rdi == i);
  }
}

TEST_CASE("too many mappings drop all and come back by faults", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  const Pfn pages = machine.allocate(8192);
  for (std::uint64_t i = 0; i < 40000; ++i)
    guest.space->map(0x10000000 + i * 2 * kPageSize, pages + i % 8192, 1, Prot::Read, false);
  guest.code(kGetpid);
  Trap trap = guest.run();
  if (trap.kind == TrapKind::PageFault) {
    guest.map_all();
    trap = guest.run();
  }
  CHECK(trap.kind == TrapKind::SystemCall);
}

TEST_CASE("extended state is kept, read and set", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  const auto &layout = XstateLayout::host();
  REQUIRE(machine.platform->xstate_size() == layout.size());
  // movq %xmm3,%rdi; stmxcsr (%rbx); mov $39,%eax; syscall; movq %rsi,%xmm3; jmp start
  guest.code({0x66, 0x48, 0x0f, 0x7e, 0xdf, 0x0f, 0xae, 0x1b, 0xb8, 39,   0,
              0,    0,    0x0f, 0x05, 0x66, 0x48, 0x0f, 0x6e, 0xde, 0xeb, 0xea});
  guest.regs().rbx = kData;
  guest.regs().rsi = 0xabcdef;
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  CHECK(guest.regs().rdi == 0);
  CHECK(guest.data<std::uint32_t>() == 0x1f80);
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  CHECK(guest.regs().rdi == 0xabcdef);
  std::vector<std::byte> state(layout.size());
  REQUIRE(guest.context->get_xstate(state) == layout.size());
  std::uint64_t xmm3 = 0;
  std::memcpy(&xmm3, &state[160 + 3 * 16], 8);
  CHECK(xmm3 == 0xabcdef);
  CHECK(layout.check(state).ok());

  xmm3 = 0x5555;
  std::memcpy(&state[160 + 3 * 16], &xmm3, 8);
  REQUIRE(guest.context->set_xstate(state).ok());
  guest.regs().rip = kCode;
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  CHECK(guest.regs().rdi == 0x5555);

  const std::uint32_t bad = 0xffffffff;
  std::memcpy(&state[24], &bad, 4);
  CHECK(guest.context->set_xstate(state).is(Errno::Inval));
  guest.context->reset_xstate();
  guest.regs().rip = kCode;
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  CHECK(guest.regs().rdi == 0);
}

TEST_CASE("the upper halves of vector registers survive set_xstate", "[engine]") {
  if (!__builtin_cpu_supports("avx2")) return;
  GuestMachine machine;
  Guest guest(machine);
  // vmovdqu (%rbx),%ymm5; mov $39,%eax; syscall; vmovdqu %ymm5,0x40(%rbx); mov $39,%eax; syscall
  guest.code({0xc5, 0xfe, 0x6f, 0x2b, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc5,
              0xfe, 0x7f, 0x6b, 0x40, 0xb8, 39, 0, 0, 0, 0x0f, 0x05});
  guest.regs().rbx = kData;
  for (unsigned i = 0; i < 32; ++i) guest.data<std::uint8_t>(i) = static_cast<std::uint8_t>(i + 1);
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  std::vector<std::byte> state(machine.platform->xstate_size());
  guest.context->get_xstate(state);
  REQUIRE(guest.context->set_xstate(state).ok());
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  CHECK(std::memcmp(&guest.data<std::uint8_t>(), &guest.data<std::uint8_t>(0x40), 32) == 0);
}

TEST_CASE("an endless loop is interrupted", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  guest.code(kLoop);
  SECTION("while it runs") {
    std::thread kicker([&] {
      std::this_thread::sleep_for(30ms);
      guest.context->interrupt();
    });
    CHECK(guest.run().kind == TrapKind::Interrupted);
    kicker.join();
  }
  SECTION("before it runs") {
    guest.context->interrupt();
    CHECK(guest.run().kind == TrapKind::Interrupted);
  }
  CHECK(guest.regs().rip == kCode);
}

namespace {

// Value of a line of /proc/PID/status, which serves threads too.
std::string status_of(int tid, const std::string &key) {
  std::ifstream file("/proc/" + std::to_string(tid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":\t")) return line.substr(key.size() + 2);
  }
  return "";
}
char state_of(int tid) {
  const std::string state = status_of(tid, "State");
  return state.empty() ? '?' : state[0];
}

// A signal handler that keeps its thread for as long as this is set.
std::atomic<bool> hold{false}, held{false};
void hold_thread(int) {
  held = true;
  while (hold) ::usleep(1000);
}

}  // namespace

// On a busy host the guest thread may wait for a processor for long before it leaves the stub's
// signal handler, in which signals are blocked; and the vCPU may see its answer late.
TEST_CASE("a guest thread that waits for a processor is not taken for a deaf one", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  guest.code(kGetpid);
  guest.code(kLoop, 16);
  REQUIRE(guest.run().kind == TrapKind::SystemCall);
  guest.regs().rip = kCode + 16;
  const int tid = guest.context->host_tid();
  struct sigaction action {
  }, before{};
  action.sa_handler = hold_thread;
  REQUIRE(::sigaction(SIGUSR2, &action, &before) == 0);
  hold = true, held = false;
  // No processor for the guest thread, which is in the handler.
  ::kill(tid, SIGSTOP);
  REQUIRE(wait_until([&] { return state_of(tid) == 'T'; }));
  std::atomic<int> vcpu{0};
  Trap trap;
  std::thread running([&] {
    vcpu = ::gettid();
    trap = guest.run();
  });
  CHECK(wait_until([&] { return vcpu != 0 && state_of(vcpu) == 'S'; }));
  guest.context->interrupt();
  std::this_thread::sleep_for(700ms);  // the vCPU has looked several times
  // Now it is the vCPU that has none, while the guest thread goes on and answers.
  ::pthread_kill(running.native_handle(), SIGUSR2);
  CHECK(wait_until([] { return held.load(); }));
  std::this_thread::sleep_for(150ms);
  ::kill(tid, SIGCONT);
  CHECK(wait_until(
      [&] { return state_of(tid) == 'S' && status_of(tid, "SigPnd") == "0000000000000000"; }));
  hold = false;
  running.join();
  ::sigaction(SIGUSR2, &before, nullptr);
  CHECK(trap.kind == TrapKind::Interrupted);
  // It lives on.
  for (int i = 0; i < 10; ++i) {
    std::this_thread::sleep_for(10ms);
    guest.regs().rip = kCode;
    REQUIRE(guest.run().kind == TrapKind::SystemCall);
  }
}

TEST_CASE("a stub killed by the host does not hang anybody", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  guest.code(kLoop);
  guest.context->interrupt();
  REQUIRE(guest.run().kind == TrapKind::Interrupted);
  const int tid = guest.context->host_tid();
  REQUIRE(tid > 0);
  SECTION("while guest code runs") {
    std::thread killer([&] {
      std::this_thread::sleep_for(30ms);
      ::kill(tid, SIGKILL);  // a thread's id kills its process too
    });
    CHECK(guest.run().kind == TrapKind::Dead);
    killer.join();
  }
  SECTION("while nothing runs") {
    ::kill(tid, SIGKILL);
    REQUIRE(wait_until([&] { return guest.space->dead(); }));
    CHECK(guest.run().kind == TrapKind::Dead);
    guest.space->unmap(kData, 16);
    CHECK(!guest.space->synchronize(guest.space->sync_point()));
    CHECK(guest.space->reached(guest.space->sync_point()));
  }
  Guest next(machine);
  next.code(kGetpid);
  CHECK(next.run().kind == TrapKind::SystemCall);
}

TEST_CASE("two contexts of one space run at the same time", "[engine]") {
  GuestMachine machine;
  Guest guest(machine);
  // One waits until the other has written: mov $1,(%rbx); l: cmp $0,(%rcx); je l; getpid
  guest.code({0xc7, 0x03, 1, 0, 0, 0, 0x83, 0x39, 0x00, 0x74, 0xfb, 0xb8, 39, 0, 0, 0, 0x0f, 0x05});
  auto second = guest.new_context();
  second->regs() = guest.regs();
  guest.regs().rbx = kData, guest.regs().rcx = kData + 4;
  second->regs().rbx = kData + 4, second->regs().rcx = kData;
  Trap trap;
  std::thread other([&] { trap = second->run(); });
  CHECK(guest.run().kind == TrapKind::SystemCall);
  other.join();
  CHECK(trap.kind == TrapKind::SystemCall);
  CHECK(second->host_tid() != guest.context->host_tid());

  // A released thread serves the next context of the same space, with a clean register file.
  const int tid = second->host_tid();
  second.reset();
  auto third = guest.new_context();
  CHECK(third->host_tid() == tid);
  CHECK(third->regs().rbx == 0);
  third->regs().rip = kCode + 11;
  CHECK(third->run().kind == TrapKind::SystemCall);
}

TEST_CASE("used stubs come back clean", "[engine]") {
  StubPlatformOptions options;
  options.warm_stubs = 1;
  GuestMachine machine(options);
  for (int round = 0; round < 20; ++round) {
    Guest guest(machine);
    // Nothing of an earlier guest is mapped.
    guest.space->unmap(kData, 16);
    guest.code({0x8b, 0x03});
    guest.regs().rbx = kData;
    CHECK(guest.run().kind == TrapKind::PageFault);
    std::vector<std::unique_ptr<Context>> more;
    for (int i = 0; i < 3; ++i) {
      more.push_back(guest.new_context());
      more.back()->regs() = guest.regs();
      CHECK(more.back()->run().kind == TrapKind::PageFault);
    }
    guest.context->get_xstate({});
    more.clear();
  }
  CHECK(wait_until([&] { return machine.platform->stats().stubs_idle >= 1; }));
  const PlatformStats stats = machine.platform->stats();
  CHECK(stats.stubs_died == 0);
  CHECK(stats.stubs_started < 20);
}

TEST_CASE("many guests live at the same time", "[engine]") {
  GuestMachine machine;
  std::vector<std::unique_ptr<Guest>> guests;
  for (int i = 0; i < 40; ++i) {
    guests.push_back(std::make_unique<Guest>(machine));
    guests.back()->code(kGetpid);
  }
  for (auto &guest : guests) CHECK(guest->run().kind == TrapKind::SystemCall);
}

TEST_CASE("stubs do not outlive the kernel", "[engine]") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const int kernel = ::fork();
  if (kernel == 0) {
    GuestMachine machine;
    Guest guest(machine);
    guest.code(kGetpid);
    guest.run();
    const int tid = guest.context->host_tid();
    if (::write(ends[1], &tid, sizeof tid) != sizeof tid) ::_exit(1);
    for (;;) ::pause();
  }
  int tid = 0;
  REQUIRE(::read(ends[0], &tid, sizeof tid) == sizeof tid);
  REQUIRE(::kill(tid, 0) == 0);
  ::kill(kernel, SIGKILL);
  ::waitpid(kernel, nullptr, 0);
  // Gone, or a zombie that the host's init has not collected.
  CHECK(wait_until([&] {
    const std::string path = "/proc/" + std::to_string(tid) + "/stat";
    std::FILE *file = std::fopen(path.c_str(), "re");
    if (file == nullptr) return true;
    char state = 0;
    const int got = std::fscanf(file, "%*d %*s %c", &state);
    std::fclose(file);
    return got != 1 || state == 'Z' || state == 'X';
  }));
  ::close(ends[0]);
  ::close(ends[1]);
}
