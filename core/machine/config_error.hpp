// ConfigError: one thing that is wrong with a machine description, for people. Anyone may include
// this header.
#pragma once

#include <string>

namespace cowbird {

struct ConfigError {
  std::string where;    // "demo.toml:3:10", "demo.toml", or the option: "--set machine.vcpus=0"
  std::string message;  // one or more full sentences

  std::string text() const { return where + ": " + message; }
};

}  // namespace cowbird
