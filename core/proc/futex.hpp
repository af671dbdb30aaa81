// Futexes: sleeping on words of guest memory (futex(2)). Needs the big kernel lock.
#pragma once

#include "proc/task.hpp"

namespace cowbird {

// Where a futex word lives: in a shared object, or at an address of one address space.
struct FutexKey {
  const void *object = nullptr;  // PageCache or Mm
  std::uint64_t offset = 0;
  friend bool operator==(const FutexKey &, const FutexKey &) = default;
};
// Inval when the address is not aligned, Fault when nothing is mapped there.
Result<FutexKey> futex_key(Mm &mm, VirtAddr address, bool is_private);

struct FutexWait {
  VirtAddr address = 0;
  bool is_private = false;
  std::uint32_t expected = 0;
  std::uint32_t bitset = ~0u;
  std::int64_t deadline_ns = kNoDeadline;  // guest monotonic
};
// Again when the word is not `expected`; TimedOut; RestartSys when a signal comes. Sleeps.
Result<void> futex_wait(Task &task, const FutexWait &wait);
// How many woke up.
Result<std::int64_t> futex_wake(Mm &mm, VirtAddr address, bool is_private, std::uint32_t count,
                                std::uint32_t bitset);
// For the kernel's own wake-ups (thread exit): private and shared waiters; errors do not matter.
void futex_wake_address(Mm &mm, VirtAddr address, std::uint32_t count);

struct FutexRequeue {
  VirtAddr from = 0, to = 0;
  bool is_private = false;
  std::uint32_t wake = 0, requeue = 0;
  std::optional<std::uint32_t> expected;  // CMP_REQUEUE: Again when it differs
};
// How many woke up, plus, for CMP_REQUEUE, how many were moved.
Result<std::int64_t> futex_requeue(Mm &mm, const FutexRequeue &request);
// FUTEX_WAKE_OP; `operation` is encoded as in futex(2).
Result<std::int64_t> futex_wake_op(Mm &mm, VirtAddr first, VirtAddr second, bool is_private,
                                   std::uint32_t wake_first, std::uint32_t wake_second,
                                   std::uint32_t operation);

}  // namespace cowbird
