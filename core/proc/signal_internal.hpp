// What the files of proc/ share about signals; not for other areas.
#pragma once

#include "proc/task.hpp"

namespace cowbird {

enum class SendOutcome : std::uint8_t {
  Ignored,         // it would have had no effect
  AlreadyPending,  // a standard signal that was pending
  Queued,
  Full,  // a real-time signal beyond RLIMIT_SIGPENDING
};
// Sends to `process`, or only to `target` when it is set. `forced`: the disposition was arranged
// already (faults, SIGKILL from the kernel).
SendOutcome post_signal(Process &process, Task *target, const SignalInfo &info,
                        bool forced = false);

// All tasks of the process are to end with this wait(2) status; returns at once.
void begin_process_exit(Process &process, int status);
// Wakes a task whatever it does, for it must look at its flags (death, a group stop).
void wake_task_hard(Task &task);
// Stops that wait for one more task look again (a task ended).
void check_stop_complete(Process &process);
void continue_process(Process &process);
// SIGCHLD and a wake-up for the parent: CLD_STOPPED, CLD_CONTINUED.
void notify_parent_of_stop(Process &process, int code);

}  // namespace cowbird
