// Standing still: the guest's programs and kernel threads do not run and its clock is stopped,
// while the irq thread, host calls and the threads that serve the operator (management console,
// debugger) go on. `stop` and `go` of the management console and the debugger's stops of guest
// processes are made of this. Needs the big kernel lock.
//
// A frozen thread is one that the scheduler does not pick; it keeps its state (Runnable, or
// whatever it slept in; a wake-up makes it Runnable as ever). A thread in kernel code runs on to
// the next point where it gives its vCPU up; guest code is interrupted at once. So after hold() the
// guest stands still only when quiesced() is true, which takes microseconds unless kernel code
// loops.
//
// Threads that are exempt (Thread::runs_while_frozen) must not wait for a lock that a frozen thread
// may hold: such a wait lasts until release().
#pragma once

#include "base/result.hpp"
#include "sched/thread.hpp"

namespace cowbird::freeze {

// Who asks; each holds at most once, and the guest goes on when nobody does.
enum class Holder : std::uint8_t { Operator, Debugger };

// Exist when this holder has it frozen already; Canceled after end().
Result<void> hold(Holder holder);
// NoEnt when this holder did not.
Result<void> release(Holder holder);
bool held(Holder holder);
bool frozen();

// The guest is to end, which takes its threads: it goes on whoever held it, and nobody can hold it
// from now on.
void end();
// `function` hears when the guest comes to stand still (true) and when it goes on. Must not sleep;
// set once.
void on_change(void (*function)(bool frozen));

// From now on this thread goes on while the guest stands still, or does not.
void exempt(Thread &thread, bool on);

// No thread that is not exempt is on a vCPU.
bool quiesced();
// The calling exempt thread waits until quiesced(), at most `timeout_ns` of host time: TimedOut.
// Intr when the guest was released meanwhile. Releases the big kernel lock, not the vCPU.
Result<void> wait_quiesced(std::int64_t timeout_ns);

}  // namespace cowbird::freeze
