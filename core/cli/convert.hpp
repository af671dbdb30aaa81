// `cowbird convert`, and the reading of UML command lines for `cowbird boot --uml`. Called once, on
// the main thread.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cli/command_line.hpp"
#include "cli/commands.hpp"
#include "machine/machine_file.hpp"

namespace cowbird::cli {

// Prints the conversion; the exit status.
int convert(const ConvertArguments &arguments, const Environment &environment);

// The machine that a UML command line and the options after it describe.
LoadedMachine load_uml(const std::string &line, std::span<const SetOption> options,
                       PluginCatalog &plugins);

}  // namespace cowbird::cli
