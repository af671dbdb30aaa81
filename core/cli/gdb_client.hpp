// `cowbird gdb`: finds the guest (or takes a core file) and becomes gdb, with the guest's own
// program, the script cowbird-gdb.py and a gdb server between both. For cli/commands.cpp.
#pragma once

#include <string>

#include "cli/command_line.hpp"

namespace cowbird::cli {

// Returns only when gdb was not started: the exit status, and a sentence in `error`.
int start_gdb(const GdbArguments &arguments, std::string &error);

}  // namespace cowbird::cli
