// Problems: collects what is wrong with a machine description, with positions, and gives it back in
// the order of the file, then of the command line. For the sources of core/machine.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "machine/config_error.hpp"
#include "machine/toml.hpp"

namespace cowbird {

class Problems {
 public:
  // `file`: the name that positions in the file carry. `options`: the command line options, in
  // order; values that came from one of them have its text as their source path.
  Problems(std::string file, std::vector<std::string> options);

  void at(const toml::source_region &region, std::string message);
  void at_file(std::string message) { at({}, std::move(message)); }
  void at_option(std::size_t index, std::string message);

  bool any() const { return !entries_.empty(); }
  std::vector<ConfigError> take();

  // "demo.toml:3:10", or the option the node came from.
  std::string where(const toml::source_region &region) const;
  // True when the value came from the command line.
  bool from_option(const toml::source_region &region) const { return group(region) > 0; }

 private:
  struct Entry {
    std::size_t group;  // 0: the file, n: the n-th option
    toml::source_position position;
    ConfigError error;
  };
  std::size_t group(const toml::source_region &region) const;

  std::string file_;
  std::vector<std::string> options_;
  std::vector<Entry> entries_;
};

}  // namespace cowbird
