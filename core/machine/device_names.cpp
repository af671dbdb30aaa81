#include "machine/device_names.hpp"

#include <fmt/format.h>
#include <sys/random.h>

#include <charconv>

#include "machine/machine_config.hpp"

namespace cowbird {

namespace {

// Decimal without sign or leading zeros, below `limit`.
std::optional<std::uint32_t> parse_unit(std::string_view digits, std::uint32_t limit) {
  std::uint32_t unit = 0;
  const auto *end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, unit);
  if (error != std::errc{} || stop != end || unit >= limit) return std::nullopt;
  if (digits.size() > 1 && digits[0] == '0') return std::nullopt;
  return unit;
}

}  // namespace

std::optional<std::uint32_t> block_unit(std::string_view name) {
  if (!name.starts_with("ubd")) return std::nullopt;
  name.remove_prefix(3);
  if (name.size() == 1 && name[0] >= 'a' && name[0] <= 'z') {
    return static_cast<std::uint32_t>(name[0] - 'a');
  }
  return parse_unit(name, kMaxBlockUnits);
}

std::optional<std::uint32_t> line_unit(std::string_view digits) {
  return parse_unit(digits, kMaxLines);
}

std::optional<std::uint32_t> console_unit(std::string_view name) {
  if (name == "con*") return kEveryLine;
  if (!name.starts_with("con")) return std::nullopt;
  return line_unit(name.substr(3));
}

std::optional<std::uint32_t> serial_unit(std::string_view name) {
  if (name == "ssl*") return kEveryLine;
  if (!name.starts_with("ssl")) return std::nullopt;
  return line_unit(name.substr(3));
}

std::string random_machine_name() {
  std::uint32_t number = 0;
  // Cannot fail for so few bytes once the host has booted; a fixed name would do no harm either.
  [[maybe_unused]] const auto got = ::getrandom(&number, sizeof number, 0);
  return fmt::format("cowbird-{:06x}", number & 0xffffff);
}

}  // namespace cowbird
