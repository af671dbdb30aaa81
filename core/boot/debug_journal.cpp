#include "boot/debug_journal.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

extern "C" {
constinit CowbirdDebugJournal cowbird_debug_journal = {
    std::size(CowbirdDebugJournal{}.entries), {}, {}};
}

asm(R"(
        .pushsection .text
        .p2align 6
        .globl  cowbird_debug_room
        .type   cowbird_debug_room, @function
cowbird_debug_room:
        .fill   4096, 1, 0xcc
        .size   cowbird_debug_room, . - cowbird_debug_room
        .popsection
)");

namespace cowbird::boot {
namespace {

constexpr unsigned char kInt3 = 0xcc;
constexpr long long kTrapFlag = 0x100;

// The code is not writable; this way it can be written all the same.
void take_all_out() {
  const int memory = ::open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  if (memory < 0) return;
  // A copy of each: the next debugger may halt this thread and use the entry anew.
  for (const CowbirdDebugEntry entry : cowbird_debug_journal.entries) {
    if (entry.address == 0) continue;
    const auto place = static_cast<off_t>(entry.address);
    unsigned char now = 0;
    if (::pread(memory, &now, 1, place) != 1 || now != kInt3) continue;
    const auto original = static_cast<unsigned char>(entry.original);
    [[maybe_unused]] const auto written = ::pwrite(memory, &original, 1, place);
  }
  ::close(memory);
}

// Puts the thread where the copied instruction would have left it in its own place, or before it.
bool end_step(bool int3, greg_t *registers) {
  CowbirdDebugStep &step = cowbird_debug_journal.step;
  if (step.tid == 0 || step.tid != static_cast<std::uint64_t>(::syscall(SYS_gettid))) return false;
  auto rip = static_cast<std::uint64_t>(registers[REG_RIP]);
  const std::uint64_t behind = step.place + step.length, next = step.from + step.length;
  if (step.stand_in != 0 && step.stand_in <= NGREG &&
      registers[step.stand_in - 1] == static_cast<greg_t>(next)) {
    registers[step.stand_in - 1] = static_cast<greg_t>(step.value);
  }
  if (int3 && rip == behind + 1) rip = behind;
  const bool jumped = step.displacement != 0 && rip == behind + step.displacement;
  const bool there = rip >= step.place && rip <= behind;
  step.tid = 0;
  if (step.call != 0 && rip != step.place) {
    // Unless the debugger has seen to it already.
    auto *back = reinterpret_cast<std::uint64_t *>(registers[REG_RSP]);
    if (*back == behind) *back = next;
  }
  if (!there && !jumped) return false;  // at the target of an indirect jump: there is its own int3
  registers[REG_RIP] = static_cast<greg_t>(rip + step.from - step.place);
  return true;
}

bool has_entry(std::uint64_t address) {
  return std::any_of(
      std::begin(cowbird_debug_journal.entries), std::end(cowbird_debug_journal.entries),
      [=](const CowbirdDebugEntry &entry) { return entry.address == address && address != 0; });
}

// Where a thread stands that was sent to a place from which it comes back by itself.
bool in_room(std::uint64_t address) {
  constexpr std::uint64_t kPlace = 32, kRoom = 4096;
  const auto room = reinterpret_cast<std::uint64_t>(&cowbird_debug_room);
  return address >= room + kPlace && address < room + kRoom;
}

}  // namespace

bool outlive_debugger(const siginfo_t &info, ucontext_t &context) {
  auto &registers = context.uc_mcontext.gregs;
  const bool stepped = info.si_code == TRAP_TRACE || info.si_code == TRAP_HWBKPT;
  if (!stepped && info.si_code != SI_KERNEL) return false;
  if (end_step(!stepped, registers) || stepped) {
    // Also a step that nobody waits for any more, or a debug register that nobody has cleared.
    registers[REG_EFL] &= ~kTrapFlag;
    take_all_out();
    return true;
  }
  const auto rip = static_cast<std::uint64_t>(registers[REG_RIP]);
  const std::uint64_t address = rip - 1;
  const bool entered = has_entry(address);
  // Sent back already, or to where it can go on, by a debugger that died before it let it go.
  if (!entered && (has_entry(rip) || in_room(rip))) {
    take_all_out();
    return true;
  }
  if (entered) {
    // The entries stay: another thread may have met the same int3 just before.
    take_all_out();
  } else if (*reinterpret_cast<const volatile unsigned char *>(address) == kInt3) {
    return false;
  }
  // Or the next debugger has taken it out, and struck the entry, since the trap.
  registers[REG_RIP] = static_cast<greg_t>(address);
  return true;
}

}  // namespace cowbird::boot
