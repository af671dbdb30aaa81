// What the debugger knows of the kernel: one constant object in the kernel's program with the
// addresses of the roots and the offsets of the members that it reads, and a few functions and
// words at which it stops or waits. The debugger finds all of it by name in the program's symbol
// table and reads the rest out of the memory of the stopped process or of a core file. The kernel
// calls none of the debugger's code and pays nothing for the table.
//
// This header is all that debug/ and the kernel share. It says how things are laid out in the
// program that carries the object, so a debugger of another build can read it too, as long as
// `version` is the same: members are added at the end of a group only together with a new version.
#pragma once

#include <cstdint>

namespace cowbird::debug_view {

inline constexpr char kMagic[8] = {'C', 'o', 'w', 'b', 'i', 'r', 'd', 'V'};
inline constexpr std::uint32_t kVersion = 2;
// An offset that this build does not have.
inline constexpr std::uint32_t kNone = ~0u;

using Offset = std::uint32_t;

// Strings are std::string, vectors std::vector, tables std::map and std::unordered_map of
// libstdc++; the reader knows their layout. "->" is a plain pointer, a Ref or a std::unique_ptr,
// which all are one address.

struct ListLayout {  // base/list.hpp
  Offset next, prev;
};

struct ThreadLayout {  // sched/thread.hpp
  Offset all_link, id, name, state, wait_channel, sched, nice, user_ns, system_ns, start_time_ns,
      active_mm, runs_while_frozen, blocked_on /* -> SleepMutex */;
  std::uint32_t size;
};
// The values of Thread's state.
enum class ThreadStateValue : std::uint8_t {
  Runnable,
  Running,
  Interruptible,
  Uninterruptible,
  Stopped,
  Traced,
  Dead,
  New,
};

struct SchedLayout {  // Thread::Sched
  Offset saved_rsp, stack_low, stack_high, vcpu, started, last_vcpu;
  std::uint32_t size;
};

struct VcpuLayout {  // Vcpu
  Offset index, pthread, idle_rsp, current, user_context, idling, need_resched;
  std::uint32_t size;
};

struct SchedCoreLayout {  // SchedCore
  Offset vcpus /* vector of -> */, threads /* list of Thread by all_link */, frozen;
};

struct MutexLayout {  // base/lock.hpp
  Offset state, owner /* host thread id */;
};

struct SleepMutexLayout {  // sched/wait.hpp
  Offset owner /* -> Thread */, held, wait_channel;
};

struct ClockLayout {  // clock::State
  Offset sequence, base, frozen, stopped, halts, realtime_offset;
};

struct TaskLayout {  // proc/task.hpp
  Offset tid, process, comm, mm, context, syscall_number, killed;
  std::uint32_t size;
};

struct ProcessLayout {
  Offset pid, pgid, sid, parent, zombie, exit_status, exiting, exit_comm;
  std::uint32_t size;
};

struct ContextLayout {  // engine/platform.hpp
  Offset regs;          // abi::UserRegs as of the last trap
  Offset host_tid;      // int: the host thread in which its guest code runs; 0: none yet
};

struct MmLayout {  // mm/mm.hpp, mm/page_table.hpp, mm/phys_memory.hpp
  Offset private_part, exe, auxv;
  Offset page_table /* of Mm::Private */, root /* node of PageTable */;
  Offset phys_base /* of PhysMemory */, phys_pages;
  // A node is an array of 512 pointers; a leaf one of 512 words: frame number << 12, bit 0 present,
  // 1 readable, 2 writable, 3 executable.
};

struct LogLayout {  // base/log_ring.hpp
  Offset records, next;
  std::uint32_t count, record_size;
  Offset record_sequence, record_time, record_level, record_text;
};

struct PidTableLayout {  // proc/pid_table.hpp
  Offset processes /* map of pid and -> Process */, tasks /* hash map of tid and -> Task */;
};

struct MountLayout {  // vfs/mount_table.hpp, vfs/mount.hpp, vfs/dentry.hpp
  Offset all /* vector of -> Mount, of the table */;
  Offset id, flags, source, type, root /* -> Dentry */, parent /* -> Mount */,
      mountpoint /* -> Dentry */;
  Offset dentry_parent, dentry_name, dentry_unlinked;
};

struct BlockLayout {  // block/block_registry.hpp, block/block_device.hpp
  Offset devices /* vector of -> BlockDevice, of the registry */;
  Offset name, major, minor, stats;  // stats: the words of BlockDevice::Stats
};

struct SocketLayout {  // net/socket.hpp
  Offset all_link, domain, type, protocol, listening, address, flags, inode;
  Offset inode_number;
};

struct IrqLayout {  // irq/irq_state.hpp
  Offset watches /* map of key and source */, timer_count, post_count, programmed;
  Offset source_name, source_count;
};

struct Table {
  char magic[8];
  std::uint32_t version;
  std::uint32_t size;   // of this object
  const char *release;  // what `cowbird --version` says

  // Roots. "&" is the address of a pointer that may be null yet.
  const void *sched_core;        // & SchedCore
  const void *big_kernel_lock;   // Mutex
  const void *clock;             // clock::State
  const void *task_vtable;       // what the first word of a Thread that is a Task holds
  const void *switched_address;  // a word: where a switched-out thread goes on
  const void *log;               // & LogRing
  const void *pid_table;         // & PidTable
  const void *mounts;            // & MountTable
  const void *blocks;            // & block::Registry
  const void *sockets;           // & Sockets::All
  const void *irq;               // & irq::Irq
  const void *phys;              // & PhysMemory

  ListLayout list;
  ThreadLayout thread;
  SchedLayout sched;
  VcpuLayout vcpu;
  SchedCoreLayout core;
  MutexLayout mutex;
  SleepMutexLayout sleep_mutex;
  ClockLayout clock_state;
  TaskLayout task;
  ProcessLayout process;
  ContextLayout context;
  MmLayout mm;
  LogLayout log_ring;
  PidTableLayout pids;
  MountLayout mount;
  BlockLayout block;
  SocketLayout socket;
  IrqLayout irq_state;
};

}  // namespace cowbird::debug_view

extern "C" {
extern const cowbird::debug_view::Table cowbird_debug_view;
}
