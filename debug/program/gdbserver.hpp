// `cowbird gdbserver`: the process between gdb and a guest, or the core file of one. Called by the
// program's main(), on a process that has one thread.
#pragma once

#include <string>

#include "cli/command_line.hpp"

namespace cowbird::debug {

// Serves until the guest ends, a signal comes or, with --once or on standard input, gdb has gone;
// or writes the core file that is asked for. Gives the exit status; `error` is a sentence when it
// is not 0. `arguments.guest` has been resolved to `pid`.
int run_gdbserver(const cli::GdbServerArguments &arguments, std::string &error);

// The program that left a core file, by the word of the file; empty when that cannot be read or
// names a program that is not there.
std::string program_of_core(const std::string &core);

}  // namespace cowbird::debug
