// What debuggers leave in the kernel's code, and room for theirs. A debugger that is killed cannot
// take its breakpoints out; the kernel does then, when it runs into the first one. No part of the
// debugger is called; it knows the two words by their names.
#pragma once

#include <ucontext.h>

#include <csignal>
#include <cstdint>

extern "C" {
struct CowbirdDebugEntry {
  std::uint64_t address;   // of a byte of code that is an int3 now; 0: a free entry
  std::uint64_t original;  // the byte
};
// Written by the debugger, each entry before its int3.
extern struct CowbirdDebugJournal {
  std::uint64_t count;  // of entries
  CowbirdDebugEntry entries[256];
} cowbird_debug_journal;

// 4096 bytes of executable memory for the debugger's own code. The kernel runs nothing there.
extern const char cowbird_debug_room[];
}

namespace cowbird::boot {

// For the handler of SIGTRAP, which is not called for what a debugger takes for itself. True: the
// signal was meant for one that has gone; its int3s are out, and the thread can go on.
// Async-signal-safe.
bool outlive_debugger(const siginfo_t &info, ucontext_t &context);

}  // namespace cowbird::boot
