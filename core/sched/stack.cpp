#include "sched/stack.hpp"

#include <sys/mman.h>

#include <vector>

#include "sched/thread.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace cowbird {
namespace {

// Big kernel lock. Never destroyed: threads may exit until the process is gone.
std::vector<Stack *> &pool() {
  static auto *const stacks = new std::vector<Stack *>;
  return *stacks;
}

void unmap(Stack *stack) {
  ::munmap(reinterpret_cast<void *>(stack->guard), stack->high - stack->guard);
  delete stack;
}

}  // namespace

Result<StackPointer> allocate_stack() {
  if (!pool().empty()) {
    StackPointer stack(pool().back());
    pool().pop_back();
    return stack;
  }
  constexpr std::size_t kSize = kStackGuardSize + kKernelStackSize;
  void *memory = ::mmap(nullptr, kSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) return Err(Errno::NoMem);
  auto *const usable = static_cast<char *>(memory) + kStackGuardSize;
  if (::mprotect(usable, kKernelStackSize, PROT_READ | PROT_WRITE) != 0) {
    ::munmap(memory, kSize);
    return Err(Errno::NoMem);
  }
  const auto guard = reinterpret_cast<std::uint64_t>(memory);
  return StackPointer(new Stack{guard, guard + kStackGuardSize, guard + kSize});
}

void StackRelease::operator()(Stack *stack) const {
#if defined(__SANITIZE_ADDRESS__)
  // The frames that were live when the thread exited have left their redzones behind.
  __asan_unpoison_memory_region(reinterpret_cast<void *>(stack->low), stack->high - stack->low);
#endif
  if (pool().size() < kMaxPooledStacks) {
    pool().push_back(stack);
  } else {
    unmap(stack);
  }
}

std::size_t pooled_stacks() { return pool().size(); }

}  // namespace cowbird
