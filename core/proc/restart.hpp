// What becomes of a system call that a signal interrupted (signal(7), "Interruption of system
// calls"). Pure; used by signal delivery and its unit test.
#pragma once

#include <cstdint>

#include "abi/signal.hpp"
#include "base/errno.hpp"

namespace cowbird {

enum class Restart : std::uint8_t {
  None,       // the result stands
  Interrupt,  // the result becomes EINTR
  Again,      // the call is made again with the same number and arguments
  Block,      // restart_syscall(2) is made instead
};

// `result` is what is in rax after a system call. With a handler, `sa_flags` are its flags.
constexpr Restart decide_restart(std::int64_t result, bool handler_runs, std::uint64_t sa_flags) {
  const auto is = [result](Errno error) {
    return result == -static_cast<std::int64_t>(static_cast<std::uint16_t>(error));
  };
  if (is(Errno::RestartNoIntr)) return Restart::Again;
  if (is(Errno::RestartSys)) {
    const bool interrupts = handler_runs && (sa_flags & abi::kSA_RESTART) == 0;
    return interrupts ? Restart::Interrupt : Restart::Again;
  }
  if (is(Errno::RestartNoHand)) return handler_runs ? Restart::Interrupt : Restart::Again;
  if (is(Errno::RestartBlock)) return handler_runs ? Restart::Interrupt : Restart::Block;
  return Restart::None;
}

}  // namespace cowbird
