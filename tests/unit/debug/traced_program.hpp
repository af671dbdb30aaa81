// What the traced program of the debugger's tests tells of itself: it prints the address of this
// object, and the tests read it out of its memory.
#pragma once

#include <cstdint>

namespace traced {

inline constexpr unsigned kFibers = 4, kVcpus = 2;

enum State : std::uint32_t { kReady, kRunning, kSleeping, kDead };

struct FiberInfo {
  std::uint64_t saved_rsp;  // first: what cowbird_switch_context writes
  std::uint64_t stack_low, stack_high;
  std::uint64_t rounds;
  std::uint32_t state;
  std::int32_t vcpu;
};

struct VcpuInfo {
  std::uint64_t idle_rsp;  // first, as above
  std::uint64_t current;   // 1 + index of a fiber; 0: idle
};

struct Info {
  FiberInfo fibers[kFibers];
  VcpuInfo vcpus[kVcpus];
  // Addresses.
  std::uint64_t switched_address, counted, fiber_work, sleeper_woken, panic_stop, hold, addition,
      spawned, watched, count, cause_fault;
  std::uint64_t room, journal;                                          // boot/debug_journal.hpp
  std::uint64_t rip_relative, calls, repeated, blocked_call, code_end;  // in this order
  // Words that tests write: what to do next.
  std::uint32_t wake_sleeper, make_thread, fault, panic, run_again, load_plugin, spawn, end;
  std::uint32_t spawn_status;  // 1: the child ended well, 2: it did not
};

}  // namespace traced
