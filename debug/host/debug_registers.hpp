// The four debug registers of x86 (Intel SDM vol. 3, 18.2): which of them watches what, for all
// threads of a process alike.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/result.hpp"
#include "debug/host/tracee.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

class DebugRegisters {
 public:
  static constexpr unsigned kCount = 4;

  // Takes as many registers as the range needs: each watches 1, 2, 4 or 8 bytes at a multiple of
  // its size. Inval: no bytes, or a breakpoint of more than one; NoSpc: too few registers are free,
  // and none was taken. Read is watched as Access: x86 cannot watch reads alone.
  Result<void> insert(const Breakpoint &breakpoint);
  // NoEnt when it was not inserted.
  Result<void> remove(const Breakpoint &breakpoint);
  bool empty() const;
  void clear() { *this = DebugRegisters(); }

  std::uint64_t address(unsigned number) const { return slots_[number].address; }
  std::uint64_t control() const;  // DR7
  // Into a thread that stands still.
  Result<void> load(Tracee &tracee, pid_t tid) const;

  struct Hit {
    BreakpointKind kind = BreakpointKind::Hardware;
    std::uint64_t address = 0;  // as it was asked for
    std::uint64_t watched = 0;  // the part that the register watches
  };
  // What the bits of DR6 say.
  std::optional<Hit> hit(std::uint64_t status) const;

 private:
  struct Slot {
    unsigned users = 0;
    BreakpointKind kind = BreakpointKind::Hardware;
    std::uint64_t address = 0;
    unsigned size = 0;
    std::uint64_t asked = 0;
  };
  Slot *find(const Slot &wanted);
  std::array<Slot, kCount> slots_{};
};

}  // namespace cowbird::debug
