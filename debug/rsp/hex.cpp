#include "debug/rsp/hex.hpp"

namespace cowbird::debug {

namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Calls `sink` with each byte; false when `hex` is none.
template <typename Sink>
bool decode(std::string_view hex, Sink sink) {
  if (hex.size() % 2 != 0) return false;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int high = digit(hex[i]);
    const int low = digit(hex[i + 1]);
    if (high < 0 || low < 0) return false;
    sink(static_cast<unsigned char>(high * 16 + low));
  }
  return true;
}

}  // namespace

void append_hex(std::string &out, std::span<const std::byte> bytes) {
  out.reserve(out.size() + 2 * bytes.size());
  for (const auto b : bytes) {
    out += kDigits[std::to_integer<unsigned>(b) >> 4];
    out += kDigits[std::to_integer<unsigned>(b) & 15];
  }
}

std::string to_hex(std::span<const std::byte> bytes) {
  std::string out;
  append_hex(out, bytes);
  return out;
}

std::string text_to_hex(std::string_view text) { return to_hex(bytes_of(text)); }

std::optional<std::vector<std::byte>> from_hex(std::string_view hex) {
  std::vector<std::byte> out;
  out.reserve(hex.size() / 2);
  if (!decode(hex, [&](unsigned char c) { out.push_back(std::byte{c}); })) return std::nullopt;
  return out;
}

std::optional<std::string> text_from_hex(std::string_view hex) {
  std::string out;
  if (!decode(hex, [&](unsigned char c) { out += static_cast<char>(c); })) return std::nullopt;
  return out;
}

std::optional<std::uint64_t> take_hex(std::string_view &text) {
  std::uint64_t value = 0;
  std::size_t used = 0;
  for (; used < text.size() && digit(text[used]) >= 0; ++used) {
    if (value >> 60 != 0) return std::nullopt;
    value = value * 16 + static_cast<std::uint64_t>(digit(text[used]));
  }
  if (used == 0) return std::nullopt;
  text.remove_prefix(used);
  return value;
}

std::optional<std::uint64_t> hex_number(std::string_view text) {
  const auto value = take_hex(text);
  return text.empty() ? value : std::nullopt;
}

}  // namespace cowbird::debug
