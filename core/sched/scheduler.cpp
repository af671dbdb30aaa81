#include "sched/scheduler.hpp"

#include <algorithm>
#include <string>

#include "base/log.hpp"
#include "engine/platform.hpp"
#include "sched/clock.hpp"
#include "sched/cpu_time.hpp"
#include "sched/internals.hpp"

namespace cowbird {
namespace {

// Threads that sleep again this soon after they were given a vCPU leave those that they wake to
// their own vCPU; waking another one costs about as much.
constexpr std::int64_t kShortBurstNs = 50 * kNsPerUs;
// If they do not sleep after all, an idle vCPU is told after this time.
constexpr std::int64_t kHelpDelayNs = 200 * kNsPerUs;

std::int64_t smallest_running(const SchedCore &core, std::int64_t now) {
  std::int64_t smallest = INT64_MAX;
  for (const auto &vcpu : core.vcpus) {
    if (vcpu->current) smallest = std::min(smallest, vcpu->running_vruntime(now));
  }
  return smallest;
}

Vcpu *furthest_running(const SchedCore &core, std::int64_t now) {
  Vcpu *furthest = nullptr;
  std::int64_t most = INT64_MIN;
  for (const auto &vcpu : core.vcpus) {
    if (!vcpu->current) continue;
    const std::int64_t vruntime = vcpu->running_vruntime(now);
    if (vruntime > most) {
      most = vruntime;
      furthest = vcpu.get();
    }
  }
  return furthest;
}

void arm_slice(Vcpu &vcpu) {
  if (!vcpu.slice_timer.armed()) {
    vcpu.slice_timer.arm(clock::monotonic_ns() + scheduler::kTimeSliceNs);
  }
}

void after_enqueue(SchedCore &core, Thread::Sched &sched, std::int64_t now) {
  load::note_activity();
  if (core.idle_count > 0) {
    if (!this_vcpu()) wake_idle_vcpus(core);  // a vCPU does it when it releases the lock
    return;
  }
  if (core.waking_count > 0 && core.queue.size() <= core.waking_count) return;
  Vcpu *victim = furthest_running(core, now);
  if (!victim) return;
  if (RunQueue::preempts(sched, victim->running_vruntime(now))) {
    resched(*victim);
  } else if (victim->user_context) {
    arm_slice(*victim);
  }
}

// Guest code is about to run while threads wait.
__attribute__((noinline)) void enter_user_contended(Vcpu &vcpu, Context &context) {
  if (vcpu.need_resched) {
    context.interrupt();
    return;
  }
  call_for_help(vcpu);
  arm_slice(vcpu);
}

}  // namespace

SchedCore::SchedCore() : help_timer([this] { wake_idle_vcpus(*this); }) {}

constinit SchedCore *SchedCore::made = nullptr;

SchedCore &SchedCore::instance() {
  // Never destroyed: abandoned threads and static objects may refer to it until the process ends.
  static auto *const core = made = new SchedCore;
  return *core;
}

void wake_idle_vcpus(SchedCore &core) {
  while (core.idle_count > 0 && core.queue.size() > core.waking_count) {
    const int preferred = core.queue.front()->last_vcpu;
    Vcpu *chosen = nullptr;
    for (const auto &vcpu : core.vcpus) {
      if (!vcpu->idling || vcpu->waking) continue;
      if (!chosen || static_cast<int>(vcpu->index) == preferred) chosen = vcpu.get();
    }
    chosen->unpark();
  }
}

void enqueue_new(Thread &thread) {
  auto &core = SchedCore::instance();
  auto &sched = thread.sched();
  const std::int64_t now = cpu_time::now_ns();
  core.queue.place_new(sched, smallest_running(core, now));
  SchedInternals::set_state(thread, ThreadState::Runnable);
  if (push_runnable(core, sched)) after_enqueue(core, sched, now);
}

void enqueue_woken(Thread &thread) {
  auto &core = SchedCore::instance();
  auto &sched = thread.sched();
  const std::int64_t now = cpu_time::now_ns();
  core.queue.place_woken(sched, smallest_running(core, now));
  SchedInternals::set_state(thread, ThreadState::Runnable);
  if (push_runnable(core, sched)) after_enqueue(core, sched, now);
}

void resched(Vcpu &vcpu) {
  if (vcpu.need_resched) return;
  vcpu.need_resched = true;
  if (vcpu.user_context) vcpu.user_context->interrupt();
}

void call_for_help(Vcpu &vcpu) {
  auto &core = SchedCore::instance();
  if (core.idle_count == 0 || core.queue.size() <= core.waking_count) return;
  const bool sleeps_soon = vcpu.current && vcpu.current->sched().mean_burst_ns < kShortBurstNs;
  if (!sleeps_soon || !timers::driven() || core.frozen) {
    wake_idle_vcpus(core);
  } else if (!core.help_timer.armed()) {
    core.help_timer.arm(clock::monotonic_ns() + kHelpDelayNs);
  }
}

namespace scheduler {

Result<void> start(unsigned vcpus) {
  auto &core = SchedCore::instance();
  if (vcpus == 0 || vcpus > kMaxVcpus) return Err(Errno::Inval);
  cpu_time::calibrate();
  {
    BklGuard guard;
    KASSERT(core.vcpus.empty());
    core.stopping = false;
    for (unsigned i = 0; i < vcpus; ++i) core.vcpus.push_back(std::make_unique<Vcpu>(i));
    core.vcpu_count.store(vcpus);
  }
  for (auto &vcpu : core.vcpus) {
    auto host = HostThread::start("vcpu" + std::to_string(vcpu->index),
                                  [target = vcpu.get()] { target->main(); });
    if (!host) {
      const Errno error = host.error();
      stop();
      return Err(error);
    }
    vcpu->host = std::move(*host);
  }
  return {};
}

void stop() {
  auto &core = SchedCore::instance();
  {
    BklGuard guard;
    core.stopping = true;
    for (auto &vcpu : core.vcpus) {
      if (vcpu->idling && !vcpu->waking) {
        vcpu->unpark();
      } else {
        resched(*vcpu);
      }
    }
  }
  for (auto &vcpu : core.vcpus) vcpu->host.join();
  BklGuard guard;
  core.help_timer.cancel();
  core.vcpus.clear();
  core.vcpu_count.store(0);
  core.queue.clear();
  core.held_back.clear();
  freeze::forget();
  for_each_thread([](Thread &thread) {
    thread.sched().abandoned = true;
    thread.sched().sleep_timer.cancel();
  });
}

unsigned vcpu_count() { return SchedCore::instance().vcpu_count.load(std::memory_order_relaxed); }

int current_vcpu() {
  const Vcpu *vcpu = this_vcpu();
  return vcpu ? static_cast<int>(vcpu->index) : -1;
}

void enter_user(Context &context) NO_THREAD_SAFETY_ANALYSIS {
  Vcpu &vcpu = *this_vcpu();
  vcpu.charge(cpu_time::now_ns());
  vcpu.user_context = &context;
  if (!SchedCore::instance().queue.empty() || vcpu.need_resched) [[unlikely]] {
    enter_user_contended(vcpu, context);
  }
  big_kernel_lock.unlock();
}

void leave_user() NO_THREAD_SAFETY_ANALYSIS {
  const std::int64_t now = cpu_time::now_ns();
  big_kernel_lock.lock();
  Vcpu &vcpu = *this_vcpu();
  vcpu.charge(now);
  vcpu.user_context = nullptr;
}

void kick(Thread &thread) {
  const Vcpu *vcpu = thread.sched().vcpu;
  if (vcpu && vcpu->user_context) vcpu->user_context->interrupt();
}

void cond_resched() {
  Vcpu *vcpu = this_vcpu();
  if (vcpu && vcpu->need_resched) leave_vcpu(Leave::Preempted);
}

void update_cpu_times() {
  const std::int64_t now = cpu_time::now_ns();
  for (const auto &vcpu : SchedCore::instance().vcpus) vcpu->charge(now);
}

int vcpu_of(const Thread &thread) {
  const Vcpu *vcpu = const_cast<Thread &>(thread).sched().vcpu;
  return vcpu ? static_cast<int>(vcpu->index) : -1;
}

VcpuStats vcpu_stats(unsigned index) {
  auto &core = SchedCore::instance();
  if (index >= core.vcpus.size()) return {};
  update_cpu_times();
  return core.vcpus[index]->stats;
}

unsigned runnable_count() {
  const auto &core = SchedCore::instance();
  return core.running_count + static_cast<unsigned>(core.queue.size() + core.held_back.size());
}

std::uint64_t context_switches() {
  std::uint64_t sum = 0;
  for (const auto &vcpu : SchedCore::instance().vcpus) sum += vcpu->stats.switches;
  return sum;
}

void charge_irq(std::int64_t ns) {
  auto &core = SchedCore::instance();
  if (!core.vcpus.empty()) core.vcpus[0]->stats.irq_ns += ns;
}

bool saved_context(const Thread &thread, SavedContext &out) {
  const auto &sched = const_cast<Thread &>(thread).sched();
  if (!sched.stack || sched.vcpu) return false;
  out = sched.fiber.context;
  return true;
}

void stack_bounds(const Thread &thread, std::uint64_t &low, std::uint64_t &high) {
  const auto &sched = const_cast<Thread &>(thread).sched();
  low = sched.stack ? sched.stack->low : 0;
  high = sched.stack ? sched.stack->high : 0;
}

}  // namespace scheduler
}  // namespace cowbird
