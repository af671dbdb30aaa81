// A machine file in UML's syntax: the way back of machine/uml_syntax.hpp. What UML has no word for
// is an error with its place in the file; nothing is left out silently. Called by the `cowbird`
// program; any one thread, blocking.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "machine/config_error.hpp"
#include "machine/plugin_catalog.hpp"
#include "machine/uml_syntax.hpp"

namespace cowbird {

struct UmlLine {
  std::vector<std::string> words;  // each as read_uml() takes it; not quoted
  std::vector<ConfigError> errors;
};

// `text` is a machine file, `file` its name in messages, and `directory`, absolute, what relative
// paths in it are relative to: in the words all paths are absolute.
UmlLine write_uml(std::string_view text, const std::string &file,
                  const std::filesystem::path &directory, PluginCatalog &plugins,
                  const UmlHost &host);

}  // namespace cowbird
