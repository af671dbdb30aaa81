// The signals that end a program unless it says otherwise (signal(7)). A thread of its own waits
// for them, so that they work even when the guest kernel hangs: it undoes what must be undone on
// the host (boot/panic.hpp) and dies of the signal, as the sender expects.
//
// Not among them are those of faults, which are panics, and those of writes that the host refuses,
// which a guest must not be able to end the kernel with.
#pragma once

#include <string>

namespace cowbird::boot {

// Once, on the process' first thread, before there is another one: a thread that has these signals
// unblocked would die of them at once. False, with a sentence, when the host refuses a thread.
bool watch_end_signals(std::string &error);

// For a handler of a signal that the kernel uses itself (kLookSignal, the timer of a panic) and
// that somebody else has sent: ends the process as above, soon. Async-signal-safe.
void pass_on_end_signal(int signal);

// Before execve(2) of the same program on any thread: as they were before watch_end_signals().
void restore_end_signals();

}  // namespace cowbird::boot
