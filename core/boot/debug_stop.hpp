// Where the kernel stands still for people: before it begins, until a debugger lets it go; and when
// it has panicked, for a look at it and for a core file. No part of the debugger is called; it
// knows these functions and the word by their names (boot/debug_view.hpp).
#pragma once

#include <string>

extern "C" {
// A panic, a fault in kernel code or a failed assertion passes through here first, on the host
// thread that it happened on, before anything is undone. Does nothing; debuggers stop in it.
void cowbird_panic_stop(const char *message);
// cowbird_debug_wait_for_gdb() waits as long as it is not 0; while it does, it is the id of the
// host thread that waits. Debuggers clear it.
extern volatile int cowbird_debug_hold;
// Called before the first kernel thread runs.
void cowbird_debug_wait_for_gdb();
}

namespace cowbird::boot {

// What is done after the report of a panic.
struct PanicPolicy {
  bool stand_still = false;        // instead of ending the process
  std::string guest_name;          // for `cowbird gdb NAME`
  std::string core_directory;      // absolute; empty: no core file
  bool core_guest_memory = false;  // the memory of the guest's programs is in it too
};
// Once, before any kernel thread runs.
void set_panic_policy(const PanicPolicy &policy);

bool panic_stands_still();
// Has another process write the core file of this one, when the policy asks for one; waits for it,
// a few minutes at most. Once; later calls do nothing. `message` is stored in it.
// Async-signal-safe.
void write_panic_core(const char *message);
// Says how to look at the guest, keeps the kernel where it is, and never returns.
// Async-signal-safe.
[[noreturn]] void stand_still_after_panic();

}  // namespace cowbird::boot
