// Backtraces of kernel stacks: of the caller, of a fault, and of a kernel thread that is not
// running. Unwinding is LLVM libunwind's; it reads the stack with plain loads, so a stack that was
// overwritten can make it fault. Each frame's stack pointer must be inside the stack and above the
// one before.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sched/thread.hpp"

namespace cowbird::boot {

// A frame as the unwinder gives it. For all but the first frame of a stopped context, `pc` is the
// address to which a call returns, which may be behind the function's last instruction.
struct RawFrame {
  std::uint64_t pc = 0;
  bool is_return = true;
  std::uint64_t lookup() const { return is_return && pc != 0 ? pc - 1 : pc; }
};

struct StackRange {
  std::uint64_t low = 0;
  std::uint64_t high = UINT64_MAX;
};

// How unwinding ended.
enum class UnwindEnd : std::uint8_t { Complete, Full, Broken };
struct Unwound {
  std::size_t count = 0;
  UnwindEnd end = UnwindEnd::Complete;
};

// These allocate nothing and take no lock but the loader's. Any host thread.
Unwound unwind_here(std::span<RawFrame> out, const StackRange &range);
Unwound unwind_ucontext(const ucontext_t &context, std::span<RawFrame> out,
                        const StackRange &range);
// The stack that holds `stack_pointer` if it is the current thread's, else everything above it.
StackRange current_stack(std::uint64_t stack_pointer);

// A frame with names.
struct Frame {
  std::uint64_t pc = 0;
  std::string function;            // demangled; empty when unknown
  std::uint64_t offset = 0;        // in the function
  std::string object;              // the program's or plugin's path
  std::uint64_t file_address = 0;  // for addr2line(1)
};
Frame symbolise(const RawFrame &frame);
// "0x000055d0c0ffee00 cowbird::yield()+0x12 (cowbird+0x1c0ffee)"
std::string format_frame(const Frame &frame);

inline constexpr std::size_t kMaxFrames = 64;

// The frames of a kernel thread, innermost first; empty while it runs on a vCPU (it has no saved
// context then) and after its end. Big kernel lock.
std::vector<Frame> backtrace_of(const Thread &thread);
// The caller's.
std::vector<Frame> backtrace_here();

}  // namespace cowbird::boot
