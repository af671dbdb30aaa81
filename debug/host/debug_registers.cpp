#include "debug/host/debug_registers.hpp"

#include <algorithm>
#include <vector>

namespace cowbird::debug {
namespace {

BreakpointKind effective(BreakpointKind kind) {
  return kind == BreakpointKind::Read ? BreakpointKind::Access : kind;
}

// R/Wn and LENn of DR7.
std::uint64_t control_bits(BreakpointKind kind, unsigned size) {
  const std::uint64_t access = kind == BreakpointKind::Hardware ? 0
                               : kind == BreakpointKind::Write  ? 1
                                                                : 3;
  const std::uint64_t length = size == 8 ? 2 : size - 1;
  return access | length << 2;
}

struct Piece {
  std::uint64_t address;
  unsigned size;
};

// Pieces that a register can watch, at most one more than there are registers.
std::vector<Piece> split(std::uint64_t address, std::uint32_t size) {
  std::vector<Piece> pieces;
  while (size > 0 && pieces.size() <= DebugRegisters::kCount) {
    unsigned part = 8;
    while (part > size || address % part != 0) part /= 2;
    pieces.push_back({address, part});
    address += part;
    size -= part;
  }
  return pieces;
}

}  // namespace

DebugRegisters::Slot *DebugRegisters::find(const Slot &wanted) {
  for (Slot &slot : slots_) {
    if (slot.users > 0 && effective(slot.kind) == effective(wanted.kind) &&
        slot.address == wanted.address && slot.size == wanted.size) {
      return &slot;
    }
  }
  return nullptr;
}

Result<void> DebugRegisters::insert(const Breakpoint &breakpoint) {
  const bool code = breakpoint.kind == BreakpointKind::Hardware;
  if (breakpoint.kind == BreakpointKind::Software || breakpoint.size == 0) return Err(Errno::Inval);
  if (code && breakpoint.size != 1) return Err(Errno::Inval);
  const auto before = slots_;
  for (const Piece &piece : split(breakpoint.address, breakpoint.size)) {
    const Slot wanted{1, breakpoint.kind, piece.address, piece.size, breakpoint.address};
    if (Slot *same = find(wanted)) {
      ++same->users;
      continue;
    }
    const auto unused = std::find_if(slots_.begin(), slots_.end(),
                                     [](const Slot &slot) { return slot.users == 0; });
    if (unused == slots_.end()) {
      slots_ = before;
      return Err(Errno::NoSpc);
    }
    *unused = wanted;
  }
  return {};
}

Result<void> DebugRegisters::remove(const Breakpoint &breakpoint) {
  for (const Piece &piece : split(breakpoint.address, breakpoint.size)) {
    Slot *slot = find({1, breakpoint.kind, piece.address, piece.size, breakpoint.address});
    if (slot == nullptr) return Err(Errno::NoEnt);
    if (--slot->users == 0) *slot = Slot{};
  }
  return {};
}

bool DebugRegisters::empty() const {
  return std::all_of(slots_.begin(), slots_.end(),
                     [](const Slot &slot) { return slot.users == 0; });
}

std::uint64_t DebugRegisters::control() const {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < kCount; ++i) {
    if (slots_[i].users == 0) continue;
    value |= std::uint64_t{1} << (2 * i);  // Ln
    value |= control_bits(slots_[i].kind, slots_[i].size) << (16 + 4 * i);
  }
  return value;
}

Result<void> DebugRegisters::load(Tracee &tracee, pid_t tid) const {
  TRY(tracee.set_debug_register(tid, 7, 0));
  for (unsigned i = 0; i < kCount; ++i) {
    if (slots_[i].users > 0) TRY(tracee.set_debug_register(tid, i, slots_[i].address));
  }
  const std::uint64_t wanted = control();
  if (wanted != 0) TRY(tracee.set_debug_register(tid, 7, wanted));
  return {};
}

std::optional<DebugRegisters::Hit> DebugRegisters::hit(std::uint64_t status) const {
  for (unsigned i = 0; i < kCount; ++i) {
    if ((status >> i & 1) == 0 || slots_[i].users == 0) continue;
    return Hit{slots_[i].kind, slots_[i].asked, slots_[i].address};
  }
  return std::nullopt;
}

}  // namespace cowbird::debug
