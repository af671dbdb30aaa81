// Stacks of kernel threads: mapped memory with a guard below. Freed stacks are kept for reuse,
// because fork is hot and mapping costs microseconds; at most kMaxPooledStacks of them. Big kernel
// lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.hpp"
#include "base/units.hpp"

namespace cowbird {

// More than a page, so that a function with a large frame cannot step over it.
inline constexpr std::size_t kStackGuardSize = 16 * kKiB;
inline constexpr std::size_t kMaxPooledStacks = 64;

struct Stack {
  std::uint64_t guard = 0;  // lowest address of the mapping
  std::uint64_t low = 0;
  std::uint64_t high = 0;
};

struct StackRelease {
  void operator()(Stack *stack) const;
};
using StackPointer = std::unique_ptr<Stack, StackRelease>;

// A stack of kKernelStackSize bytes; its content is undefined. Fails with NoMem.
Result<StackPointer> allocate_stack();
// For tests.
std::size_t pooled_stacks();

}  // namespace cowbird
