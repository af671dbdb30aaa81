#include "machine/apply_set.hpp"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "machine/schema.hpp"
#include "machine/toml_text.hpp"

namespace cowbird {

namespace {

using Path = std::vector<std::string>;

// Parses "x = TEXT" with the option as the source path, so that every node knows where it is from.
std::optional<toml::table> parse_value(const std::string &text, const std::string &origin) {
  auto table = parse_toml("x = " + text, origin).table;
  if (!table) return std::nullopt;
  // A newline in the text could bring further keys along.
  if (table->size() != 1) return std::nullopt;
  return table;
}

// The value that an option means: TOML of a type that machine files have, else text.
std::optional<toml::table> value_of(const SetOption &option, const std::string &text) {
  if (!option.is_text) {
    if (auto value = parse_value(text, option.origin)) {
      const auto &node = *value->get("x");
      if (node.is_string() || node.is_integer() || node.is_boolean() || node.is_array() ||
          node.is_table()) {
        return value;
      }
    }
  }
  return parse_value(quote_toml(text), option.origin);
}

std::optional<Path> split_path(std::string_view text) {
  Path path;
  for (;;) {
    const auto dot = text.find('.');
    const auto part = text.substr(0, dot);
    if (part.empty()) return std::nullopt;
    path.emplace_back(part);
    if (dot == std::string_view::npos) return path;
    text.remove_prefix(dot + 1);
  }
}

std::string join(const Path &path, std::size_t count) {
  return fmt::format("{}", fmt::join(path.begin(), path.begin() + static_cast<long>(count), "."));
}

class Setter {
 public:
  Setter(const SetOption &option, std::size_t index, Problems &problems)
      : option_(option), index_(index), problems_(problems) {}

  void apply(toml::table &root) {
    const auto equals = option_.assignment.find('=');
    if (equals == std::string::npos) {
      return fail("There is no '=' in it. Write KEY=VALUE, such as machine.memory=256M.");
    }
    auto path = split_path(std::string_view(option_.assignment).substr(0, equals));
    if (!path) return fail("The key has an empty part. Write it such as block.0.path=disk.img.");
    path_ = std::move(*path);
    auto value = value_of(option_, option_.assignment.substr(equals + 1));
    if (!value) return fail("The value is not valid UTF-8 text.");
    toml::node *node = &root;
    for (std::size_t i = 0; i + 1 < path_.size(); ++i) {
      node = descend(*node, i);
      if (!node) return;
    }
    assign(*node, std::move(*value->get("x")), value->source());
  }

 private:
  void fail(std::string message) { problems_.at_option(index_, std::move(message)); }

  // An empty table or array of this option's.
  toml::table empty(bool array) { return *parse_value(array ? "[]" : "{}", option_.origin); }

  toml::node *descend(toml::node &node, std::size_t i) {
    if (auto *table = node.as_table()) {
      if (auto *child = table->get(path_[i])) return child;
      const auto *section = i == 0 ? find_section(path_[0]) : nullptr;
      auto fresh = empty(section && section->is_array);
      const auto source = fresh.source();
      table->insert_or_assign(toml::key(path_[i], source), std::move(*fresh.get("x")));
      return table->get(path_[i]);
    }
    auto *array = node.as_array();
    if (!array) {
      fail(fmt::format("\"{}\" is neither a table nor an array.", join(path_, i)));
      return nullptr;
    }
    const auto position = find_element(*array, i);
    if (!position) return nullptr;
    if (*position == array->size()) array->push_back(std::move(*empty(false).get("x")));
    return array->get(*position);
  }

  // Index of the element that path_[i] means, which may be the one after the last.
  std::optional<std::size_t> find_element(toml::array &array, std::size_t i) {
    const auto &part = path_[i];
    std::size_t position = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), position);
    if (error == std::errc{} && end == part.data() + part.size()) {
      if (position <= array.size()) return position;
      fail(fmt::format("\"{}\" has {} elements, so the next index is {}, not {}.", join(path_, i),
                       array.size(), array.size(), part));
      return std::nullopt;
    }
    std::vector<std::string> names;
    for (std::size_t k = 0; k < array.size(); ++k) {
      const auto name = array[k].is_table()
                            ? (*array[k].as_table())["name"].value_exact<std::string>()
                            : std::nullopt;
      if (name == part) return k;
      if (name) names.push_back(*name);
    }
    fail(fmt::format("No element of \"{}\" is named \"{}\". {}", join(path_, i), part,
                     names.empty() ? fmt::format("Use an index: {}.0.", join(path_, i))
                                   : fmt::format("There is {}.", fmt::join(names, ", "))));
    return std::nullopt;
  }

  void assign(toml::node &node, toml::node &&value, const toml::source_region &source) {
    const auto last = path_.size() - 1;
    if (auto *table = node.as_table()) {
      table->insert_or_assign(toml::key(path_[last], source), std::move(value));
    } else if (auto *array = node.as_array()) {
      const auto position = find_element(*array, last);
      if (!position) return;
      if (*position < array->size()) {
        array->replace(array->cbegin() + static_cast<std::ptrdiff_t>(*position), std::move(value));
      } else {
        array->push_back(std::move(value));
      }
    } else {
      fail(fmt::format("\"{}\" is neither a table nor an array.", join(path_, last)));
    }
  }

  const SetOption &option_;
  std::size_t index_;
  Problems &problems_;
  Path path_;
};

}  // namespace

void apply_set_options(toml::table &root, std::span<const SetOption> options, Problems &problems) {
  for (std::size_t i = 0; i < options.size(); ++i) Setter(options[i], i, problems).apply(root);
}

}  // namespace cowbird
