// Measures the stub engine without a kernel: what one hand-over, one fault, one mapping and one
// address space cost, in nanoseconds. `taskset -c 0 engine-bench` shows the machine with one
// processor.
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include "unit/engine_guest.hpp"

namespace {

using namespace cowbird;
using namespace cowbird::test;

std::int64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerSec + now.tv_nsec;
}

// Median of `rounds` measurements of `count` turns each.
void measure(const char *name, int rounds, int count, const std::function<void(int)> &turn) {
  std::vector<double> results;
  turn(0);
  for (int round = 0; round < rounds; ++round) {
    const std::int64_t start = now_ns();
    for (int i = 0; i < count; ++i) turn(round * count + i);
    results.push_back(static_cast<double>(now_ns() - start) / count);
  }
  std::sort(results.begin(), results.end());
  std::printf("%-44s %10.0f ns  (best %.0f, worst %.0f)\n", name, results[results.size() / 2],
              results.front(), results.back());
}

void expect(const Trap &trap, TrapKind kind) {
  if (trap.kind == kind) return;
  std::fprintf(stderr, "unexpected trap %d at %#lx\n", static_cast<int>(trap.kind),
               static_cast<unsigned long>(trap.address));
  std::exit(1);
}

// l: mov $39,%eax; syscall; jmp l
const std::vector<std::uint8_t> kCalls = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7};
// l: mov (%rbx),%eax; mov $39,%eax; syscall; jmp l
const std::vector<std::uint8_t> kTouch = {0x8b, 0x03, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf5};

void null_call(GuestMachine &machine) {
  Guest guest(machine);
  guest.code(kCalls);
  measure("null system call", 7, 20000, [&](int) { expect(guest.run(), TrapKind::SystemCall); });
  measure("null system call, parked before each", 7, 2000, [&](int) {
    guest.context->park();
    expect(guest.run(), TrapKind::SystemCall);
  });
}

// Two vCPUs on a machine of two processors leave no room to spin.
void two_vcpus(GuestMachine &machine) {
  Guest first(machine), second(machine);
  first.code(kCalls);
  second.code(kCalls);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) expect(second.run(), TrapKind::SystemCall);
    second.context->park();
  });
  measure("null system call, two vCPUs busy", 7, 5000,
          [&](int) { expect(first.run(), TrapKind::SystemCall); });
  stop = true;
  other.join();
}

void faults(GuestMachine &machine, const char *name, std::uint64_t pages, bool populate) {
  Guest guest(machine);
  guest.code(kTouch);
  const Pfn frames = machine.allocate(pages);
  expect((guest.regs().rbx = kData, guest.run()), TrapKind::SystemCall);
  measure(name, 7, 500, [&](int i) {
    const VirtAddr address = 0x20000000 + (static_cast<std::uint64_t>(i) % 4096) * 32 * kPageSize;
    guest.regs().rbx = address;
    expect(guest.run(), TrapKind::PageFault);
    guest.space->map(address, frames, pages, Prot::Read | Prot::Write, populate);
    expect(guest.run(), TrapKind::SystemCall);
    guest.space->unmap(address, pages);
  });
}

void protect(GuestMachine &machine) {
  Guest guest(machine);
  guest.code(kCalls);
  expect(guest.run(), TrapKind::SystemCall);
  int turn = 0;
  measure("protect 16 pages + synchronize", 7, 500, [&](int) {
    guest.space->protect(kData, 16, ++turn % 2 ? Prot::Read : Prot::Read | Prot::Write);
    guest.space->synchronize(guest.space->sync_point());
  });
}

void spaces(GuestMachine &machine) {
  std::unique_ptr<Guest> guest;
  measure("new space + first run + destroy, back to back", 7, 100, [&](int) {
    guest = std::make_unique<Guest>(machine);
    guest->code(kCalls);
    expect(guest->run(), TrapKind::SystemCall);
    guest.reset();
  });
  std::int64_t make = 0, run = 0, destroy = 0;
  constexpr int kTurns = 50;
  for (int i = 0; i < kTurns; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    const std::int64_t start = now_ns();
    guest = std::make_unique<Guest>(machine);
    const std::int64_t made = now_ns();
    guest->code(kCalls);
    expect(guest->run(), TrapKind::SystemCall);
    const std::int64_t ran = now_ns();
    guest.reset();
    make += made - start, run += ran - made, destroy += now_ns() - ran;
  }
  std::printf("%-44s %10ld ns  first run %ld, destroy %ld\n", "new space, warm stub", make / kTurns,
              run / kTurns, destroy / kTurns);
}

void print_stats(const Platform &platform) {
  const PlatformStats s = platform.stats();
  std::printf(
      "traps %lu, caught by spinning %lu, parked %lu, orders %lu, stubs %lu + %lu recycled\n",
      s.traps, s.spins_won, s.parks, s.orders, s.stubs_started, s.stubs_recycled);
}

}  // namespace

int main(int argc, char **argv) {
  const std::int64_t start = now_ns();
  GuestMachine machine;
  std::printf("%-44s %10ld ns\n", "platform with its first stub", now_ns() - start);
  // With arguments, only the parts they name.
  const auto wanted = [&](const char *part) {
    if (argc == 1) return true;
    for (int i = 1; i < argc; ++i) {
      if (std::strcmp(argv[i], part) == 0) return true;
    }
    return false;
  };
  if (wanted("null")) null_call(machine);
  if (wanted("two")) two_vcpus(machine);
  if (wanted("fault")) {
    faults(machine, "fault + map one page", 1, false);
    faults(machine, "fault + map one page, populate", 1, true);
    faults(machine, "fault + map 16 pages, populate", 16, true);
  }
  if (wanted("protect")) protect(machine);
  if (wanted("space")) spaces(machine);
  print_stats(*machine.platform);
  return 0;
}
