// What a machine description says, in words: `cowbird check`. Anyone may include this header.
#pragma once

#include <string>

#include "machine/machine_config.hpp"

namespace cowbird {

// Lines of "what   value", each with its newline.
std::string describe_machine(const MachineConfig &config);

}  // namespace cowbird
