// Writing TOML as people write machine files: tables in the order of the schema, `name` and
// `plugin` first. For the sources of core/machine and tests.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "machine/toml.hpp"
#include "plugins/plugin_registry.hpp"

namespace cowbird {

// A string in double quotes.
std::string quote_toml(std::string_view text);
std::string toml_value(const ConfigValue &value);
std::string toml_array(const std::vector<std::string> &texts);

// A whole machine file. Tables and keys that no machine file has come last, by name.
std::string machine_toml(const toml::table &root);

}  // namespace cowbird
