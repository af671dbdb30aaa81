// Names of devices in machine files and the units they mean. Anyone may include this header.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cowbird {

// "ubd0" and "ubda": 0; empty when `name` is no block device of a machine.
std::optional<std::uint32_t> block_unit(std::string_view name);
// "con3": 3; "con*": kEveryLine.
std::optional<std::uint32_t> console_unit(std::string_view name);
// "ssl3": 3; "ssl*": kEveryLine.
std::optional<std::uint32_t> serial_unit(std::string_view name);
// What stands behind the prefix of a line's name: "3".
std::optional<std::uint32_t> line_unit(std::string_view digits);

}  // namespace cowbird
