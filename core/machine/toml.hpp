// toml++ as this area uses it: without exceptions, compiled into the area itself. Only the sources
// of core/machine include this header; what others see has no toml++ types.
#pragma once

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>
