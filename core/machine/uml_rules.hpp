// The single words of a UML command line as data: what each becomes, or why it is refused. Devices
// (con, ssl, ubd, eth, vec) have a syntax of their own and are not here. For the sources of
// core/machine, docs/uml-syntax.md and tests.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace cowbird {

enum class UmlAction : std::uint8_t {
  Refuse,      // `text` says why
  NeedsValue,  // the name without a value; `text` is an example
  Text,        // the value becomes the key
  Number,      // the same as an integer; `text` is an example
  Keep,        // part of a decision that is made at the end, under the name `key`
  Memory,
  LogLevel,
  Mconsole,
  Stderr,
  Console,
};

enum class UmlTakes : std::uint8_t { Value, Nothing, Anything };

struct UmlRule {
  std::string_view name;
  UmlTakes takes;
  UmlAction action;
  std::string_view section;
  std::string_view key;
  std::string_view text;
  std::string_view meaning;  // for people: "name", "the root's type"; empty for refused words
};

std::span<const UmlRule> uml_rules();
// nullptr: not one of UML's or Linux's words.
const UmlRule *find_uml_rule(std::string_view name, bool has_value);

// The table of docs/uml-syntax.md, in Markdown.
std::string uml_rules_markdown();

// What Linux does with a word that nobody knows.
enum class UmlWordClass : std::uint8_t {
  Argument,         // WORD: an argument of init
  Environment,      // NAME=VALUE: init's environment
  ModuleParameter,  // NAME.PART or NAME.PART=VALUE: only shown in /proc/cmdline
  Redirection,      // 3<>file: the shell's
};
UmlWordClass classify_uml_word(std::string_view word);

// One of UML's words or devices, which never goes to init.
bool is_uml_own_word(const std::string &word);

// The disk that root= names, "ubd0" for /dev/ubda, /dev/ubd/0 and 98:0; nullopt for all else.
std::optional<std::string> uml_root_disk(std::string_view text);
// Why root= cannot be that.
std::string explain_uml_root(std::string_view text);

}  // namespace cowbird
