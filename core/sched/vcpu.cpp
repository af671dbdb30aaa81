// vCPUs: host threads that run kernel threads, their idle loop, and the switch between stacks.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.hpp"
#include "sched/clock.hpp"
#include "sched/cpu_time.hpp"
#include "sched/internals.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cowbird {
namespace {

thread_local Vcpu *host_thread_vcpu = nullptr;

void set_this_vcpu(Vcpu *vcpu) { host_thread_vcpu = vcpu; }

// Where AddressSanitizer must be told about a change of stacks: before it (with the place for the
// left stack's fake frames, none when that stack is never used again) and after.
void context_switch(Fiber &from, Fiber &to, [[maybe_unused]] bool from_is_dead) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(from_is_dead ? nullptr : &from.fake_stack,
                                 reinterpret_cast<void *>(to.low), to.high - to.low);
#endif
  cowbird_switch_context(&from.context, &to.context);
  finish_switch(from);
}

// Makes `next` the vCPU's thread.
void adopt(Vcpu &vcpu, Thread &next, std::int64_t now) {
  auto &sched = next.sched();
  vcpu.current = &next;
  vcpu.slice_start = now;
  sched.vcpu = &vcpu;
  sched.last_vcpu = static_cast<int>(vcpu.index);
  SchedInternals::set_state(next, ThreadState::Running);
}

Thread *pick(Vcpu &vcpu) {
  auto &core = SchedCore::instance();
  if (core.stopping) return nullptr;
  RunEntity *entity = core.queue.pop(static_cast<int>(vcpu.index));
  return entity ? &static_cast<Thread::Sched *>(entity)->thread : nullptr;
}

// The time slice may be over; runs on the irq thread.
void slice_tick(Vcpu &vcpu) {
  if (!vcpu.current || SchedCore::instance().queue.empty()) return;
  const std::int64_t used = cpu_time::now_ns() - vcpu.slice_start;
  if (used + kNsPerMs >= scheduler::kTimeSliceNs) {
    resched(vcpu);
  } else {  // another thread's slice than the one that armed the timer
    vcpu.slice_timer.arm(clock::monotonic_ns() + scheduler::kTimeSliceNs -
                         std::max<std::int64_t>(used, 0));
  }
}

void note_burst(Thread::Sched &sched) {
  sched.mean_burst_ns = (3 * sched.mean_burst_ns + sched.burst_ns) / 4;
  sched.burst_ns = 0;
}

}  // namespace

__attribute__((noinline)) Vcpu *this_vcpu() {
  asm volatile("" ::: "memory");
  return host_thread_vcpu;
}

Vcpu::Vcpu(unsigned i) : index(i), slice_timer([this] { slice_tick(*this); }) {}

void finish_switch([[maybe_unused]] Fiber &self) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);
#endif
  Vcpu &vcpu = *this_vcpu();
  if (Thread *dead = std::exchange(vcpu.dead, nullptr)) {
    dead->sched().stack.reset();
    dead->sched().entry = nullptr;
    dead->unref();  // what start() took
  }
}

void leave_vcpu(Leave how) {
  auto &core = SchedCore::instance();
  Vcpu &vcpu = *this_vcpu();
  Thread &self = *vcpu.current;
  auto &sched = self.sched();
  const std::int64_t now = cpu_time::now_ns();
  vcpu.charge(now);
  vcpu.need_resched = false;
  if (core.frozen) [[unlikely]]
    freeze::note_thread_left();

  Thread *next = how == Leave::Yield ? pick(vcpu) : nullptr;
  if (how == Leave::Yield || how == Leave::Preempted) {
    SchedInternals::set_state(self, ThreadState::Runnable);
    push_runnable(core, sched);
    (how == Leave::Yield ? self.voluntary_switches : self.involuntary_switches)++;
  } else {
    note_burst(sched);
    self.voluntary_switches++;
  }
  if (!next) next = pick(vcpu);
  if (next == &self) {
    adopt(vcpu, self, now);
    return;
  }
  if (how != Leave::Exit) self.on_switch_out();
  sched.vcpu = nullptr;
  vcpu.current = nullptr;
  vcpu.stats.switches++;
  if (how == Leave::Exit) vcpu.dead = &self;
  if (next) {
    adopt(vcpu, *next, now);
  } else {
    --core.running_count;
  }
  context_switch(sched.fiber, next ? next->sched().fiber : vcpu.idle, how == Leave::Exit);
  // From here on this may be another host thread, and `vcpu` another vCPU.
}

void Vcpu::charge(std::int64_t now) {
  const std::uint32_t halts_now = clock::halts();
  std::int64_t delta = std::max<std::int64_t>(now - charged, 0);
  if (halts_now != halts) delta = 0;  // the guest's time stood still in between
  halts = halts_now;
  charged = std::max(charged, now);
  if (!current) {
    if (idling) stats.idle_ns += delta;
    return;
  }
  auto &sched = current->sched();
  sched.vruntime += RunQueue::virtual_time(delta, current->nice);
  sched.burst_ns += delta;
  if (user_context) {
    current->user_ns += delta;
    (current->nice > 0 ? stats.nice_ns : stats.user_ns) += delta;
  } else {
    current->system_ns += delta;
    stats.system_ns += delta;
  }
}

// What charge() will make of it: else a halt would put everybody who comes now behind the one that
// runs, by as long as it lasted.
std::int64_t Vcpu::running_vruntime(std::int64_t now) const {
  const bool halted = clock::halts() != halts;
  const std::int64_t since = halted ? 0 : std::max<std::int64_t>(now - charged, 0);
  return current->sched().vruntime + RunQueue::virtual_time(since, current->nice);
}

// Waits without the lock until unpark(). What is runnable was looked for under the lock before, and
// whoever makes something runnable holds it, so no call is lost.
void Vcpu::park() {
  auto &core = SchedCore::instance();
  charge(cpu_time::now_ns());
  idling = true;
  ++core.idle_count;
  ready.store(0, std::memory_order_relaxed);
  big_kernel_lock.unlock();
  while (ready.load(std::memory_order_acquire) == 0) {
    ::syscall(SYS_futex, reinterpret_cast<std::uint32_t *>(&ready), FUTEX_WAIT_PRIVATE, 0, nullptr,
              nullptr, 0);
  }
  const std::int64_t woken = cpu_time::now_ns();
  big_kernel_lock.lock();
  charge(woken);
  idling = false;
  waking = false;
  --core.waking_count;
}

void Vcpu::unpark() {
  auto &core = SchedCore::instance();
  waking = true;
  --core.idle_count;
  ++core.waking_count;
  ready.store(1, std::memory_order_release);
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t *>(&ready), FUTEX_WAKE_PRIVATE, 1, nullptr,
            nullptr, 0);
}

void Vcpu::main() {
  set_this_vcpu(this);
  pthread_attr_t attributes;
  void *stack = nullptr;
  std::size_t size = 0;
  if (::pthread_getattr_np(::pthread_self(), &attributes) == 0) {
    ::pthread_attr_getstack(&attributes, &stack, &size);
    ::pthread_attr_destroy(&attributes);
  }
  idle.low = reinterpret_cast<std::uint64_t>(stack);
  idle.high = idle.low + size;

  auto &core = SchedCore::instance();
  big_kernel_lock.lock();
  halts = clock::halts();
  charged = cpu_time::now_ns();
  while (!core.stopping) {
    Thread *next = pick(*this);
    if (!next) {
      park();
      continue;
    }
    const std::int64_t now = cpu_time::now_ns();
    charge(now);
    adopt(*this, *next, now);
    ++core.running_count;
    context_switch(idle, next->sched().fiber, false);
  }
  big_kernel_lock.unlock();
  set_this_vcpu(nullptr);
}

}  // namespace cowbird
