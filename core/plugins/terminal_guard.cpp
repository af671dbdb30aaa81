#include "plugins/terminal_guard.hpp"

#include <cstdlib>
#include <new>

#include "plugins/plugin_registry.hpp"

namespace cowbird {
namespace plugins {
namespace {

// The places are never given back, since a crash handler may be reading them.
struct Places {
  static constexpr std::size_t kMany = 256;
  TerminalGuard::Place places[kMany];
  std::atomic<Places *> more{nullptr};
};
Places first_places;

TerminalGuard::Place *free_place() {
  for (Places *some = &first_places;;) {
    for (auto &place : some->places) {
      if (!place.restore.load(std::memory_order_relaxed)) return &place;
    }
    Places *next = some->more.load(std::memory_order_relaxed);
    if (!next) {
      next = new (std::nothrow) Places;
      if (!next) return nullptr;
      some->more.store(next, std::memory_order_release);
    }
    some = next;
  }
}

}  // namespace

Result<void> TerminalGuard::arm(void (*restore)(void *), void *self) {
  static const int at_exit = std::atexit(restore_host_terminals);
  if (at_exit != 0) return Err(Errno::NoMem);
  disarm();
  place_ = free_place();
  if (!place_) return Err(Errno::NoMem);
  place_->self.store(self, std::memory_order_relaxed);
  place_->restore.store(restore, std::memory_order_release);
  return {};
}

void TerminalGuard::disarm() {
  if (!place_) return;
  place_->restore.store(nullptr, std::memory_order_release);
  place_ = nullptr;
}

}  // namespace plugins

void restore_host_terminals() {
  using plugins::Places;
  for (Places *some = &plugins::first_places; some;
       some = some->more.load(std::memory_order_acquire)) {
    for (auto &place : some->places) {
      if (auto *restore = place.restore.load(std::memory_order_acquire)) {
        restore(place.self.load(std::memory_order_relaxed));
      }
    }
  }
}

}  // namespace cowbird
