#include "sched/thread.hpp"

#include <utility>

#include "base/log.hpp"
#include "sched/clock.hpp"
#include "sched/internals.hpp"

namespace cowbird {
namespace {

Thread::Id next_id = 1;  // big kernel lock

bool asleep(ThreadState state) {
  switch (state) {
    case ThreadState::Interruptible:
    case ThreadState::Uninterruptible:
    case ThreadState::Stopped:
    case ThreadState::Traced:
      return true;
    case ThreadState::Runnable:
    case ThreadState::Running:
    case ThreadState::Dead:
    case ThreadState::New:
      return false;
  }
  return false;
}

class KernelThread final : public Thread {
 public:
  explicit KernelThread(std::string name) : Thread(std::move(name)) {}
};

}  // namespace

char thread_state_letter(ThreadState state) {
  switch (state) {
    case ThreadState::Runnable:
    case ThreadState::Running:
    case ThreadState::New:
      return 'R';
    case ThreadState::Interruptible:
      return 'S';
    case ThreadState::Uninterruptible:
      return 'D';
    case ThreadState::Stopped:
      return 'T';
    case ThreadState::Traced:
      return 't';
    case ThreadState::Dead:
      return 'X';
  }
  return '?';
}

Thread::Sched::Sched(Thread &owner)
    : thread(owner), sleep_timer([this] {
        timed_out = true;
        wake(thread);
      }) {}

Thread::Thread(std::string name)
    : start_time_ns(clock::monotonic_ns()),
      id_(next_id++),
      name_(std::move(name)),
      sched_(new Sched(*this)) {}

Thread::~Thread() {
  KASSERT(state_ == ThreadState::New || state_ == ThreadState::Dead || sched_->abandoned);
  delete sched_;
}

Result<Ref<Thread>> Thread::spawn(std::string name, std::function<void()> entry) {
  auto thread = Ref<Thread>::adopt(new KernelThread(std::move(name)));
  TRY(thread->prepare(std::move(entry)));
  thread->start();
  return thread;
}

Result<void> Thread::prepare(std::function<void()> entry) {
  KASSERT(!sched_->stack && !sched_->started);
  sched_->stack = TRY(allocate_stack());
  sched_->entry = std::move(entry);
  sched_->fiber.low = sched_->stack->low;
  sched_->fiber.high = sched_->stack->high;
  sched_->fiber.context = initial_context(sched_->stack->high, this);
  return {};
}

void Thread::start() {
  KASSERT(sched_->stack && !sched_->started);
  sched_->started = true;
  ref();  // the scheduler's, given back in finish_switch
  SchedCore::instance().threads.push_back(*this);
  enqueue_new(*this);
}

SavedContext initial_context(std::uint64_t stack_top, Thread *thread) {
  // The entry function finds the stack aligned as before a call.
  const std::uint64_t frame_at = (stack_top & ~15ull) - 16 - sizeof(SavedFrame);
  auto *frame = reinterpret_cast<SavedFrame *>(frame_at);
  *frame = SavedFrame{};
  frame->mxcsr = 0x1f80;       // as the System V ABI wants it at the start of a program
  frame->x87_control = 0x37f;  // likewise
  frame->rbx = reinterpret_cast<std::uint64_t>(thread);
  // Behind its first instruction: unwinders look a return address up less one.
  frame->rip = reinterpret_cast<std::uint64_t>(&cowbird_thread_entry) + 1;
  return SavedContext{frame_at};
}

void cowbird_thread_main(Thread *thread) {
  finish_switch(thread->sched().fiber);
  thread->sched().entry();
  thread_exit();
}

void thread_exit() {
  Thread &self = *current_thread();
  self.sched().sleep_timer.cancel();
  self.all_link.unlink();
  SchedInternals::set_state(self, ThreadState::Dead);
  leave_vcpu(Leave::Exit);
  panic("thread '{}' runs after its exit", self.name());
}

Thread *current_thread() {
  Vcpu *vcpu = this_vcpu();
  return vcpu ? vcpu->current : nullptr;
}

bool wake(Thread &thread) {
  auto &sched = thread.sched();
  if (!asleep(thread.state()) || sched.abandoned) return false;
  if (thread.state() == ThreadState::Uninterruptible) --SchedCore::instance().blocked_count;
  enqueue_woken(thread);
  return true;
}

bool wake_interruptible(Thread &thread) {
  const bool killed = thread.state() == ThreadState::Uninterruptible && thread.sched().killable &&
                      thread.fatal_signal_pending();
  if (thread.state() != ThreadState::Interruptible && !killed) return false;
  return wake(thread);
}

void yield() {
  auto &core = SchedCore::instance();
  if (!core.queue.empty() || core.stopping || core.frozen) leave_vcpu(Leave::Yield);
}

bool need_resched() {
  const Vcpu *vcpu = this_vcpu();
  return vcpu && vcpu->need_resched;
}

void for_each_thread(const std::function<void(Thread &)> &function) {
  auto &threads = SchedCore::instance().threads;
  for (auto it = threads.begin(); it != threads.end();) {
    Thread &thread = *it;
    ++it;
    function(thread);
  }
}

}  // namespace cowbird
