// How the guest kernel dies: panic(), faults in kernel code, and the emergency list of what must be
// undone on the host before the process goes (terminal modes, stub processes).
//
// A panic runs the emergency list, prints message, guest thread, backtrace and the last log lines
// to standard error, adds the message to the log, and ends the process with status 3. Should it
// hang or fault itself, it gives up the rest and ends the process all the same. Debuggers stop at
// its beginning, a core file may be written and the guest may stay: boot/debug_stop.hpp.
#pragma once

#include <cstdint>

#include "base/result.hpp"

namespace cowbird::boot {

// Makes panic() do the above. Once, before anything can fail.
void install_panic_handler();

// Makes SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS and SIGABRT of kernel code a panic with
// a backtrace of the fault, and names an overflow of a kernel stack so. Once, on the process' first
// thread; HostThread gives the others the signal stack that this needs.
Result<void> install_fault_handlers();

// `function(data)` runs when the process dies early. It must be async-signal-safe: no locks, no
// allocation. The last one added runs first. Any host thread, under any lock. Returns a number for
// cancel_emergency; panics when the list (kMaxEmergencies) is full.
//
// A panic after which the guest stands still for a look ([debug] on_panic = "wait") runs those that
// are for it too: what people need to go on at their terminal, and nothing that is to be looked at.
inline constexpr unsigned kMaxEmergencies = 64;
enum class EmergencyFor : std::uint8_t { End, EndAndHalt };
unsigned at_emergency(void (*function)(void *), void *data, EmergencyFor when = EmergencyFor::End);
// The function does not run any more, unless it is running already.
void cancel_emergency(unsigned number);

// The message of the panic in progress, for functions of the list; nullptr when the process ends
// for another reason. Async-signal-safe.
const char *panic_message();

// Runs the list, each function once for all calls; also for signal handlers that end the process
// (SIGTERM and the like). Async-signal-safe.
void run_emergencies();
// Those for a guest that stands still after a panic; they can run again at its end.
void run_halt_emergencies();

}  // namespace cowbird::boot
