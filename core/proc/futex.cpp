// Futexes. No wake-up is lost: the word is read, compared and the waiter queued without giving the
// big kernel lock up in between, and a waker takes that lock after its program changed the word.
#include "proc/futex.hpp"

#include <array>

#include "base/list.hpp"
#include "mm/user_access.hpp"

namespace cowbird {
namespace {

struct Waiter {
  FutexKey key;
  std::uint32_t bitset = ~0u;
  Thread *thread = nullptr;
  bool woken = false;
  ListNode link;
};
using WaiterList = List<Waiter, &Waiter::link>;

constexpr std::size_t kBuckets = 256;

WaiterList &bucket_of(const FutexKey &key) {
  static std::array<WaiterList, kBuckets> buckets;
  const auto address = reinterpret_cast<std::uintptr_t>(key.object);
  const std::uint64_t hash = (address >> 4) * 0x9e3779b97f4a7c15 + (key.offset >> 2);
  return buckets[(hash ^ (hash >> 32)) % kBuckets];
}

std::uint32_t wake_waiters(const FutexKey &key, std::uint32_t count, std::uint32_t bitset) {
  WaiterList &bucket = bucket_of(key);
  std::uint32_t woken = 0;
  for (auto it = bucket.begin(); it != bucket.end() && woken < count;) {
    Waiter &waiter = *it++;
    if (!(waiter.key == key) || (waiter.bitset & bitset) == 0) continue;
    waiter.woken = true;
    waiter.link.unlink();
    wake(*waiter.thread);
    ++woken;
  }
  return woken;
}

std::uint32_t move_waiters(const FutexKey &from, const FutexKey &to, std::uint32_t count) {
  WaiterList &source = bucket_of(from);
  WaiterList &target = bucket_of(to);
  std::uint32_t moved = 0;
  // Those that move into the same bucket go behind the end that is looked at here.
  std::size_t left = source.size();
  for (auto it = source.begin(); it != source.end() && left > 0 && moved < count; --left) {
    Waiter &waiter = *it++;
    if (!(waiter.key == from)) continue;
    waiter.link.unlink();
    waiter.key = to;
    target.push_back(waiter);
    ++moved;
  }
  return moved;
}

std::int32_t sign_extend_12(std::uint32_t value) {
  return static_cast<std::int32_t>(value << 20) >> 20;
}

// The word's new value; nullopt for an operation that does not exist.
std::optional<std::uint32_t> apply_operation(unsigned op, std::uint32_t old, std::uint32_t arg) {
  switch (op) {
    case 0:
      return arg;
    case 1:
      return old + arg;
    case 2:
      return old | arg;
    case 3:
      return old & ~arg;
    case 4:
      return old ^ arg;
    default:
      return std::nullopt;
  }
}

std::optional<bool> compare(unsigned cmp, std::int32_t old, std::int32_t arg) {
  switch (cmp) {
    case 0:
      return old == arg;
    case 1:
      return old != arg;
    case 2:
      return old < arg;
    case 3:
      return old <= arg;
    case 4:
      return old > arg;
    case 5:
      return old >= arg;
    default:
      return std::nullopt;
  }
}

}  // namespace

Result<FutexKey> futex_key(Mm &mm, VirtAddr address, bool is_private) {
  if ((address & 3) != 0) return Err(Errno::Inval);
  if (address >= kUserMax) return Err(Errno::Fault);
  if (is_private) return FutexKey{&mm, address};
  const Vma *vma = mm.find_vma(address);
  if (vma == nullptr) return Err(Errno::Fault);
  if (vma->sharing != Sharing::Shared || !vma->cache) return FutexKey{&mm, address};
  return FutexKey{vma->cache.get(), vma->offset + (address - vma->start)};
}

Result<void> futex_wait(Task &task, const FutexWait &wait) {
  if (wait.bitset == 0) return Err(Errno::Inval);
  const FutexKey key = TRY(futex_key(*task.mm, wait.address, wait.is_private));
  // This may sleep to fault the page in; nothing below does before the waiter is queued.
  if (TRY(load_user_u32(wait.address)) != wait.expected) return Err(Errno::Again);
  Waiter waiter;
  waiter.key = key;
  waiter.bitset = wait.bitset;
  waiter.thread = &task;
  bucket_of(key).push_back(waiter);
  while (!waiter.woken) {
    const auto slept = sleep_until(wait.deadline_ns, SleepMode::Interruptible, "futex_wait");
    if (waiter.woken) break;
    if (!slept) return slept;
  }
  return {};
}

Result<std::int64_t> futex_wake(Mm &mm, VirtAddr address, bool is_private, std::uint32_t count,
                                std::uint32_t bitset) {
  if (bitset == 0) return Err(Errno::Inval);
  const FutexKey key = TRY(futex_key(mm, address, is_private));
  return wake_waiters(key, count, bitset);
}

void futex_wake_address(Mm &mm, VirtAddr address, std::uint32_t count) {
  const auto shared = futex_key(mm, address, false);
  const std::uint32_t woken = shared ? wake_waiters(*shared, count, ~0u) : 0;
  if (woken < count) wake_waiters(FutexKey{&mm, address}, count - woken, ~0u);
}

Result<std::int64_t> futex_requeue(Mm &mm, const FutexRequeue &request) {
  const FutexKey from = TRY(futex_key(mm, request.from, request.is_private));
  const FutexKey to = TRY(futex_key(mm, request.to, request.is_private));
  if (request.expected && TRY(load_user_u32(request.from)) != *request.expected) {
    return Err(Errno::Again);
  }
  const std::uint32_t woken = wake_waiters(from, request.wake, ~0u);
  const std::uint32_t moved = from == to ? 0 : move_waiters(from, to, request.requeue);
  return request.expected ? woken + moved : woken;
}

Result<std::int64_t> futex_wake_op(Mm &mm, VirtAddr first, VirtAddr second, bool is_private,
                                   std::uint32_t wake_first, std::uint32_t wake_second,
                                   std::uint32_t operation) {
  const FutexKey key1 = TRY(futex_key(mm, first, is_private));
  const FutexKey key2 = TRY(futex_key(mm, second, is_private));
  const unsigned op = (operation >> 28) & 7;
  const bool shifted = (operation >> 31) != 0;
  const unsigned cmp = (operation >> 24) & 15;
  std::int32_t op_arg = sign_extend_12((operation >> 12) & 0xfff);
  const std::int32_t cmp_arg = sign_extend_12(operation & 0xfff);
  if (shifted) op_arg = static_cast<std::int32_t>(1u << (op_arg & 31));
  std::uint32_t old = TRY(load_user_u32(second));
  for (;;) {
    const auto wanted = apply_operation(op, old, static_cast<std::uint32_t>(op_arg));
    if (!wanted) return Err(Errno::NoSys);
    const std::uint32_t seen = TRY(cmpxchg_user_u32(second, old, *wanted));
    if (seen == old) break;
    old = seen;
  }
  const auto matches = compare(cmp, static_cast<std::int32_t>(old), cmp_arg);
  if (!matches) return Err(Errno::NoSys);
  std::uint32_t woken = wake_waiters(key1, wake_first, ~0u);
  if (*matches) woken += wake_waiters(key2, wake_second, ~0u);
  return woken;
}

}  // namespace cowbird
