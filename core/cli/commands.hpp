// What the subcommands of `cowbird` do. Called once, by main(), on the main thread.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "boot/boot.hpp"
#include "machine/plugin_catalog.hpp"

namespace cowbird::cli {

// Where output goes, which plugins machine files may name, and how a machine is booted (the
// registry and boot_machine; tests have their own).
struct Environment {
  std::ostream &out;
  std::ostream &err;
  bool colour;  // standard error is a terminal that wants colours
  PluginCatalog &plugins;
  std::function<int(const BootRequest &, std::string &)> boot;
};

// Parses and acts; returns the exit status of the program.
int run_command_line(const std::vector<std::string> &arguments, const Environment &environment);

}  // namespace cowbird::cli
