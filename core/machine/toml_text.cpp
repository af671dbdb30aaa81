#include "machine/toml_text.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "machine/schema.hpp"

namespace cowbird {

namespace {

// In one line: "text", 12, true, ["a", "b"], { key = "text" }.
std::string inline_text(const toml::node &node) {
  if (const auto *text = node.as_string()) return quote_toml(text->get());
  if (const auto *number = node.as_integer()) return std::to_string(number->get());
  if (const auto *flag = node.as_boolean()) return flag->get() ? "true" : "false";
  std::vector<std::string> parts;
  if (const auto *array = node.as_array()) {
    for (const auto &element : *array) parts.push_back(inline_text(element));
    return fmt::format("[{}]", fmt::join(parts, ", "));
  }
  if (const auto *table = node.as_table()) {
    if (const auto *plugin = table->get("plugin")) {
      parts.push_back("plugin = " + inline_text(*plugin));
    }
    for (const auto &[key, value] : *table) {
      if (key.str() == "plugin") continue;
      parts.push_back(fmt::format("{} = {}", key.str(), inline_text(value)));
    }
    return parts.empty() ? "{}" : fmt::format("{{ {} }}", fmt::join(parts, ", "));
  }
  return quote_toml("");  // dates and floating-point numbers: no key of a machine file has one
}

// The keys of a table in the order of the schema; the others follow by name.
std::vector<std::string> ordered_keys(const SectionDoc *section, const toml::table &table) {
  std::vector<std::string> keys;
  if (section) {
    for (const auto &key : section->keys) {
      // What a plugin's channel is sent to comes after the channel's own keys.
      if (key.name != "output_channel" && table.contains(key.name)) keys.emplace_back(key.name);
    }
  }
  const auto own = keys.size();
  for (const auto &[key, value] : table) {
    if (std::ranges::find(keys, key.str()) == keys.end() && key.str() != "output_channel") {
      keys.emplace_back(key.str());
    }
  }
  std::sort(keys.begin() + static_cast<std::ptrdiff_t>(own), keys.end());
  if (table.contains("output_channel")) keys.emplace_back("output_channel");
  return keys;
}

std::string table_text(const SectionDoc *section, const std::string &title,
                       const toml::table &table) {
  const auto keys = ordered_keys(section, table);
  std::size_t width = 0;
  for (const auto &key : keys) width = std::max(width, key.size());
  std::string out = title + "\n";
  for (const auto &key : keys) {
    out += fmt::format("{:<{}} = {}\n", key, width, inline_text(*table.get(key)));
  }
  return out;
}

void append_section(std::string &out, const std::string &name, const toml::node &node) {
  const auto *section = find_section(name);
  const auto separate = [&] {
    if (!out.empty()) out += '\n';
  };
  if (const auto *table = node.as_table()) {
    separate();
    out += table_text(section, fmt::format("[{}]", name), *table);
  } else if (const auto *array = node.as_array()) {
    for (const auto &element : *array) {
      const auto *item = element.as_table();
      if (!item) continue;
      separate();
      out += table_text(section, fmt::format("[[{}]]", name), *item);
    }
  }
}

}  // namespace

std::string quote_toml(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string toml_value(const ConfigValue &value) {
  if (const auto *flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto *number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  return quote_toml(std::get<std::string>(value));
}

std::string toml_array(const std::vector<std::string> &texts) {
  std::vector<std::string> quoted;
  quoted.reserve(texts.size());
  for (const auto &text : texts) quoted.push_back(quote_toml(text));
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

std::string machine_toml(const toml::table &root) {
  std::string out;
  for (const auto &section : machine_file_schema()) {
    if (const auto *node = root.get(section.name)) {
      append_section(out, std::string(section.name), *node);
    }
  }
  for (const auto &[key, node] : root) {
    if (!find_section(key.str())) append_section(out, std::string(key.str()), node);
  }
  return out;
}

}  // namespace cowbird
