// The table of debug_view.hpp, filled in. The only file that looks into the private members of every
// area.
#include "boot/debug_view.hpp"

#include <cstddef>

#include "base/host_thread.hpp"
#include "base/list.hpp"
#include "base/lock.hpp"
#include "engine/platform.hpp"
#include "proc/task.hpp"
#include "sched/bkl.hpp"
#include "sched/clock_state.hpp"
#include "sched/internals.hpp"

// Most of the classes are not of standard layout, but none has a virtual base, which is what g++ and
// clang need to give the right answer.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"

extern "C" {
// The table of Task's virtual functions; an object's first word points behind its two header words.
extern const void *const cowbird_task_vtable[3] __asm__("_ZTVN7cowbird4TaskE");
}

namespace cowbird {

struct DebugLayout {
  static_assert(static_cast<int>(ThreadState::Dead) ==
                static_cast<int>(debug_view::ThreadStateValue::Dead));
  static_assert(static_cast<int>(ThreadState::Interruptible) ==
                static_cast<int>(debug_view::ThreadStateValue::Interruptible));
  static_assert(sizeof(std::string) == 32 && sizeof(std::vector<int>) == 24,
                "the debugger knows libstdc++'s layout");
  static_assert(sizeof(Ref<Thread>) == 8 && sizeof(std::unique_ptr<Vcpu>) == 8);
  static_assert(offsetof(abi::UserRegs, fs_base) == 168, "user_regs_struct");

  static constexpr debug_view::ListLayout list{offsetof(ListNode, next_),
                                               offsetof(ListNode, prev_)};
  static constexpr debug_view::ThreadLayout thread{
      offsetof(Thread, all_link),      offsetof(Thread, id_),
      offsetof(Thread, name_),         offsetof(Thread, state_),
      offsetof(Thread, wait_channel_), offsetof(Thread, sched_),
      offsetof(Thread, nice),          offsetof(Thread, user_ns),
      offsetof(Thread, system_ns),     offsetof(Thread, start_time_ns),
      offsetof(Thread, active_mm),     debug_view::kNone,
      sizeof(Thread)};
  static constexpr debug_view::SchedLayout sched{offsetof(Thread::Sched, fiber.context.rsp),
                                                 offsetof(Thread::Sched, fiber.low),
                                                 offsetof(Thread::Sched, fiber.high),
                                                 offsetof(Thread::Sched, vcpu),
                                                 offsetof(Thread::Sched, started),
                                                 offsetof(Thread::Sched, last_vcpu),
                                                 sizeof(Thread::Sched)};
  static constexpr debug_view::VcpuLayout vcpu{
      offsetof(Vcpu, index),        offsetof(Vcpu, host) + offsetof(HostThread, handle_),
      offsetof(Vcpu, idle.context.rsp), offsetof(Vcpu, current),
      offsetof(Vcpu, user_context), offsetof(Vcpu, idling),
      offsetof(Vcpu, need_resched), sizeof(Vcpu)};
  static constexpr debug_view::SchedCoreLayout core{offsetof(SchedCore, vcpus),
                                                    offsetof(SchedCore, threads)};
  static constexpr debug_view::MutexLayout mutex{offsetof(Mutex, state_), offsetof(Mutex, owner_)};
  static constexpr debug_view::ClockLayout clock{
      offsetof(clock::State, sequence), offsetof(clock::State, base),
      offsetof(clock::State, frozen), offsetof(clock::State, stopped),
      offsetof(clock::State, halts)};
  static constexpr debug_view::TaskLayout task{
      offsetof(Task, tid),     offsetof(Task, process),        offsetof(Task, comm),
      offsetof(Task, mm),      offsetof(Task, context),        offsetof(Task, syscall_number),
      offsetof(Task, killed),  sizeof(Task)};
  static constexpr debug_view::ProcessLayout process{
      offsetof(Process, pid),         offsetof(Process, pgid),
      offsetof(Process, sid),         offsetof(Process, parent),
      offsetof(Process, zombie),      offsetof(Process, exit_status),
      offsetof(Process, exiting),     sizeof(Process)};
  static constexpr debug_view::ContextLayout context{offsetof(Context, regs_)};
};

}  // namespace cowbird

extern "C" {
using cowbird::DebugLayout;
constinit const cowbird::debug_view::Table cowbird_debug_view
    __attribute__((used)) = {
        {'C', 'o', 'w', 'b', 'i', 'r', 'd', 'V'},
        cowbird::debug_view::kVersion,
        sizeof(cowbird::debug_view::Table),
        COWBIRD_VERSION,

        &cowbird::SchedCore::made,
        &cowbird::big_kernel_lock,
        &cowbird::clock::state,
        &cowbird_task_vtable[2],
        &cowbird::cowbird_switched_address,

        DebugLayout::list,
        DebugLayout::thread,
        DebugLayout::sched,
        DebugLayout::vcpu,
        DebugLayout::core,
        DebugLayout::mutex,
        DebugLayout::clock,
        DebugLayout::task,
        DebugLayout::process,
        DebugLayout::context,
};
}
