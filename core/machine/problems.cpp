#include "machine/problems.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace cowbird {

Problems::Problems(std::string file, std::vector<std::string> options)
    : file_(std::move(file)), options_(std::move(options)) {}

void Problems::at(const toml::source_region &region, std::string message) {
  entries_.push_back({group(region), region.begin, {where(region), std::move(message)}});
}

void Problems::at_option(std::size_t index, std::string message) {
  entries_.push_back({index + 1, {}, {options_[index], std::move(message)}});
}

std::vector<ConfigError> Problems::take() {
  std::ranges::stable_sort(entries_, [](const Entry &a, const Entry &b) {
    if (a.group != b.group) return a.group < b.group;
    if (a.position.line != b.position.line) return a.position.line < b.position.line;
    return a.position.column < b.position.column;
  });
  std::vector<ConfigError> errors;
  errors.reserve(entries_.size());
  for (auto &entry : entries_) errors.push_back(std::move(entry.error));
  entries_.clear();
  return errors;
}

std::string Problems::where(const toml::source_region &region) const {
  if (const auto g = group(region); g > 0) return options_[g - 1];
  if (region.begin.line == 0) return file_;
  return fmt::format("{}:{}:{}", file_, region.begin.line, region.begin.column);
}

std::size_t Problems::group(const toml::source_region &region) const {
  if (!region.path || *region.path == file_) return 0;
  const auto found = std::ranges::find(options_, *region.path);
  return found == options_.end() ? 0 : static_cast<std::size_t>(found - options_.begin()) + 1;
}

}  // namespace cowbird
