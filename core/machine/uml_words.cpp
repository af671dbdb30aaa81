#include "machine/uml_words.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace cowbird {

namespace {

constexpr std::size_t kMaxShown = 60;

std::string counted(std::size_t number, const std::string &word) {
  const bool is_long = word.size() > kMaxShown;
  return fmt::format("word {}, \"{}{}\"", number, word.substr(0, kMaxShown), is_long ? "..." : "");
}

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

class Splitter {
 public:
  Splitter(std::string_view text, const std::string &file, std::vector<ConfigError> &errors)
      : text_(text), file_(file), errors_(errors) {}

  std::vector<UmlWord> split() {
    std::vector<UmlWord> words;
    while (skip_to_word()) {
      const auto place = fmt::format("{}:{}:{}", file_, line_, column_);
      auto word = read_word(place);
      words.push_back({word, file_.empty() ? counted(words.size() + 1, word) : place});
    }
    return words;
  }

 private:
  bool at_end() const { return at_ == text_.size(); }
  char take() {
    const char c = text_[at_++];
    ++column_;
    if (c == '\n') {
      ++line_;
      column_ = 1;
    }
    return c;
  }
  bool continues_line() const {
    return text_[at_] == '\\' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n';
  }

  bool skip_to_word() {
    while (!at_end()) {
      if (is_blank(text_[at_])) {
        take();
      } else if (continues_line()) {
        take();
        take();
      } else if (text_[at_] == '#') {
        while (!at_end() && text_[at_] != '\n') take();
      } else {
        return true;
      }
    }
    return false;
  }

  std::string read_word(const std::string &place) {
    std::string word;
    char quote = 0;
    while (!at_end() && (quote != 0 || !is_blank(text_[at_]))) {
      if (quote != '\'' && continues_line()) {
        take();
        take();
        continue;
      }
      const char c = take();
      if (c == quote) {
        quote = 0;
      } else if (quote == 0 && (c == '"' || c == '\'')) {
        quote = c;
      } else if (c == '\\' && quote != '\'' && !at_end()) {
        word += take();
      } else {
        word += c;
      }
    }
    if (quote != 0) {
      errors_.push_back({file_.empty() ? "the command line" : place,
                         fmt::format("The quote {} is not closed.", quote)});
    }
    return word;
  }

  std::string_view text_;
  const std::string &file_;
  std::vector<ConfigError> &errors_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
  std::size_t column_ = 1;
};

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("_-./=:,+@%^").find(c) != std::string_view::npos;
}

}  // namespace

std::vector<UmlWord> uml_words(std::span<const std::string> arguments) {
  std::vector<UmlWord> words;
  for (const auto &argument : arguments) {
    words.push_back({argument, counted(words.size() + 1, argument)});
  }
  return words;
}

std::vector<UmlWord> split_uml_text(std::string_view text, const std::string &file,
                                    std::vector<ConfigError> &errors) {
  return Splitter(text, file, errors).split();
}

std::string quote_uml_word(const std::string &word) {
  if (!word.empty() && std::ranges::all_of(word, is_plain)) return word;
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace cowbird
