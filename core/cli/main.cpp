// The `cowbird` program.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "base/own_program.hpp"
#include "boot/boot.hpp"
#include "cli/commands.hpp"
#include "debug/program/gdbserver.hpp"
#include "mconsole/watchdog_process.hpp"

namespace {

// Else the next file that is opened would stand in for a standard descriptor that the caller has
// closed. These can be neither read nor written.
void keep_closed_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    [[maybe_unused]] const int taken = ::open("/", O_PATH | O_CLOEXEC);
  }
}

}  // namespace

int main(int argc, char **argv) {
  keep_closed_descriptors();
  cowbird::note_own_program(argc, argv);
  // Started by /dev/watchdog, not by people.
  if (argc > 1 && std::string(argv[1]) == cowbird::mconsole::kWatchdogWord) {
    return cowbird::mconsole::run_watchdog_process(std::vector<std::string>(argv + 2, argv + argc));
  }
  const char *no_colour = std::getenv("NO_COLOR");
  const bool colour = ::isatty(STDERR_FILENO) == 1 && (!no_colour || !*no_colour);
  cowbird::RegistryCatalog plugins;
  return cowbird::cli::run_command_line(
      std::vector<std::string>(argv + 1, argv + argc),
      {std::cout, std::cerr, colour, plugins, cowbird::boot_machine, cowbird::debug::run_gdbserver,
       cowbird::debug::program_of_core});
}
