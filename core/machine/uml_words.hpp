// The words of a UML command line and where they stand. For core/machine, the `cowbird` program and
// tests.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "machine/config_error.hpp"

namespace cowbird {

struct UmlWord {
  std::string text;
  std::string where;  // for messages: `word 3, "con=pts"`, or `boot.uml:2:14`
};

// The arguments of a program, a word each, as they stand.
std::vector<UmlWord> uml_words(std::span<const std::string> arguments);

// Splits text as a shell would: blanks and newlines separate, quotes of both kinds and backslashes
// take their meaning away, a backslash at a line's end continues it. A # at the beginning of a word
// starts a comment. `file` is its name in messages; without one, words are counted. Quotes that are
// not closed go to `errors`.
std::vector<UmlWord> split_uml_text(std::string_view text, const std::string &file,
                                    std::vector<ConfigError> &errors);

// One word for a shell, and so for split_uml_text: quoted where it must be.
std::string quote_uml_word(const std::string &word);

}  // namespace cowbird
