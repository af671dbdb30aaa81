#include "machine/section_reader.hpp"

#include <fmt/format.h>

#include "machine/size.hpp"
#include "plugins/near_match.hpp"

namespace cowbird {

namespace {

std::vector<std::string> key_names(const SectionDoc &section) {
  std::vector<std::string> names;
  for (const auto &key : section.keys) names.emplace_back(key.name);
  return names;
}

}  // namespace

std::string_view toml_type_name(const toml::node &node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a floating-point number";
    case toml::node_type::boolean:
      return "a boolean";
    default:
      return "a date or time";
  }
}

std::string name_hint(std::string_view wrong, const std::vector<std::string> &names) {
  const auto near = plugins::near_match(wrong, names);
  if (!near.empty()) return fmt::format("; did you mean \"{}\"?", near);
  if (names.empty()) return ".";
  return fmt::format("; known {} {}.", names.size() == 1 ? "is" : "are", fmt::join(names, ", "));
}

SectionReader::SectionReader(Problems &problems, const SectionDoc &section,
                             const toml::table &table)
    : problems_(problems), section_(section), table_(table) {
  if (section.has_plugin) return;
  for (const auto &[key, value] : table) {
    if (section.find(key.str())) continue;
    problems_.at(key.source(), fmt::format("There is no key \"{}\" in {}{}", key.str(), title(),
                                           name_hint(key.str(), key_names(section))));
  }
}

std::vector<std::string> SectionReader::own_keys() const { return key_names(section_); }

std::optional<std::string> SectionReader::text(std::string_view key) {
  const auto *value = node(key);
  if (!value) return std::nullopt;
  auto text = value->value_exact<std::string>();
  if (!text) {
    wrong_type(key, "a string");
    return std::nullopt;
  }
  if (!clean_text(*value, *text)) return std::nullopt;
  return text;
}

std::optional<std::string> SectionReader::required_text(std::string_view key) {
  if (!node(key)) {
    problems_.at(table_.source(), fmt::format("{} needs the key \"{}\".", title(), key));
    return std::nullopt;
  }
  return text(key);
}

std::optional<std::int64_t> SectionReader::integer(std::string_view key, std::int64_t min,
                                                   std::int64_t max) {
  const auto *value = node(key);
  if (!value) return std::nullopt;
  const auto number = value->value_exact<std::int64_t>();
  if (!number) {
    wrong_type(key, "an integer");
    return std::nullopt;
  }
  if (*number < min || *number > max) {
    problem(key, fmt::format("\"{}\" is {}, but must be from {} to {}.", key, *number, min, max));
    return std::nullopt;
  }
  return number;
}

std::optional<std::uint64_t> SectionReader::size(std::string_view key, std::uint64_t min,
                                                 std::uint64_t max) {
  const auto *value = node(key);
  if (!value) return std::nullopt;
  std::optional<std::uint64_t> bytes;
  if (const auto number = value->value_exact<std::int64_t>()) {
    if (*number >= 0) bytes = static_cast<std::uint64_t>(*number);
  } else if (const auto text = value->value_exact<std::string>()) {
    bytes = parse_size(*text);
    if (!bytes) {
      problem(key,
              fmt::format("\"{}\" is \"{}\", which is no size. Write one such as \"128M\", with "
                          "K, M, G or T, or an integer in bytes.",
                          key, *text));
      return std::nullopt;
    }
  } else {
    wrong_type(key, "a size, such as \"128M\" or an integer in bytes");
    return std::nullopt;
  }
  if (!bytes || *bytes < min || *bytes > max) {
    problem(key, fmt::format("\"{}\" is {}, but must be from {} to {}.", key,
                             bytes ? format_size(*bytes) : "negative", format_size(min),
                             format_size(max)));
    return std::nullopt;
  }
  return bytes;
}

std::optional<bool> SectionReader::boolean(std::string_view key) {
  const auto *value = node(key);
  if (!value) return std::nullopt;
  const auto flag = value->value_exact<bool>();
  if (!flag) wrong_type(key, "true or false");
  return flag;
}

std::vector<SectionReader::Item> SectionReader::texts(std::string_view key, std::size_t max_count) {
  const auto *value = node(key);
  if (!value) return {};
  const auto *array = value->as_array();
  if (!array) {
    wrong_type(key, "an array of strings");
    return {};
  }
  if (array->size() > max_count) {
    problem(key, fmt::format("\"{}\" has {} elements; at most {} are possible.", key, array->size(),
                             max_count));
    return {};
  }
  std::vector<Item> items;
  for (const auto &element : *array) {
    auto text = element.value_exact<std::string>();
    if (!text) {
      problems_.at(element.source(), fmt::format("\"{}\" must hold strings only, not {}.", key,
                                                 toml_type_name(element)));
    } else if (clean_text(element, *text)) {
      items.push_back({std::move(*text), &element});
    }
  }
  return items;
}

void SectionReader::problem(std::string_view key, std::string message) {
  const auto *value = node(key);
  problems_.at(value ? value->source() : table_.source(), std::move(message));
}

void SectionReader::wrong_type(std::string_view key, std::string_view expected) {
  problem(key,
          fmt::format("\"{}\" must be {}, not {}.", key, expected, toml_type_name(*node(key))));
}

bool SectionReader::clean_text(const toml::node &node, const std::string &text) {
  if (text.find('\0') == std::string::npos) return true;
  problems_.at(node.source(), "A text must not hold a NUL character.");
  return false;
}

}  // namespace cowbird
