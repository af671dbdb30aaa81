#include "engine/stub_space.hpp"

#include <poll.h>

#include "base/log.hpp"
#include "engine/stub_machine.hpp"

namespace cowbird {

namespace {
// Looking at the proof costs about 0.1 us; sleeping and being woken across processors 40 us and
// more.
constexpr std::int64_t kSpinNs = 30'000;
constexpr int kPollMs = 100;
}  // namespace

StubSpace::StubSpace(EngineMachine &machine, StubPool &pool, StubProcess &process)
    : machine_(machine),
      pool_(pool),
      process_(process),
      queue_(process.await_point(), machine.max_runs()) {
  last_published_ = proven_ = process.await_point();
}

StubSpace::~StubSpace() { pool_.give_back(&process_); }

void StubSpace::map(VirtAddr address, Pfn first, std::uint64_t pages, Prot prot, bool populate) {
  MutexLock guard(lock_);
  queue_.map(address, first, pages, prot, populate);
  queued_.store(!queue_.empty(), std::memory_order_release);
}

void StubSpace::unmap(VirtAddr address, std::uint64_t pages) {
  MutexLock guard(lock_);
  queue_.unmap(address, pages);
  queued_.store(!queue_.empty(), std::memory_order_release);
}

void StubSpace::protect(VirtAddr address, std::uint64_t pages, Prot prot) {
  MutexLock guard(lock_);
  queue_.protect(address, pages, prot);
  queued_.store(!queue_.empty(), std::memory_order_release);
}

SyncPoint StubSpace::sync_point() {
  MutexLock guard(lock_);
  return queue_.last_point();
}

SyncPoint StubSpace::proven() {
  const SyncPoint point = process_.proven();
  proven_.store(point, std::memory_order_release);
  if (process_.take_flushed()) {
    queue_.forget_mappings();
    queued_.store(true, std::memory_order_release);
  }
  return point;
}

bool StubSpace::reached(SyncPoint point) {
  if (proven_.load(std::memory_order_acquire) >= point || process_.dead()) return true;
  MutexLock guard(lock_);
  return proven() >= point;
}

bool StubSpace::orders_outstanding(SyncPoint point) { return !reached(point); }

bool StubSpace::feed() {
  while (!queue_.empty()) {
    if (!process_.push(queue_.front())) break;
    queue_.pop();
    machine_.orders.fetch_add(1, std::memory_order_relaxed);
  }
  process_.publish();
  last_published_.store(process_.published_point(), std::memory_order_release);
  queued_.store(!queue_.empty(), std::memory_order_release);
  return queue_.empty();
}

bool StubSpace::publish(SyncPoint &point) {
  while (queued_.load(std::memory_order_acquire)) {
    SyncPoint fed = 0;
    {
      MutexLock guard(lock_);
      if (feed()) break;
      fed = process_.published_point();
    }
    // More than the ring holds: the stub has to make room first.
    if (!wait_proven(fed)) return false;
  }
  point = last_published_.load(std::memory_order_acquire);
  return !process_.dead();
}

// What the ring has no room for waits for the next call.
void StubSpace::flush() {
  {
    MutexLock guard(lock_);
    feed();
  }
  process_.wake();
}

bool StubSpace::synchronize(SyncPoint point) {
  if (reached(point)) return !process_.dead();
  const EngineMachine::Blocking blocking(machine_);
  SyncPoint published = 0;
  return publish(published) && wait_proven(point);
}

bool StubSpace::share_cpu_with_orders() {
  const int cpu = VcpuPlacement::current().pinned_cpu();
  if (cpu < 0) return false;
  MutexLock guard(lock_);
  cpu_set_t mask;
  if (orders_placement_.update(machine_, HandOver::OneCpu, cpu, mask))
    process_.set_affinity(process_.pid(), &mask, sizeof mask);
  return true;
}

bool StubSpace::wait_proven(SyncPoint point) {
  // On one processor with us it runs when we sleep; on another it is worth looking for a while.
  const bool shared = machine_.cpus() == 1 || share_cpu_with_orders();
  process_.wake();
  const std::uint64_t start = machine_.ticks();
  if (!shared) {
    const std::uint64_t limit = machine_.ticks_of(kSpinNs);
    while (machine_.ticks() - start < limit) {
      if (reached(point)) return !process_.dead();
      for (int i = 0; i < 8; ++i) __builtin_ia32_pause();
    }
  }
  {
    MutexLock guard(lock_);
    ++waiters_;
    process_.want_event(true);
  }
  while (!reached(point)) {
    pollfd files[2] = {{process_.event_fd(), POLLIN, 0}, {process_.pid_fd(), POLLIN, 0}};
    ::poll(files, 2, kPollMs);
    if (files[0].revents != 0) process_.drain_event();
    if (files[1].revents != 0 && !process_.dead()) ::poll(nullptr, 0, 1);  // the pool reaps it now
  }
  MutexLock guard(lock_);
  // One event wakes one waiter; it wakes the next.
  if (--waiters_ == 0)
    process_.want_event(false);
  else
    process_.raise_event();
  return !process_.dead();
}

void StubSpace::place_orders_thread(SyncPoint point, HandOver mode, int cpu) {
  if (proven_.load(std::memory_order_relaxed) >= point) return;
  MutexLock guard(lock_);
  cpu_set_t mask;
  if (orders_placement_.update(machine_, mode, cpu, mask))
    process_.set_affinity(process_.pid(), &mask, sizeof mask);
}

Result<unsigned> StubSpace::take_slot() {
  MutexLock guard(lock_);
  auto &threads = process_.threads();
  unsigned free = stub::kMaxThreads;
  for (unsigned slot = 0; slot < stub::kMaxThreads; ++slot) {
    if (threads[slot].in_use) continue;
    if (free == stub::kMaxThreads || threads[slot].tid != 0) free = slot;
    // Slots are filled from below; what lies behind an unmade one was rarely made.
    if (threads[slot].tid != 0 || slot > free) break;
  }
  if (free == stub::kMaxThreads) return Err(Errno::Again);
  threads[free].in_use = true;
  return free;
}

void StubSpace::release_slot(unsigned slot) {
  MutexLock guard(lock_);
  process_.threads()[slot].in_use = false;
}

Result<int> StubSpace::make_thread(unsigned slot) {
  Result<int> made = order_thread(slot);
  // Stubs that nobody uses must not take the room of a thread that somebody wants.
  if (made.is(Errno::Again) && pool_.drop_idle()) made = order_thread(slot);
  return made;
}

Result<int> StubSpace::order_thread(unsigned slot) {
  MutexLock making(thread_lock_);
  StubThread &thread = process_.threads()[slot];
  if (thread.tid != 0) return thread.tid;
  SyncPoint point = 0;
  {
    MutexLock guard(lock_);
    process_.prepare_mailbox(slot);
    queue_.new_thread(slot);
    point = queue_.last_point();
    queued_.store(true, std::memory_order_release);
  }
  SyncPoint published = 0;
  if (!publish(published) || !wait_proven(point)) return Err(Errno::Srch);
  const int tid = TRY(process_.take_thread_id());
  MutexLock guard(lock_);
  thread.tid = tid;
  return tid;
}

}  // namespace cowbird
