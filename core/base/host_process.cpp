#include "base/host_process.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
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

std::vector<char *> exec_pointers(std::vector<std::string> &words) {
  std::vector<char *> argv;
  argv.reserve(words.size() + 1);
  for (std::string &word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return argv;
}

std::string read_first_line(int fd, int patience_ms) {
  constexpr std::size_t kMost = 4096;
  std::string text;
  std::array<char, 512> piece;
  while (text.size() < kMost && text.find('\n') == std::string::npos) {
    pollfd poll_fd{fd, POLLIN, 0};
    const int ready = ::poll(&poll_fd, 1, patience_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) break;
    const ssize_t got = ::read(fd, piece.data(), std::min(piece.size(), kMost - text.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(piece.data(), static_cast<std::size_t>(got));
  }
  return text.substr(0, text.find('\n'));
}

}  // namespace cowbird
