// Agent expressions: the bytecode in which gdb sends conditions of breakpoints (GDB manual,
// appendix "The GDB Agent Expression Mechanism"), so that a condition that is false costs no
// packet. The bytes are gdb's: a hostile expression ends in an error, never in a loop without end
// or an overflow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.hpp"

namespace cowbird::debug {

// What an expression may read.
struct AgentContext {
  // gdb's register number (target.xml's order). NoEnt when it is not known.
  std::function<Result<std::uint64_t>(unsigned number)> read_register;
  std::function<Result<void>(std::uint64_t address, std::span<std::byte> out)> read_memory;
};

class AgentExpression {
 public:
  static constexpr std::size_t kMaxCode = 4096;
  static constexpr std::size_t kMaxStack = 64;
  static constexpr unsigned kMaxSteps = 100'000;

  // Checks the whole code: known opcodes, operands inside, jumps to instruction starts, no way off
  // the end. Inval; OpNotSupp when it is right but does what only tracepoints and floating-point
  // conditions need (gdb checks the condition of each stop itself: such a breakpoint always stops).
  static Result<AgentExpression> parse(std::span<const std::byte> code);
  // The value on top of the stack at `end`. Fault: memory or a register could not be read; Range:
  // stack overflow or underflow, too many steps; Inval: division by zero. A caller takes an error
  // for true, so that the person at gdb sees it.
  Result<std::uint64_t> evaluate(const AgentContext &context) const;
  std::span<const std::byte> code() const { return code_; }
  bool operator==(const AgentExpression &) const = default;

 private:
  explicit AgentExpression(std::vector<std::byte> code) : code_(std::move(code)) {}
  std::vector<std::byte> code_;
};

}  // namespace cowbird::debug
