// Guest programs that try to get out of the stub, or to keep the kernel from getting in. After each
// attack the host must be as it was, and a neighbour guest must go on.
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "engine/stub_protocol.hpp"
#include "engine/xstate.hpp"
#include "unit/engine_guest.hpp"

using namespace cowbird;
using namespace cowbird::test;
using namespace std::chrono_literals;

extern "C" {
extern const char cowbird_stub_image[];
extern const char cowbird_stub_image_end[];
}

namespace {

// What an escape would change: a file, a process, this process's memory and descriptors.
class Host {
 public:
  Host() {
    char name[] = "/tmp/cowbird-marker-XXXXXX";
    file_ = ::mkstemp(name);
    path_ = name;
    REQUIRE(::write(file_, "marker", 6) == 6);
    child_ = ::fork();
    if (child_ == 0) {
      for (;;) ::pause();
    }
  }
  ~Host() {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    ::close(file_);
    ::unlink(path_.c_str());
  }
  void check() const {
    char text[8] = {};
    CHECK(::pread(file_, text, sizeof text, 0) == 6);
    CHECK(std::string(text) == "marker");
    CHECK(::access(path_.c_str(), F_OK) == 0);
    CHECK(::waitpid(child_, nullptr, WNOHANG) == 0);
    CHECK(memory_ == 0x1234567);
    CHECK(::access("/tmp/cowbird-escaped", F_OK) != 0);
  }
  int child() const { return child_; }

 private:
  int file_ = -1;
  std::string path_;
  int child_ = 0;
  volatile std::uint64_t memory_ = 0x1234567;
};

// A guest that must not notice anything.
void check_neighbour(GuestMachine &machine) {
  Guest neighbour(machine);
  neighbour.code({0xb8, 39, 0, 0, 0, 0x0f, 0x05});
  CHECK(neighbour.run().kind == TrapKind::SystemCall);
}

// Runs, and interrupts after a while.
Trap run_bounded(Context &context, std::chrono::milliseconds limit = 50ms) {
  std::atomic<bool> done{false};
  std::thread watchdog([&] {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!done && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
    if (!done) context.interrupt();
  });
  const Trap trap = context.run();
  done = true;
  watchdog.join();
  return trap;
}

// Arguments that would do damage with many calls: pointers to a path, to an argument list, to
// numbers.
void set_arguments(Guest &guest, const Host &host) {
  std::memcpy(&guest.data<char>(0x100), "/tmp/cowbird-escaped", 21);
  guest.data<std::uint64_t>(0x200) = kData + 0x100;
  guest.data<std::uint64_t>(0x208) = 0;
  auto &r = guest.regs();
  r.rsp = kStack - 512;
  r.rdi = kData + 0x100;
  r.rsi = kData + 0x200;
  r.rdx = kData + 0x200;
  r.r10 = 0;
  r.r8 = static_cast<std::uint64_t>(host.child());
  r.r9 = 0;
  r.rbx = r.rdi;
  r.rcx = r.rsi;
}

bool passes_filters(std::uint64_t number) { return number == 335 || number == 336; }

// The addresses of all syscall instructions in the stub.
std::vector<VirtAddr> stub_syscalls() {
  std::vector<VirtAddr> found;
  for (const char *p = cowbird_stub_image; p + 1 < cowbird_stub_image_end; ++p) {
    if (p[0] == 0x0f && p[1] == 0x05)
      found.push_back(stub::kTextBase + static_cast<std::uint64_t>(p - cowbird_stub_image));
  }
  return found;
}

// A frame for rt_sigreturn that goes to `rip` with the guest's own memory as stack.
stub::HostFrame forged_frame(VirtAddr rip) {
  stub::HostFrame f{};
  f.flags = 7;
  f.stack_base = stub::mailbox_address(0) + stub::kMailboxStack;
  f.stack_size = stub::kMailboxStackBytes;
  f.stack_flags = 1u << 31;
  f.rip = rip;
  f.rsp = kStack - 512;
  f.eflags = 0x202;
  f.cs = 0x33;
  f.ss = 0x2b;
  return f;
}

// Makes the guest's thread call the host's rt_sigreturn on this frame.
void sigreturn_to(Guest &guest, const stub::HostFrame &frame) {
  // The last syscall instruction of the stub's text is that of the restorer.
  static const VirtAddr site = stub_syscalls().back();
  guest.data<stub::HostFrame>(0x1000) = frame;
  guest.regs().rsp = kData + 0x1000;
  guest.regs().rax = 15;
  guest.regs().rip = site;
}

}  // namespace

TEST_CASE("hostile: every host system call, tried directly", "[engine][hostile]") {
  const Host host;
  GuestMachine machine;
  Guest guest(machine);
  guest.code({0x0f, 0x05});
  guest.code({0xcd, 0x80}, 16);
  for (std::uint64_t number = 0; number < 1024; ++number) {
    for (const std::uint64_t bit : {0x0u, 0x40000000u}) {
      set_arguments(guest, host);
      guest.regs().rax = number | bit;
      guest.regs().rip = kCode;
      const Trap trap = guest.run();
      // The host's uretprobe and uprobe calls pass every filter; outside a probe they do nothing.
      if (passes_filters(number)) continue;
      CAPTURE(number, bit);
      REQUIRE(trap.kind == TrapKind::SystemCall);
      REQUIRE(guest.regs().orig_rax == (number | bit));
      REQUIRE(trap.foreign_abi == (bit != 0));
    }
    set_arguments(guest, host);
    guest.regs().rax = number;
    guest.regs().rip = kCode + 16;
    const Trap trap = guest.run();
    REQUIRE((trap.kind == TrapKind::Exception || trap.foreign_abi));
  }
  host.check();
  check_neighbour(machine);
}

TEST_CASE("hostile: every system call from the stub's own instructions", "[engine][hostile]") {
  const Host host;
  GuestMachine machine;
  auto guest = std::make_unique<Guest>(machine);
  const auto sites = stub_syscalls();
  REQUIRE(sites.size() > 15);
  unsigned died = 0;
  for (const VirtAddr site : sites) {
    for (std::uint64_t number = 0; number < 480; ++number) {
      set_arguments(*guest, host);
      guest->regs().rax = number;
      guest->regs().rip = site;
      const bool allowed =
          number == SYS_futex || number == SYS_rt_sigreturn || passes_filters(number);
      const Trap trap = allowed ? run_bounded(*guest->context, 10ms) : guest->run();
      if (trap.kind == TrapKind::Dead) {
        ++died;
        guest = std::make_unique<Guest>(machine);
        continue;
      }
      if (allowed) continue;
      CAPTURE(number, site);
      REQUIRE(trap.kind == TrapKind::SystemCall);
      REQUIRE(guest->regs().orig_rax == number);
    }
  }
  CHECK(died <= sites.size() * 2);
  host.check();
  check_neighbour(machine);
}

TEST_CASE("hostile: guest code runs the order loop on orders of its own", "[engine][hostile]") {
  const Host host;
  GuestMachine machine;
  // All places in the text, with the registers that the loop keeps its pages in.
  auto guest = std::make_unique<Guest>(machine);
  const auto image = static_cast<std::uint64_t>(cowbird_stub_image_end - cowbird_stub_image);
  for (VirtAddr at = stub::kTextBase + 0x40;
       at < stub::kTextBase + std::min<std::uint64_t>(image, 0x900); ++at) {
    auto &orders = guest->data<stub::OrderPages>(0);
    orders.head = 1;
    orders.ring[0] = {SYS_mmap, {stub::kTextBase, 0x1000, 7, 0x32, ~std::uint64_t{0}, 0}, 1};
    orders.ring[1] = {SYS_kill, {static_cast<std::uint64_t>(host.child()), SIGKILL}, 2};
    auto &r = guest->regs();
    r.r12 = 0, r.r13 = kData, r.r14 = kData + 0x6000, r.rbx = kData + 0x1000, r.r9 = kData;
    r.rsp = kStack - 512, r.rax = SYS_kill, r.rdi = static_cast<std::uint64_t>(host.child());
    r.rsi = SIGKILL;
    r.rip = at;
    const Trap trap = run_bounded(*guest->context, 5ms);
    if (trap.kind == TrapKind::Dead) guest = std::make_unique<Guest>(machine);
  }
  host.check();
  // The stub's text is as it was: the same guest, and a new one, still trap.
  guest->map_all();
  guest->code({0xb8, 39, 0, 0, 0, 0x0f, 0x05});
  guest->regs() = {};
  guest->regs().rip = kCode;
  const Trap last = guest->run();
  CAPTURE(last.vector, last.signal, last.signal_code, last.error_code, guest->regs().rip);
  CHECK(last.kind == TrapKind::SystemCall);
  check_neighbour(machine);
}

TEST_CASE("hostile: forged signal frames", "[engine][hostile]") {
  const Host host;
  GuestMachine machine;
  Guest guest(machine);
  guest.code({0xb8, 39, 0, 0, 0, 0x0f, 0x05});  // at kCode: a system call
  guest.code({0xeb, 0xfe}, 16);                 // at kCode + 16: an endless loop
  REQUIRE(guest.run().kind == TrapKind::SystemCall);

  SECTION("an honest one works") {
    sigreturn_to(guest, forged_frame(kCode));
    const Trap trap = guest.run();
    CHECK(trap.kind == TrapKind::SystemCall);
    CHECK(guest.regs().orig_rax == 39);
  }
  SECTION("all signals blocked, then a system call: the thread's process dies of it") {
    auto f = forged_frame(kCode);
    f.signal_mask = ~std::uint64_t{0};
    sigreturn_to(guest, f);
    CHECK(run_bounded(*guest.context).kind == TrapKind::Dead);
  }
  SECTION("the interrupt blocked, then an endless loop") {
    auto f = forged_frame(kCode + 16);
    f.signal_mask = ~std::uint64_t{0};
    sigreturn_to(guest, f);
    CHECK(run_bounded(*guest.context, 10ms).kind == TrapKind::Dead);
  }
  SECTION("the interrupt blocked, then asleep in the host's futex") {
    // Goes to the stub's own syscall instruction with a futex wait on the hint page.
    auto f = forged_frame(stub_syscalls().back());
    f.signal_mask = ~std::uint64_t{0};
    f.rax = SYS_futex;
    f.rdi = stub::kControlBase + 64;
    sigreturn_to(guest, f);
    CHECK(run_bounded(*guest.context, 10ms).kind == TrapKind::Dead);
  }
  SECTION("the alternate stack in guest memory") {
    auto f = forged_frame(kCode);
    f.stack_base = kData + 0x4000;
    f.stack_size = 0x8000;
    sigreturn_to(guest, f);
    CHECK(run_bounded(*guest.context, 10ms).kind == TrapKind::Dead);
  }
  SECTION("no alternate stack") {
    auto f = forged_frame(kCode);
    f.stack_flags = 2;  // SS_DISABLE
    sigreturn_to(guest, f);
    CHECK(run_bounded(*guest.context, 10ms).kind == TrapKind::Dead);
  }
  SECTION("broken extended state") {
    auto f = forged_frame(kCode);
    f.fp_state = kData + 0x2000;
    std::memset(&guest.data<char>(0x2000), 0xff, 0x2000);
    sigreturn_to(guest, f);
    run_bounded(*guest.context, 10ms);
  }
  SECTION("extended state at an address that is none") {
    auto f = forged_frame(kCode);
    f.fp_state = 0xffff800000000000;
    sigreturn_to(guest, f);
    run_bounded(*guest.context, 10ms);
  }
  SECTION("32-bit code") {
    auto f = forged_frame(kCode + 32);
    f.cs = 0x23;
    guest.code({0xb8, 37, 0, 0, 0, 0xcd, 0x80}, 32);  // kill
    sigreturn_to(guest, f);
    const Trap trap = run_bounded(*guest.context, 10ms);
    CHECK((trap.foreign_abi || trap.kind != TrapKind::SystemCall));
    if (trap.kind == TrapKind::SystemCall) CHECK(guest.regs().cs == 0x23);
  }
  SECTION("a kernel code segment and flags") {
    auto f = forged_frame(kCode);
    f.cs = 0x10;
    f.eflags = ~std::uint64_t{0};
    sigreturn_to(guest, f);
    run_bounded(*guest.context, 10ms);
  }
  host.check();
  check_neighbour(machine);
}

TEST_CASE("hostile: everything that can be written is overwritten", "[engine][hostile]") {
  const Host host;
  GuestMachine machine;
  const std::uint64_t pattern =
      GENERATE(std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{0x4141414141414141},
               stub::kTextBase, stub::mailbox_address(0) + 0x4000);
  Guest guest(machine);
  // rep stosq; mov $39,%eax; syscall; jmp to the call
  guest.code({0xf3, 0x48, 0xab, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7});
  const auto target = GENERATE(stub::kControlBase, stub::mailbox_address(0), stub::kOrdersBase,
                               stub::kTextBase, std::uint64_t{0x7ffffffde000});
  guest.regs().rdi = target;
  guest.regs().rax = pattern;
  guest.regs().rcx = stub::kMailboxBytes / 8;
  Trap trap = run_bounded(*guest.context, 10ms);
  if (target == stub::kOrdersBase || target == stub::kTextBase || target == 0x7ffffffde000) {
    CHECK(trap.kind == TrapKind::PageFault);
    CHECK(trap.address == target);
  }
  for (int i = 0; i < 5 && trap.kind != TrapKind::Dead; ++i)
    trap = run_bounded(*guest.context, 10ms);
  std::vector<std::byte> state(machine.platform->xstate_size());
  guest.context->get_xstate(state);
  CHECK(XstateLayout::host().check(state).ok());
  host.check();
  check_neighbour(machine);
}

TEST_CASE("hostile: a sibling scribbles over a mailbox in use", "[engine][hostile]") {
  const Host host;
  GuestMachine machine;
  for (const std::uint64_t pattern :
       {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{0x7fff20108000}}) {
    Guest guest(machine);
    // l: mov %rdx,%rdi; mov %rsi,%rcx; rep stosq; jmp l
    guest.code({0x48, 0x89, 0xd7, 0x48, 0x89, 0xf1, 0xf3, 0x48, 0xab, 0xeb, 0xf5});
    guest.code({0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}, 64);
    auto sibling = guest.new_context();
    sibling->regs() = guest.regs();
    sibling->regs().rdx = stub::mailbox_address(0);
    sibling->regs().rsi = stub::kMailboxBytes / 8;
    sibling->regs().rax = pattern;
    guest.regs().rip = kCode + 64;
    std::thread scribbler([&] { run_bounded(*sibling, 60ms); });
    for (int i = 0; i < 200; ++i) {
      if (run_bounded(*guest.context, 20ms).kind == TrapKind::Dead) break;
    }
    sibling->interrupt();
    scribbler.join();
  }
  host.check();
  check_neighbour(machine);
}

TEST_CASE("hostile: the hint is forged while a page goes to somebody else", "[engine][hostile]") {
  GuestMachine machine;
  Guest guest(machine);
  // Reader at kCode: l: mov (%rbx),%rax; cmp %rdx,%rax; je l; mov %rax,(%rcx); getpid (a fault
  // leaves l)
  guest.code({0x48, 0x8b, 0x03, 0x48, 0x39, 0xd0, 0x74, 0xf8, 0x48, 0x89, 0x01, 0xb8, 39, 0, 0, 0,
              0x0f, 0x05});
  // Forger at kCode + 64: l: mov %rdx,(%rbx); inc %rdx; jmp l
  guest.code({0x48, 0x89, 0x13, 0x48, 0xff, 0xc2, 0xeb, 0xf8}, 64);
  constexpr std::uint64_t kOwn = 0x11, kSecret = 0x5ec3e7;
  constexpr VirtAddr kShared = 0x900000;
  const Pfn page = machine.allocate();
  auto &word = *reinterpret_cast<std::uint64_t *>(machine.frame(page));
  auto forger = guest.new_context();
  forger->regs() = guest.regs();
  forger->regs().rip = kCode + 64;
  forger->regs().rbx = stub::kControlBase;
  forger->regs().rdx = 0x40000000;
  std::atomic<bool> stop{false};
  std::thread forging([&] {
    while (!stop && forger->run().kind == TrapKind::Interrupted) {
    }
  });
  unsigned leaks = 0;
  for (int round = 0; round < 100; ++round) {
    word = kOwn;
    guest.space->map(kShared, page, 1, Prot::Read, true);
    REQUIRE(guest.space->synchronize(guest.space->sync_point()));
    guest.data<std::uint64_t>() = 0;
    guest.regs().rip = kCode;
    guest.regs().rbx = kShared, guest.regs().rcx = kData, guest.regs().rdx = kOwn;
    Trap trap;
    std::thread reader([&] { trap = guest.run(); });
    std::this_thread::sleep_for(200us);
    guest.space->unmap(kShared, 1);
    REQUIRE(guest.space->synchronize(guest.space->sync_point()));
    word = kSecret;  // the page has a new owner
    reader.join();
    if (trap.kind != TrapKind::PageFault || guest.data<std::uint64_t>() != 0) ++leaks;
  }
  CHECK(leaks == 0);
  stop = true;
  forger->interrupt();
  forging.join();
  check_neighbour(machine);
}
