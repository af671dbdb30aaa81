#include "base/host_process.hpp"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <string>

namespace cowbird {

std::optional<std::uint64_t> host_process_status(pid_t pid, std::string_view key) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(key) || line.size() <= key.size() || line[key.size()] != ':') continue;
    const std::size_t digits = line.find_first_not_of(" \t", key.size() + 1);
    if (digits == std::string::npos) return std::nullopt;
    std::uint64_t number = 0;
    const auto [end, error] =
        std::from_chars(line.data() + digits, line.data() + line.size(), number);
    if (error != std::errc{}) return std::nullopt;
    return number;
  }
  return std::nullopt;
}

pid_t host_process_tracer(pid_t pid) {
  return static_cast<pid_t>(host_process_status(pid, "TracerPid").value_or(0));
}

}  // namespace cowbird
