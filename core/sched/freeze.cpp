#include "sched/freeze.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <ctime>

#include "base/log.hpp"
#include "sched/clock.hpp"
#include "sched/internals.hpp"

namespace cowbird::freeze {
namespace {

constexpr std::size_t kHolders = 2;

struct State {
  std::array<bool, kHolders> held{};  // big kernel lock
  bool ended = false;                 // big kernel lock
  void (*listener)(bool) = nullptr;   // big kernel lock
  unsigned waiters = 0;               // big kernel lock
  // Counts the threads that have left a vCPU while the guest was frozen; a futex. No lock.
  std::atomic<std::uint32_t> left{0};
};
State state;

std::int64_t host_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerSec + now.tv_nsec;
}

void move_all(RunQueue &from, RunQueue &to) {
  while (RunEntity *entity = from.pop(-1)) to.push(*entity);
}

// Takes threads off the queue that may not run, and sends those on vCPUs after them.
void stop_threads(SchedCore &core) {
  RunQueue all;
  move_all(core.queue, all);
  core.frozen = true;
  while (RunEntity *entity = all.pop(-1)) {
    push_runnable(core, *static_cast<Thread::Sched *>(entity));
  }
  for (const auto &vcpu : core.vcpus) {
    if (vcpu->current && !vcpu->current->runs_while_frozen) resched(*vcpu);
  }
  // Those that are exempt may have been waiting for a timer of the guest's clock to wake a vCPU.
  wake_idle_vcpus(core);
}

void start_threads(SchedCore &core) {
  core.frozen = false;
  move_all(core.held_back, core.queue);
  wake_idle_vcpus(core);
  note_thread_left();  // who waits for the standstill does so in vain
}

}  // namespace

Result<void> hold(Holder holder) {
  bool &held = state.held[static_cast<std::size_t>(holder)];
  if (state.ended) return Err(Errno::Canceled);
  if (held) return Err(Errno::Exist);
  held = true;
  auto &core = SchedCore::instance();
  if (core.frozen) return {};
  clock::stop();
  stop_threads(core);
  if (state.listener) state.listener(true);
  return {};
}

Result<void> release(Holder holder) {
  bool &held = state.held[static_cast<std::size_t>(holder)];
  if (!held) return Err(Errno::NoEnt);
  held = false;
  for (const bool other : state.held) {
    if (other) return {};
  }
  clock::go();
  start_threads(SchedCore::instance());
  if (state.listener) state.listener(false);
  return {};
}

void end() {
  for (const Holder holder : {Holder::Operator, Holder::Debugger}) {
    [[maybe_unused]] const auto released = release(holder);
  }
  state.ended = true;
}

void on_change(void (*function)(bool frozen)) { state.listener = function; }

bool held(Holder holder) { return state.held[static_cast<std::size_t>(holder)]; }

bool frozen() { return SchedCore::instance().frozen; }

void exempt(Thread &thread, bool on) {
  if (thread.runs_while_frozen == on) return;
  auto &core = SchedCore::instance();
  auto &sched = thread.sched();
  const bool queued = core.frozen && thread.state() == ThreadState::Runnable;
  if (queued) (on ? core.held_back : core.queue).remove(sched);
  thread.runs_while_frozen = on;
  if (queued) push_runnable(core, sched);
  if (!core.frozen) return;
  if (sched.vcpu && !on) resched(*sched.vcpu);
  if (queued && on && !this_vcpu()) wake_idle_vcpus(core);
}

bool quiesced() {
  const auto &core = SchedCore::instance();
  if (!core.frozen) return false;
  for (const auto &vcpu : core.vcpus) {
    if (vcpu->current && !vcpu->current->runs_while_frozen) return false;
  }
  return true;
}

// The caller keeps its vCPU, which nobody else may use now but other exempt threads, and waits on
// the host: the guest's timers stand still.
Result<void> wait_quiesced(std::int64_t timeout_ns) {
  KASSERT(current_thread() && current_thread()->runs_while_frozen);
  const std::int64_t deadline = host_ns() + timeout_ns;
  ++state.waiters;
  Result<void> result;
  while (!quiesced()) {
    const std::int64_t left = deadline - host_ns();
    if (left <= 0 || !frozen()) {
      result = Err(frozen() ? Errno::TimedOut : Errno::Intr);
      break;
    }
    const std::uint32_t seen = state.left.load();
    const timespec wait{left / kNsPerSec, left % kNsPerSec};
    BklReleased released;
    ::syscall(SYS_futex, reinterpret_cast<std::uint32_t *>(&state.left), FUTEX_WAIT_PRIVATE, seen,
              &wait, nullptr, 0);
  }
  --state.waiters;
  return result;
}

void note_thread_left() {
  state.left.fetch_add(1);
  if (state.waiters == 0) return;
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t *>(&state.left), FUTEX_WAKE_PRIVATE,
            INT32_MAX, nullptr, nullptr, 0);
}

void forget() {
  state.ended = false;
  if (!SchedCore::instance().frozen) return;
  state.held = {};
  SchedCore::instance().frozen = false;
  clock::go();
}

}  // namespace cowbird::freeze
