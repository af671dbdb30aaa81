#include "boot/debug_journal.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <iterator>

extern "C" {
constinit CowbirdDebugJournal cowbird_debug_journal = {std::size(CowbirdDebugJournal{}.entries),
                                                       {}};
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
  for (const CowbirdDebugEntry &entry : cowbird_debug_journal.entries) {
    if (entry.address == 0) continue;
    const auto place = static_cast<off_t>(entry.address);
    unsigned char now = 0;
    if (::pread(memory, &now, 1, place) != 1 || now != kInt3) continue;
    const auto original = static_cast<unsigned char>(entry.original);
    [[maybe_unused]] const auto written = ::pwrite(memory, &original, 1, place);
  }
  ::close(memory);
}

}  // namespace

bool outlive_debugger(const siginfo_t &info, ucontext_t &context) {
  auto &registers = context.uc_mcontext.gregs;
  if (info.si_code == TRAP_TRACE || info.si_code == TRAP_HWBKPT) {
    // A step that nobody waits for any more, or a debug register that nobody has cleared.
    registers[REG_EFL] &= ~kTrapFlag;
    return true;
  }
  if (info.si_code != SI_KERNEL) return false;
  const auto address = static_cast<std::uint64_t>(registers[REG_RIP]) - 1;
  for (const CowbirdDebugEntry &entry : cowbird_debug_journal.entries) {
    if (entry.address != address || address == 0) continue;
    // The entries stay: another thread may have met the same int3 just before.
    take_all_out();
    registers[REG_RIP] = static_cast<greg_t>(address);
    return true;
  }
  // Or the next debugger has taken it out, and struck the entry, since the trap.
  if (*reinterpret_cast<const volatile unsigned char *>(address) == kInt3) return false;
  registers[REG_RIP] = static_cast<greg_t>(address);
  return true;
}

}  // namespace cowbird::boot
