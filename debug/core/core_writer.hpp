// Writes the core file of a running (or panicking) kernel from outside, by ptrace. Called by
// `cowbird gdbserver --write-core`, in a process of its own; blocks for as long as the disk takes.
// The kernel stands still meanwhile and goes on afterwards.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace cowbird::debug {

struct CoreOptions {
  std::string panic;          // the message of a panic, on one line
  pid_t thread = 0;           // the host thread that the core is about; 0: the first
  bool guest_memory = false;  // the memory of the guest's programs too
};

// False, and a sentence in `why`; then there is no file. `written` counts the bytes that are not
// holes. A file that is there is replaced.
bool write_core_file(pid_t pid, const std::string &path, const CoreOptions &options,
                     std::uint64_t &written, std::string &why);

}  // namespace cowbird::debug
