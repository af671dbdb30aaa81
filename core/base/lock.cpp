#include "base/lock.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "base/log.hpp"

namespace cowbird {

namespace lock_rank {
#ifdef COWBIRD_LOCK_RANKS
namespace {

struct Held {
  LockRank rank;
  const void *lock;
  const char *name;
};
// Which locks this host thread holds. A kernel thread never moves to another host thread while it
// holds any but the big kernel lock, and that one is handed on with the vCPU, so thread_local is
// right here.
thread_local std::array<Held, 16> held_locks;
thread_local unsigned held_count = 0;

}  // namespace

void acquired(LockRank rank, const void *lock, const char *name) {
  for (unsigned i = 0; i < held_count; ++i) {
    if (held_locks[i].lock == lock) panic("lock '{}' taken twice", name);
    if (held_locks[i].rank >= rank) {
      panic("lock order: '{}' (rank {}) taken while holding '{}' (rank {})", name,
            static_cast<int>(rank), held_locks[i].name, static_cast<int>(held_locks[i].rank));
    }
  }
  if (held_count == held_locks.size())
    panic("lock '{}': more than {} locks held", name, held_count);
  held_locks[held_count++] = {rank, lock, name};
}

void released(LockRank rank, const void *lock) {
  for (unsigned i = held_count; i-- > 0;) {
    if (held_locks[i].lock != lock) continue;
    for (unsigned j = i + 1; j < held_count; ++j) held_locks[j - 1] = held_locks[j];
    --held_count;
    return;
  }
  panic("a lock of rank {} was released by a host thread that does not hold it",
        static_cast<int>(rank));
}

bool held(LockRank rank) {
  for (unsigned i = 0; i < held_count; ++i) {
    if (held_locks[i].rank == rank) return true;
  }
  return false;
}
#else
void acquired(LockRank, const void *, const char *) {}
void released(LockRank, const void *) {}
bool held(LockRank) { return true; }
#endif
}  // namespace lock_rank

namespace {

constexpr int kSpins = 200;

void futex(std::atomic<std::uint32_t> &word, int op, std::uint32_t value) {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t *>(&word), op | FUTEX_PRIVATE_FLAG, value,
            nullptr, nullptr, 0);
}

// Zero until the host thread has asked for its id; locking must cost no system call.
thread_local int cached_tid __attribute__((tls_model("initial-exec"))) = 0;

__attribute__((noinline)) int ask_tid() {
  cached_tid = static_cast<int>(::syscall(SYS_gettid));
  return cached_tid;
}

int own_tid() {
  const int tid = cached_tid;
  return tid != 0 ? tid : ask_tid();
}

}  // namespace

void Mutex::lock() {
  std::uint32_t expected = 0;
  if (!state_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) lock_slow();
  owner_.store(own_tid(), std::memory_order_relaxed);
#ifdef COWBIRD_LOCK_RANKS
  lock_rank::acquired(rank_, this, name_);
#endif
}

void Mutex::lock_slow() {
  for (int i = 0; i < kSpins; ++i) {
    std::uint32_t expected = 0;
    if (state_.compare_exchange_weak(expected, 1, std::memory_order_acquire)) return;
    __builtin_ia32_pause();
  }
  while (state_.exchange(2, std::memory_order_acquire) != 0) futex(state_, FUTEX_WAIT, 2);
}

bool Mutex::try_lock() {
  std::uint32_t expected = 0;
  if (!state_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) return false;
  owner_.store(own_tid(), std::memory_order_relaxed);
#ifdef COWBIRD_LOCK_RANKS
  lock_rank::acquired(rank_, this, name_);
#endif
  return true;
}

void Mutex::unlock() {
#ifdef COWBIRD_LOCK_RANKS
  lock_rank::released(rank_, this);
#endif
  owner_.store(0, std::memory_order_relaxed);
  if (state_.exchange(0, std::memory_order_release) == 2) futex(state_, FUTEX_WAKE, 1);
}

void Mutex::assert_held() const {
#ifdef COWBIRD_LOCK_RANKS
  if (!lock_rank::held(rank_)) panic("lock '{}' is not held where it must be", name_);
#endif
}

}  // namespace cowbird
