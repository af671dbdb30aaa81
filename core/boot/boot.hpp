// The way into the kernel: boot_machine() brings a guest up, runs it to its end and gives the exit
// status of the program. The `cowbird` program calls it, once in a process, on the main thread,
// before any other thread was started.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "machine/machine_config.hpp"

namespace cowbird {

// `cowbird run`: this program is the guest's first instead of an init; the caller's standard
// input, output and error are its own. The guest ends when it does.
struct RunCommand {
  std::vector<std::string> argv;  // never empty; argv[0] without a slash is looked up in PATH
  std::vector<std::string> env;   // "NAME=value", the whole environment
  std::string cwd;                // absolute path in the guest
};

struct BootRequest {
  MachineConfig config;
  std::optional<RunCommand> run;
  std::string file;  // the machine file, absolute; empty without one
  // Called with the machine's name when process 1 runs, if it is there; must not block.
  std::function<void(const std::string &name)> up;
};

// Exit statuses of the program (design: 0 halt or power-off, 1 nothing was started, 3 panic).
inline constexpr int kExitOk = 0;
inline constexpr int kExitHostError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitPanic = 3;
// `cowbird run`: as env(1) and shells say it.
inline constexpr int kExitNotExecutable = 126;
inline constexpr int kExitNotFound = 127;

// Boots and returns what the process shall exit with: 0 after halt or power-off; with `run` the
// program's exit status, or 128 + the number of the signal that ended it; it does not return then,
// but ends the process with that status, as the guest's remains are not taken apart one by one.
// When nothing could be started it returns kExitHostError (or, with `run`, kExitNotFound or
// kExitNotExecutable) and sets `error` to one or more full sentences. A guest kernel panic does not
// return. A reboot re-executes the process and does not return either.
int boot_machine(const BootRequest &request, std::string &error);

}  // namespace cowbird
