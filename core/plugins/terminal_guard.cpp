#include "plugins/terminal_guard.hpp"

#include <atomic>
#include <cstdlib>

#include "plugins/plugin_registry.hpp"

namespace cowbird {
namespace plugins {
namespace {

struct Slot {
  std::atomic<void *> self{nullptr};
  std::atomic<void (*)(void *)> restore{nullptr};  // set last, cleared first
};
constexpr std::size_t kSlots = 256;
Slot slots[kSlots];

}  // namespace

Result<void> TerminalGuard::arm(void (*restore)(void *), void *self) {
  static const int at_exit = std::atexit(restore_host_terminals);
  if (at_exit != 0) return Err(Errno::NoMem);
  disarm();
  for (std::size_t i = 0; i < kSlots; ++i) {
    if (slots[i].restore.load(std::memory_order_relaxed)) continue;
    slots[i].self.store(self, std::memory_order_relaxed);
    slots[i].restore.store(restore, std::memory_order_release);
    slot_ = i;
    return {};
  }
  return Err(Errno::NFile);
}

void TerminalGuard::disarm() {
  if (slot_ == kNone) return;
  slots[slot_].restore.store(nullptr, std::memory_order_release);
  slot_ = kNone;
}

}  // namespace plugins

void restore_host_terminals() {
  for (plugins::Slot &slot : plugins::slots) {
    if (auto *restore = slot.restore.load(std::memory_order_acquire)) {
      restore(slot.self.load(std::memory_order_relaxed));
    }
  }
}

}  // namespace cowbird
