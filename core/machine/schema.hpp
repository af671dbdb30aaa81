// The schema of the machine file as data: its tables and their keys. The loader refuses what is not
// in it, docs/machine-file.md is generated from it. Keys of
// plugins are not here: plugins declare their own. Anyone may include this header.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace cowbird {

struct KeyDoc {
  std::string_view name;
  std::string_view type;           // "size", "text", "list of text", ...
  std::string_view default_value;  // as documented; empty: the key is required
  std::string_view help;
};

struct SectionDoc {
  std::string_view name;
  bool is_array;    // [[name]], may be given many times
  bool has_plugin;  // further keys are the plugin's
  std::string_view help;
  std::span<const KeyDoc> keys;

  // "[machine]" or "[[block]]".
  std::string title() const;
  const KeyDoc *find(std::string_view key) const;
};

std::span<const SectionDoc> machine_file_schema();
const SectionDoc *find_section(std::string_view name);

// The tables of docs/machine-file.md, in Markdown.
std::string machine_file_markdown();

}  // namespace cowbird
