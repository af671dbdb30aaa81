// The table of debug_view.hpp, filled in. The only file that looks into the private members of
// every area.
#include "boot/debug_view.hpp"

#include <cstddef>

#include "base/host_thread.hpp"
#include "base/list.hpp"
#include "base/lock.hpp"
#include "base/log_ring.hpp"
#include "block/block_registry.hpp"
#include "engine/platform.hpp"
#include "irq/irq_state.hpp"
#include "mm/mm_private.hpp"
#include "net/socket.hpp"
#include "proc/pid_table.hpp"
#include "sched/bkl.hpp"
#include "sched/clock_state.hpp"
#include "sched/internals.hpp"
#include "vfs/inode.hpp"
#include "vfs/mount_table.hpp"

// Most of the classes are not of standard layout, but none has a virtual base, which is what g++
// and clang need to give the right answer.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"

extern "C" {
// The table of Task's virtual functions; an object's first word points behind its two header words.
extern const void *const cowbird_task_vtable[3] __asm__("_ZTVN7cowbird4TaskE");
}

namespace cowbird {

struct DebugLayout {
  static_assert(static_cast<int>(ThreadState::Dead) ==
                static_cast<int>(debug_view::ThreadStateValue::Dead));
  static_assert(static_cast<int>(ThreadState::New) ==
                static_cast<int>(debug_view::ThreadStateValue::New));
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
      offsetof(Thread, active_mm),     offsetof(Thread, runs_while_frozen),
      offsetof(Thread, blocked_on),    sizeof(Thread)};
  static constexpr debug_view::SchedLayout sched{offsetof(Thread::Sched, fiber.context.rsp),
                                                 offsetof(Thread::Sched, fiber.low),
                                                 offsetof(Thread::Sched, fiber.high),
                                                 offsetof(Thread::Sched, vcpu),
                                                 offsetof(Thread::Sched, started),
                                                 offsetof(Thread::Sched, last_vcpu),
                                                 sizeof(Thread::Sched)};
  static constexpr debug_view::VcpuLayout vcpu{offsetof(Vcpu, index),
                                               offsetof(Vcpu, host) + offsetof(HostThread, handle_),
                                               offsetof(Vcpu, idle.context.rsp),
                                               offsetof(Vcpu, current),
                                               offsetof(Vcpu, user_context),
                                               offsetof(Vcpu, idling),
                                               offsetof(Vcpu, need_resched),
                                               sizeof(Vcpu)};
  static constexpr debug_view::SchedCoreLayout core{
      offsetof(SchedCore, vcpus), offsetof(SchedCore, threads), offsetof(SchedCore, frozen)};
  static constexpr debug_view::MutexLayout mutex{offsetof(Mutex, state_), offsetof(Mutex, owner_)};
  static constexpr debug_view::ClockLayout clock{
      offsetof(clock::State, sequence), offsetof(clock::State, base),
      offsetof(clock::State, frozen),   offsetof(clock::State, stopped),
      offsetof(clock::State, halts),    offsetof(clock::State, realtime_offset)};
  static constexpr debug_view::TaskLayout task{
      offsetof(Task, tid),     offsetof(Task, process),
      offsetof(Task, comm),    offsetof(Task, mm),
      offsetof(Task, context), offsetof(Task, syscall_number),
      offsetof(Task, killed),  sizeof(Task)};
  static constexpr debug_view::ProcessLayout process{
      offsetof(Process, pid),     offsetof(Process, pgid),      offsetof(Process, sid),
      offsetof(Process, parent),  offsetof(Process, zombie),    offsetof(Process, exit_status),
      offsetof(Process, exiting), offsetof(Process, exit_comm), sizeof(Process)};
  static constexpr debug_view::ContextLayout context{offsetof(Context, regs_),
                                                     offsetof(Context, host_tid_)};
  static constexpr debug_view::SleepMutexLayout sleep_mutex{offsetof(SleepMutex, owner_),
                                                            offsetof(SleepMutex, held_),
                                                            offsetof(SleepMutex, wait_channel_)};
  static_assert(offsetof(PageTable::Node, children) == 0 &&
                offsetof(PageTable::Leaf, entries) == 0 && sizeof(Pte) == 8);
  static_assert(Pte::kPresent == 1 && Pte::kRead == 2 && Pte::kWrite == 4 && Pte::kExec == 8);
  static constexpr debug_view::MmLayout mm{
      offsetof(Mm, private_),
      offsetof(Mm, exe),
      offsetof(Mm, auxv),
      offsetof(Mm::Private, table),
      offsetof(PageTable, root_) + offsetof(PageTable::Node, children),
      offsetof(PhysMemory, base_),
      offsetof(PhysMemory, total_)};
  static constexpr debug_view::LogLayout log{
      offsetof(LogRing, records), offsetof(LogRing, next),       LogRing::kRecords,
      sizeof(LogRecord),          offsetof(LogRecord, sequence), offsetof(LogRecord, time_ns),
      offsetof(LogRecord, level), offsetof(LogRecord, text)};
  static constexpr debug_view::PidTableLayout pids{offsetof(PidTable, processes),
                                                   offsetof(PidTable, tasks)};
  static constexpr debug_view::MountLayout mount{
      offsetof(MountTable, all), offsetof(Mount, id),         offsetof(Mount, flags),
      offsetof(Mount, source),   offsetof(Mount, type),       offsetof(Mount, root),
      offsetof(Mount, parent),   offsetof(Mount, mountpoint), offsetof(Dentry, parent_),
      offsetof(Dentry, name_),   offsetof(Dentry, unlinked_)};
  static_assert(sizeof(BlockDevice::Stats) == 8 * sizeof(std::uint64_t));
  static constexpr debug_view::BlockLayout block{
      offsetof(block::Registry, devices), offsetof(BlockDevice, name_),
      offsetof(BlockDevice, major_), offsetof(BlockDevice, minor_), offsetof(BlockDevice, stats_)};
  static constexpr debug_view::SocketLayout socket{
      offsetof(Socket, all_link_), offsetof(Socket, domain_),    offsetof(Socket, type_),
      offsetof(Socket, protocol_), offsetof(Socket, listening_), offsetof(Socket, shown_address_),
      offsetof(Socket, flags_),    offsetof(Socket, inode),      offsetof(Inode, number_)};
  static constexpr debug_view::IrqLayout irq{
      offsetof(irq::Irq, watches),    offsetof(irq::Irq, timer_count),
      offsetof(irq::Irq, post_count), offsetof(irq::Irq, programmed),
      offsetof(irq::Watched, name),   offsetof(irq::Watched, count)};
};

}  // namespace cowbird

extern "C" {
using cowbird::DebugLayout;
constinit const cowbird::debug_view::Table cowbird_debug_view __attribute__((used)) = {
    {'C', 'o', 'w', 'b', 'i', 'r', 'd', 'V'},
    cowbird::debug_view::kVersion,
    sizeof(cowbird::debug_view::Table),
    COWBIRD_VERSION,

    &cowbird::SchedCore::made,
    &cowbird::big_kernel_lock,
    &cowbird::clock::state,
    &cowbird_task_vtable[2],
    &cowbird::cowbird_switched_address,
    &cowbird::LogRing::made,
    &cowbird::PidTable::made,
    &cowbird::MountTable::made,
    &cowbird::block::Registry::made,
    &cowbird::Sockets::made,
    &cowbird::irq::Irq::made,
    &cowbird::PhysMemory::current,

    DebugLayout::list,
    DebugLayout::thread,
    DebugLayout::sched,
    DebugLayout::vcpu,
    DebugLayout::core,
    DebugLayout::mutex,
    DebugLayout::sleep_mutex,
    DebugLayout::clock,
    DebugLayout::task,
    DebugLayout::process,
    DebugLayout::context,
    DebugLayout::mm,
    DebugLayout::log,
    DebugLayout::pids,
    DebugLayout::mount,
    DebugLayout::block,
    DebugLayout::socket,
    DebugLayout::irq,
};
}
