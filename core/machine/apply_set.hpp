// Applies SetOptions to a parsed machine file. For the sources of core/machine.
#pragma once

#include <span>

#include "machine/problems.hpp"
#include "machine/set_option.hpp"
#include "machine/toml.hpp"

namespace cowbird {

// Changes `root` as the options say; what cannot be applied is reported and left out. `problems`
// was made with the options' origins, in the same order.
void apply_set_options(toml::table &root, std::span<const SetOption> options, Problems &problems);

}  // namespace cowbird
