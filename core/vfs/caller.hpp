// What the file layer needs to know of the task that calls it. It is implemented over proc/ in
// syscall/caller.cpp, and by unit tests for themselves, so that vfs/ does not depend on tasks.
// Needs the big kernel lock.
#pragma once

#include <cstdint>

#include "vfs/types.hpp"

namespace cowbird::caller {

// RLIMIT_FSIZE in bytes; ~0 without a limit and for kernel threads.
std::uint64_t file_size_limit();
// Sends the calling thread a signal (SIGPIPE, SIGXFSZ); nothing happens on kernel threads.
void raise_signal(int signal);
// The process, as F_GETLK and SO_PEERCRED report it; 0 for the kernel.
int process_id();
const Credentials &credentials();
// SIGIO of O_ASYNC: to the process `owner` (negative: process group) as far as the user who named
// it may signal that.
struct IoSignal {
  int owner = 0;
  int signal = 0;  // 0: SIGIO
  int fd = -1;
  std::uint32_t poll_events = 0;
  std::uint32_t uid = 0, euid = 0;  // of who called F_SETOWN
  bool urgent = false;              // SIGURG instead: out-of-band data has come
};
void send_io_signal(const IoSignal &request);

}  // namespace cowbird::caller
