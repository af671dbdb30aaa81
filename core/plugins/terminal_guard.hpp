// The table behind restore_host_terminals(): the open channels whose host state must be put back
// when the process dies. Used by core/plugins only, under the big kernel lock.
#pragma once

#include <atomic>
#include <cstddef>

#include "base/result.hpp"

namespace cowbird::plugins {

class TerminalGuard {
 public:
  struct Place {
    std::atomic<void *> self{nullptr};
    std::atomic<void (*)(void *)> restore{nullptr};  // set last, cleared first
  };

  TerminalGuard() = default;
  ~TerminalGuard() { disarm(); }
  TerminalGuard(const TerminalGuard &) = delete;
  TerminalGuard &operator=(const TerminalGuard &) = delete;

  // restore(self) is called by restore_host_terminals() from now until disarm(). NoMem.
  Result<void> arm(void (*restore)(void *), void *self);
  void disarm();

 private:
  Place *place_ = nullptr;
};

}  // namespace cowbird::plugins
