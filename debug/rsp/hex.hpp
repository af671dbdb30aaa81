// Hexadecimal text as packets carry it: bytes as two digits each, numbers without a prefix.
// Pure functions; anyone in debug/ may use them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cowbird::debug {

void append_hex(std::string &out, std::span<const std::byte> bytes);
std::string to_hex(std::span<const std::byte> bytes);
std::string text_to_hex(std::string_view text);
// Nothing when a character is no digit or one is left over.
std::optional<std::vector<std::byte>> from_hex(std::string_view hex);
std::optional<std::string> text_from_hex(std::string_view hex);

// Takes the digits at the front of `text` as a number, most significant digit first. Nothing, and
// `text` as it was, when there is no digit or the number needs more than 64 bits.
std::optional<std::uint64_t> take_hex(std::string_view &text);
// The whole of `text` as a number.
std::optional<std::uint64_t> hex_number(std::string_view text);

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace cowbird::debug
