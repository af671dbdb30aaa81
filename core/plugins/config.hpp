// Parsing of one configuration value by its key's declaration. Used by core/plugins only; any
// thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "plugins/plugin_registry.hpp"

namespace cowbird::plugins {

struct ParsedValue {
  std::optional<ConfigValue> value;
  std::string problem;  // a sentence, when there is no value
};
ParsedValue parse_value(const KeySchema &key, const ConfigValue &value,
                        const std::filesystem::path &base_directory);

}  // namespace cowbird::plugins
