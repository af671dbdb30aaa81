// `cowbird ls`: the guests that run now and what they have. Called once, on the main thread;
// blocking.
#pragma once

#include "cli/command_line.hpp"
#include "cli/commands.hpp"

namespace cowbird::cli {

int list_guests(const ListArguments &arguments, const Environment &environment);

}  // namespace cowbird::cli
