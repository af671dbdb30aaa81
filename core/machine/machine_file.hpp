// The loader of machine files (docs/machine-file.md): TOML, strict, all errors at once. Called by
// the `cowbird` program before the kernel runs; blocking, any one thread.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "machine/config_error.hpp"
#include "machine/machine_config.hpp"
#include "machine/plugin_catalog.hpp"
#include "machine/set_option.hpp"

namespace cowbird {

struct LoadedMachine {
  std::optional<MachineConfig> config;  // present when there are no errors
  std::vector<ConfigError> errors;      // in the order of the file, then of the options
};

// Reads and checks `path`. Relative paths in the file are relative to the file's directory, those
// in options to the current one.
LoadedMachine load_machine_file(const std::filesystem::path &path,
                                std::span<const SetOption> options, PluginCatalog &plugins);

// The same for a text. `file` is its name in messages; `directory` is absolute.
LoadedMachine parse_machine(std::string_view text, const std::string &file,
                            const std::filesystem::path &directory,
                            std::span<const SetOption> options, PluginCatalog &plugins);

}  // namespace cowbird
