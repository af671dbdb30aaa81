#include "mconsole/client.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace cowbird::mconsole {

namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

// How often a client that waits looks whether the guest is still there.
constexpr std::chrono::milliseconds kLook{250};

std::chrono::milliseconds left_until(steady_clock::time_point end) {
  return std::chrono::ceil<std::chrono::milliseconds>(end - steady_clock::now());
}

// 0 when somebody listens, else the host's errno.
int why_unreachable(const sockaddr_un &address) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return errno;
  return ::connect(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) == 0
             ? 0
             : errno;
}

std::string absolute_name(std::string_view name, const fs::path &directory) {
  if (name.empty() || name.starts_with('/')) return std::string(name);
  return (directory / name).lexically_normal().string();
}

// "cow,backing" or "cow:backing": each a file.
std::string absolute_files(std::string_view setting, const fs::path &directory) {
  auto at = setting.find(',');
  if (at == std::string_view::npos) at = setting.find(':');
  if (at == std::string_view::npos) return absolute_name(setting, directory);
  return absolute_name(setting.substr(0, at), directory) + setting[at] +
         absolute_name(setting.substr(at + 1), directory);
}

// "file:x.log,null": those of the channels that name a file.
std::string absolute_channels(std::string_view setting, const fs::path &directory) {
  constexpr std::string_view kWithFile[] = {"tty:", "file:", "unix:"};
  std::string out;
  for (std::size_t at = 0; at <= setting.size();) {
    const std::size_t end = std::min(setting.find(',', at), setting.size());
    const std::string_view part = setting.substr(at, end - at);
    const auto *kind =
        std::ranges::find_if(kWithFile, [&](std::string_view k) { return part.starts_with(k); });
    if (at > 0) out += ',';
    if (kind == std::end(kWithFile)) {
      out += part;
    } else {
      out += std::string(*kind) + absolute_name(part.substr(kind->size()), directory);
    }
    at = end + 1;
  }
  return out;
}

// {path="x.img", backing='y'}: the values of the keys that name files.
std::string absolute_table(std::string_view table, const fs::path &directory) {
  constexpr std::string_view kFileKeys[] = {"path", "backing", "device", "log"};
  std::string out;
  std::string key;
  for (std::size_t i = 0; i < table.size();) {
    const char c = table[i];
    if (c != '"' && c != '\'') {
      if (c == '{' || c == ',')
        key.clear();
      else if (c != '=' && c != ' ' && c != '\t')
        key += c;
      out += c;
      ++i;
      continue;
    }
    std::size_t end = i + 1;
    while (end < table.size() && table[end] != c) end += c == '"' && table[end] == '\\' ? 2 : 1;
    end = std::min(end, table.size());
    const std::string_view value = table.substr(i + 1, end - i - 1);
    const bool file = std::ranges::find(kFileKeys, key) != std::end(kFileKeys);
    // The directory's name may need the escapes of the string it goes into.
    const bool plain = directory.native().find_first_of("\"'\\") == std::string::npos;
    out += c;
    out += file && plain && value.find('\\') == value.npos ? absolute_name(value, directory)
                                                           : std::string(value);
    if (end < table.size()) out += c;
    i = end + 1;
  }
  return out;
}

}  // namespace

std::unique_ptr<Client> Client::connect(const fs::path &socket, std::string &error) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.native().size() >= sizeof address.sun_path) {
    error = fmt::format("The path {} is too long for a socket.", socket.string());
    return nullptr;
  }
  std::memcpy(address.sun_path, socket.c_str(), socket.native().size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  // An address of the host's choice, for answers to come to.
  sockaddr_un own{};
  own.sun_family = AF_UNIX;
  if (!fd.valid() ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr *>(&own), sizeof own.sun_family) != 0) {
    error = fmt::format("A socket for the management console cannot be made: {}.",
                        std::strerror(errno));
    return nullptr;
  }
  if (const int why = why_unreachable(address); why != 0) {
    error = why == ENOENT || why == ECONNREFUSED
                ? fmt::format("No management console listens on {}.", socket.string())
                : fmt::format("The management console {} cannot be reached: {}.", socket.string(),
                              std::strerror(why));
    return nullptr;
  }
  return std::unique_ptr<Client>(new Client(std::move(fd), address));
}

// What comes late, after we had lost patience, must not be taken for the answer to something else.
void Client::drop_old_answers() {
  std::array<char, sizeof(ReplyPacket)> buffer;
  while (unanswered_ && ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) >= 0) {
  }
}

// A guest that stands still, as after SIGSTOP, lets requests pile up until the host takes no more.
int Client::send(std::string_view request, Deadline deadline) {
  for (auto left = left_until(deadline); left.count() > 0; left = left_until(deadline)) {
    const auto wait = std::chrono::duration_cast<std::chrono::microseconds>(std::min(left, kLook));
    const timeval limit{0, static_cast<suseconds_t>(wait.count())};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (::sendto(socket_.get(), request.data(), request.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr *>(&server_), sizeof server_) >= 0) {
      return 0;
    }
    if (errno != EAGAIN && errno != EINTR) return errno;
  }
  return EAGAIN;
}

ssize_t Client::receive(std::span<std::byte> buffer, Deadline deadline) {
  for (auto left = left_until(deadline); left.count() > 0; left = left_until(deadline)) {
    pollfd fd{socket_.get(), POLLIN, 0};
    const int ready = ::poll(&fd, 1, static_cast<int>(std::min(left, kLook).count()));
    if (ready == 0 && why_unreachable(server_) != 0) return -1;
    if (ready <= 0) continue;
    sockaddr_un from{};
    socklen_t length = sizeof from;
    const ssize_t got = ::recvfrom(socket_.get(), buffer.data(), buffer.size(), 0,
                                   reinterpret_cast<sockaddr *>(&from), &length);
    // Somebody else who has found our address out is not the guest.
    if (got > 0 && std::strncmp(from.sun_path, server_.sun_path, sizeof from.sun_path) == 0) {
      return got;
    }
  }
  return 0;
}

ClientReply Client::ask(std::string_view command, std::chrono::milliseconds patience,
                        Deadline deadline) {
  const auto limit = [&] { return std::min(deadline, steady_clock::now() + patience); };
  const std::string request = encode_request(command);
  if (request.empty()) {
    return {Outcome::Error, fmt::format("The request is longer than {} bytes", kMaxData - 1)};
  }
  drop_old_answers();
  const auto silence = [] { return ClientReply{Outcome::NoAnswer, "The guest does not answer."}; };
  const int status = send(request, limit());
  if (status == EAGAIN) return silence();
  if (status != 0) {
    return {Outcome::Gone, fmt::format("The guest is gone: {}.", std::strerror(status))};
  }
  unanswered_ = true;
  ClientReply reply;
  for (bool more = true; more;) {
    // One byte more than a packet, so that what is longer is seen.
    std::array<std::byte, sizeof(ReplyPacket) + 1> buffer;
    const ssize_t got = receive(buffer, limit());
    if (got == 0) return silence();
    if (got < 0) return {Outcome::Gone, "The guest is gone."};
    const Reply piece = parse_reply(std::span(buffer).first(static_cast<std::size_t>(got)));
    if (!piece.good) return {Outcome::Error, "The answer is no packet of the management console"};
    if (piece.err) reply.outcome = Outcome::Error;
    reply.text += piece.text;
    more = piece.more;
  }
  unanswered_ = false;
  return reply;
}

std::string with_absolute_names(std::string_view command, const fs::path &directory) {
  const CommandLine line = parse_command(command);
  const auto equals = line.argument.find('=');
  if (line.command != Command::Config || equals == std::string::npos) return std::string(command);
  const std::string_view name = std::string_view(line.argument).substr(0, equals);
  const std::string_view setting = std::string_view(line.argument).substr(equals + 1);
  std::string changed;
  if (setting.starts_with('{')) {
    changed = absolute_table(setting, directory);
  } else if (name.starts_with("ubd")) {
    changed = absolute_files(setting, directory);
  } else if (name.starts_with("con") || name.starts_with("ssl") || name == "gdb") {
    changed = absolute_channels(setting, directory);
  } else {
    return std::string(command);
  }
  return fmt::format("config {}={}", name, changed);
}

std::vector<std::string> log_requests(std::string_view text) {
  constexpr std::string_view kVerb = "log ";
  constexpr std::size_t kMost = kMaxData - 1 - kVerb.size();
  std::vector<std::string> requests;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    do {
      requests.push_back(std::string(kVerb) + std::string(line.substr(0, kMost)));
      line.remove_prefix(std::min(line.size(), kMost));
    } while (!line.empty());
  }
  return requests;
}

}  // namespace cowbird::mconsole
