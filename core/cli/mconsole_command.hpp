// `cowbird mconsole`: the client of the management console, for one command or a person at a
// prompt.
#pragma once

#include <iosfwd>

#include "cli/command_line.hpp"

namespace cowbird::cli {

// Exit statuses: 0 "OK", 1 "ERR" or no such guest, 2 wrong usage, 4 no answer in time. At the
// prompt 0.
inline constexpr int kExitNoAnswer = 4;
int run_mconsole(const MconsoleArguments &arguments, std::ostream &out, std::ostream &err);

}  // namespace cowbird::cli
