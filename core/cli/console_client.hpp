// `cowbird console`: attaches the caller's standard input and output to a console of a running
// guest. Blocking; called once, on the main thread.
#pragma once

#include <filesystem>
#include <ostream>
#include <string>

#include "cli/escape_key.hpp"

namespace cowbird::cli {

struct ConsoleTarget {
  std::string guest;                // for messages
  std::filesystem::path directory;  // the instance directory
  std::string device;               // empty: con0
  bool read_only = false;
  EscapeKey escape;
};

// Returns the exit status: 0 when the person detached, standard input ended or the guest did; 1
// when it could not be attached or the connection was lost. Messages go to `err`. A terminal is put
// into raw mode and back, also when a signal ends the program.
int attach_console(const ConsoleTarget &target, std::ostream &err);

}  // namespace cowbird::cli
