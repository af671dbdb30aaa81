#include "machine/toml.hpp"

#include <stdexcept>

namespace cowbird {

bool toml_goes_on_after(std::string_view expression) {
  if (expression.starts_with("is_bare_key_character(")) return true;
  throw std::logic_error("the TOML parser failed: " + std::string(expression));
}

ParsedToml parse_toml(std::string_view text, const std::string &source) {
  try {
    return {toml::parse(text, source), {}, {}};
  } catch (const toml::parse_error &error) {
    return {std::nullopt, std::string(error.description()), error.source()};
  } catch (const std::logic_error &error) {
    return {std::nullopt, error.what(), {}};
  }
}

}  // namespace cowbird
