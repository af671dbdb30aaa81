// What the subcommands of `cowbird` do. Called once, by main(), on the main thread.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "boot/boot.hpp"
#include "cli/command_line.hpp"
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
  // `cowbird gdbserver`, with the process (or core file) found: the exit status, and a sentence
  // when something was wrong. Of debug/, which the kernel does not know.
  std::function<int(const GdbServerArguments &, std::string &)> gdbserver = {};
  // The program that left a core file, by its own word; empty when it does not say.
  std::function<std::string(const std::string &core)> core_program = {};
};

// Parses and acts; returns the exit status of the program.
int run_command_line(const std::vector<std::string> &arguments, const Environment &environment);

}  // namespace cowbird::cli
