// What the debugger knows of the kernel: one constant object in the kernel's program with the
// addresses of the roots and the offsets of the members that it reads, and a few functions and words
// at which it stops or waits. The debugger finds all of it by name in the program's symbol table and
// reads the rest out of the memory of the stopped process or of a core file. The kernel calls none of
// the debugger's code and pays nothing for the table.
//
// This header is all that debug/ and the kernel share. It says how things are laid out in the program
// that carries the object, so a debugger of another build can read it too, as long as `version` is
// the same: members are added at the end of a group only together with a new version.
#pragma once

#include <cstdint>

namespace cowbird::debug_view {

inline constexpr char kMagic[8] = {'C', 'o', 'w', 'b', 'i', 'r', 'd', 'V'};
inline constexpr std::uint32_t kVersion = 1;
// An offset that this build does not have.
inline constexpr std::uint32_t kNone = ~0u;

using Offset = std::uint32_t;

// Strings are std::string, vectors std::vector, tables std::map and std::unordered_map of libstdc++;
// the reader knows their layout. "->" is a plain pointer, a Ref or a std::unique_ptr, which all are
// one address.

struct ListLayout {  // base/list.hpp
  Offset next, prev;
};

struct ThreadLayout {  // sched/thread.hpp
  Offset all_link, id, name, state, wait_channel, sched, nice, user_ns, system_ns, start_time_ns,
      active_mm, runs_while_frozen;
  std::uint32_t size;
};
// The values of Thread's state.
enum class ThreadStateValue : std::uint8_t {
  Runnable, Running, Interruptible, Uninterruptible, Stopped, Traced, Dead,
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
  Offset vcpus /* vector of -> */, threads /* list of Thread by all_link */;
};

struct MutexLayout {  // base/lock.hpp
  Offset state, owner /* host thread id */;
};

struct ClockLayout {  // clock::State
  Offset sequence, base, frozen, stopped, halts;
};

struct TaskLayout {  // proc/task.hpp
  Offset tid, process, comm, mm, context, syscall_number, killed;
  std::uint32_t size;
};

struct ProcessLayout {
  Offset pid, pgid, sid, parent, zombie, exit_status, exiting;
  std::uint32_t size;
};

struct ContextLayout {  // engine/platform.hpp
  Offset regs;          // abi::UserRegs as of the last trap
};

struct Table {
  char magic[8];
  std::uint32_t version;
  std::uint32_t size;  // of this object
  const char *release;  // what `cowbird --version` says

  // Roots. "&" is the address of a pointer that may be null yet.
  const void *sched_core;        // & SchedCore
  const void *big_kernel_lock;   // Mutex
  const void *clock;             // clock::State
  const void *task_vtable;       // what the first word of a Thread that is a Task holds
  const void *switched_address;  // a word: where a switched-out thread goes on

  ListLayout list;
  ThreadLayout thread;
  SchedLayout sched;
  VcpuLayout vcpu;
  SchedCoreLayout core;
  MutexLayout mutex;
  ClockLayout clock_state;
  TaskLayout task;
  ProcessLayout process;
  ContextLayout context;
};

}  // namespace cowbird::debug_view

extern "C" {
extern const cowbird::debug_view::Table cowbird_debug_view;
}
