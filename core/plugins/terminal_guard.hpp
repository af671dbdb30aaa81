// The table behind restore_host_terminals(): the open channels whose host state must be put back
// when the process dies. Used by core/plugins only, under the big kernel lock.
#pragma once

#include <cstddef>

#include "base/result.hpp"

namespace cowbird::plugins {

class TerminalGuard {
 public:
  TerminalGuard() = default;
  ~TerminalGuard() { disarm(); }
  TerminalGuard(const TerminalGuard &) = delete;
  TerminalGuard &operator=(const TerminalGuard &) = delete;

  // restore(self) is called by restore_host_terminals() from now until disarm(). NFile: too many.
  Result<void> arm(void (*restore)(void *), void *self);
  void disarm();

 private:
  static constexpr std::size_t kNone = ~std::size_t{0};
  std::size_t slot_ = kNone;
};

}  // namespace cowbird::plugins
