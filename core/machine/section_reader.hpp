// SectionReader: typed, strict access to one table of a machine file. Every getter reports what is
// wrong and then answers as if the key were absent. For the sources of core/machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "machine/problems.hpp"
#include "machine/schema.hpp"
#include "machine/toml.hpp"

namespace cowbird {

// "a string", "an integer", ...: what stands in the file, for messages.
std::string_view toml_type_name(const toml::node &node);

class SectionReader {
 public:
  // All three must outlive the reader. Reports unknown keys unless the section has a plugin's keys.
  SectionReader(Problems &problems, const SectionDoc &section, const toml::table &table);

  const toml::node *node(std::string_view key) const { return table_.get(key); }
  const toml::table &table() const { return table_; }
  std::string title() const { return section_.title(); }
  // The keys that are not a plugin's.
  bool is_own_key(std::string_view key) const { return section_.find(key) != nullptr; }
  std::vector<std::string> own_keys() const;

  // Texts hold no NUL bytes, since all of them become C strings somewhere.
  std::optional<std::string> text(std::string_view key);
  // As text(), and it is an error when the key is absent.
  std::optional<std::string> required_text(std::string_view key);
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t min, std::int64_t max);
  std::optional<std::uint64_t> size(std::string_view key, std::uint64_t min, std::uint64_t max);
  std::optional<bool> boolean(std::string_view key);
  // With the node of each, for errors about one of them.
  struct Item {
    std::string text;
    const toml::node *node;
  };
  std::vector<Item> texts(std::string_view key, std::size_t max_count);

  // At the key's value, or at the table when the key is absent.
  void problem(std::string_view key, std::string message);
  void wrong_type(std::string_view key, std::string_view expected);

 private:
  bool clean_text(const toml::node &node, const std::string &text);

  Problems &problems_;
  const SectionDoc &section_;
  const toml::table &table_;
};

// `; did you mean "x"?` or `; known are a, b and c.`, to end a sentence about an unknown name.
std::string name_hint(std::string_view wrong, const std::vector<std::string> &names);

}  // namespace cowbird
