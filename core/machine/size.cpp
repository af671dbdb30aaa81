#include "machine/size.hpp"

#include <charconv>
#include <limits>

namespace cowbird {

namespace {

constexpr std::string_view kUnits = "KMGT";

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.size() > 1) return std::nullopt;
  unsigned shift = 0;
  if (!text.empty()) {
    const char letter = static_cast<char>(text[0] & ~0x20);
    const auto unit = kUnits.find(letter);
    if (unit == std::string_view::npos) return std::nullopt;
    shift = 10 * (static_cast<unsigned>(unit) + 1);
  }
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (value > kMax >> shift) return std::nullopt;
  return value << shift;
}

std::string format_size(std::uint64_t bytes) {
  std::size_t unit = 0;
  while (unit < kUnits.size() && bytes != 0 && bytes % 1024 == 0) {
    bytes /= 1024;
    ++unit;
  }
  auto text = std::to_string(bytes);
  if (unit > 0) text += kUnits[unit - 1];
  return text;
}

}  // namespace cowbird
