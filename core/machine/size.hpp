// Sizes as people write them: "128M", "4096", "1G". Anyone may include this header.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cowbird {

// Digits, then K, M, G or T (either case; powers of 1024) or nothing: bytes. Empty when `text` is
// anything else or the size does not fit in 63 bits.
std::optional<std::uint64_t> parse_size(std::string_view text);

// "128M", "1536K", "513": the largest unit that divides the size.
std::string format_size(std::uint64_t bytes);

}  // namespace cowbird
