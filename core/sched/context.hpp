// Switching between stacks on one host thread. Of the scheduler alone; the unwinder
// (boot/backtrace.cpp) reads SavedFrame.
#pragma once

#include <cstdint>

#include "sched/thread.hpp"

namespace cowbird {

// What switch_context leaves at SavedContext::rsp: the registers that a called function must
// preserve (System V ABI for x86-64, 3.2.1), lowest address first.
struct SavedFrame {
  std::uint32_t mxcsr;
  std::uint16_t x87_control;
  std::uint16_t unused;
  std::uint64_t r15, r14, r13, r12, rbx, rbp;
  std::uint64_t rip;
};
static_assert(sizeof(SavedFrame) == 64, "context.S relies on this layout");

extern "C" {
// Saves the caller in `from` and goes on where `to` was saved; returns when somebody switches back,
// possibly on another host thread. Defined in context.S.
void cowbird_switch_context(SavedContext *from, const SavedContext *to);
// Where a new stack starts: calls cowbird_thread_main with rbx as its argument. The unwinder finds
// the end of the stack here.
void cowbird_thread_entry();
// The address in cowbird_switch_context at which a switched-out thread goes on, with its own stack
// pointer and the registers still to be taken from its SavedFrame.
extern const std::uint64_t cowbird_switched_address;
[[noreturn]] void cowbird_thread_main(Thread *thread);
}

// Lays out a stack whose first switch enters cowbird_thread_main(thread).
SavedContext initial_context(std::uint64_t stack_top, Thread *thread);

}  // namespace cowbird
