// What debuggers leave in the kernel's code, and room for theirs. A debugger that is killed cannot
// take its breakpoints out, nor put a thread back that it has sent elsewhere for a step; the kernel
// does then, when it runs into the first one. No part of the debugger is called; it knows the two
// words by their names.
#pragma once

#include <ucontext.h>

#include <csignal>
#include <cstdint>

extern "C" {
struct CowbirdDebugEntry {
  std::uint64_t address;   // of a byte of code that is an int3 now; 0: a free entry
  std::uint64_t original;  // the byte
};
// A thread that runs a copy of one instruction, behind which there is an int3.
struct CowbirdDebugStep {
  std::uint64_t tid;           // of the host's thread; 0: none does
  std::uint64_t from;          // the address of the instruction
  std::uint64_t place;         // of its copy
  std::uint64_t length;        // of both
  std::uint64_t displacement;  // to its target, when it is a relative jump or call
  std::uint64_t call;          // 1: it pushes a return address
  std::uint64_t stand_in;      // the register that stands in for rip, as REG_* + 1; 0: none
  std::uint64_t value;         // and what belongs there
};
// Written by the debugger, each entry before its int3, the step before the thread is sent.
extern struct CowbirdDebugJournal {
  std::uint64_t count;  // of entries
  CowbirdDebugEntry entries[256];
  CowbirdDebugStep step;
} cowbird_debug_journal;

// 4096 bytes of executable memory for the debugger's own code. The kernel runs nothing there. A
// thread may be sent to each place of 32 bytes; of all but the first one it comes back by itself.
extern const char cowbird_debug_room[];
}

namespace cowbird::boot {

// For the handler of SIGTRAP, which is not called for what a debugger takes for itself. True: the
// signal was meant for one that has gone; its int3s are out, and the thread can go on.
// Async-signal-safe.
bool outlive_debugger(const siginfo_t &info, ucontext_t &context);

}  // namespace cowbird::boot
