// The signal frame of x86-64: what lies on the guest's stack when a handler is entered, and what
// rt_sigreturn(2) makes of it. proc/signal_deliver.cpp and the system calls that show siginfo use
// it.
#pragma once

#include <optional>

#include "abi/signal.hpp"
#include "proc/task.hpp"

namespace cowbird {

abi::Siginfo encode_siginfo(const SignalInfo &info);
// What a program passed to rt_sigqueueinfo(2).
SignalInfo decode_siginfo(const abi::Siginfo &info);

struct FrameLayout {
  VirtAddr frame = 0;   // of abi::RtSigframe: the handler's rsp
  VirtAddr xstate = 0;  // of the XSAVE area, 64-byte aligned
};
// Where the frame goes below `sp`, which is the interrupted rsp or the top of the alternate stack.
// nullopt when there is no room below.
std::optional<FrameLayout> layout_signal_frame(VirtAddr sp, bool on_alternate_stack,
                                               std::size_t xstate_size);

// The least stack that a handler's frame needs (AT_MINSIGSTKSZ).
std::uint64_t minimal_signal_stack(std::size_t xstate_size);

// SS_ONSTACK, SS_DISABLE or 0 for a stack pointer, as sigaltstack(2) reports.
std::uint32_t alternate_stack_state(const Task::AltStack &stack, VirtAddr sp);

// Builds the frame and enters the handler; Fault when the stack cannot take it.
Result<void> push_signal_frame(Task &task, const SignalInfo &info, const SignalAction &action,
                               SignalSet mask);

// Bits of XCR0 whose state lies inside an XSAVE area of this size.
std::uint64_t user_xfeatures(std::size_t xstate_size);

}  // namespace cowbird
