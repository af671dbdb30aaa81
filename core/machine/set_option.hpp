// SetOption: a change of the machine description from the command line. The loader applies the
// options in their order, before it checks anything.
#pragma once

#include <string>
#include <vector>

namespace cowbird {

struct SetOption {
  // "--set machine.memory=256M". The dotted path's parts are keys or, in arrays, an index or the
  // name of an element; the index after the last one adds an element. The value is TOML or, where
  // it is none, text.
  static SetOption from_argument(const std::string &argument) {
    return {"--set " + argument, argument, false};
  }
  // For another option that means a key: {"--root DIR", "root.source=DIR"}; the value is text as it
  // stands.
  static SetOption from_text(std::string origin, const std::string &path,
                             const std::string &value) {
    return {std::move(origin), path + "=" + value, true};
  }

  std::string origin;      // what errors name
  std::string assignment;  // path=value
  bool is_text;
};

}  // namespace cowbird
