#include "debug/server/listen_address.hpp"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace cowbird::debug {

namespace {

constexpr std::string_view kForms = "Write \"tcp:HOST:PORT\", \"unix:/PATH\" or \"stdio\".";
constexpr int kBacklog = 8;

std::optional<ListenAddress> parse_tcp(std::string_view rest, std::string &why) {
  ListenAddress address{.kind = ListenAddress::Kind::Tcp};
  const auto colon = rest.rfind(':');
  auto host = colon == std::string_view::npos ? std::string_view() : rest.substr(0, colon);
  const auto port = colon == std::string_view::npos ? rest : rest.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    why = fmt::format("An IPv6 address stands in brackets: \"tcp:[{}]:{}\".", host, port);
    return std::nullopt;
  }
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (error != std::errc() || end != port.data() + port.size()) {
    why = fmt::format("\"{}\" is no port number from 0 to 65535. {}", port, kForms);
    return std::nullopt;
  }
  address.host = host;
  return address;
}

std::string failure(const ListenAddress &address, std::string_view what, int error) {
  return fmt::format("Cannot {} {}: {}.", what, address.text(), std::strerror(error));
}

// The socket of `info`, listening; its errno otherwise.
UniqueFd listen_tcp(const addrinfo &info, int &error) {
  UniqueFd fd(::socket(info.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (fd.valid()) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (fd.valid() && ::bind(fd.get(), info.ai_addr, info.ai_addrlen) == 0 &&
      ::listen(fd.get(), kBacklog) == 0)
    return fd;
  error = errno;
  return {};
}

std::uint16_t bound_port(int fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (::getsockname(fd, reinterpret_cast<sockaddr *>(&name), &size) != 0) return 0;
  if (name.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6 &>(name).sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in &>(name).sin_port);
}

UniqueFd listen_tcp(ListenAddress &address, std::string &why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = address.host == "*" ? AI_PASSIVE : 0;
  const auto host = address.host.empty() ? "127.0.0.1" : address.host.c_str();
  addrinfo *found = nullptr;
  const int code = ::getaddrinfo(address.host == "*" ? nullptr : host,
                                 std::to_string(address.port).c_str(), &hints, &found);
  if (code != 0) {
    why = fmt::format("\"{}\" is no address of this host: {}.", address.host, ::gai_strerror(code));
    return {};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  int error = EADDRNOTAVAIL;
  for (const auto *info = found; info != nullptr; info = info->ai_next) {
    auto fd = listen_tcp(*info, error);
    if (!fd.valid()) continue;
    address.port = bound_port(fd.get());
    return fd;
  }
  why = failure(address, "listen on", error);
  return {};
}

// Removes what an earlier server has left at the path. False: something is there that stays.
bool clear_path(const ListenAddress &address, const sockaddr_un &name, std::string &why) {
  struct stat info {};
  if (::lstat(address.path.c_str(), &info) != 0) return true;
  if (!S_ISSOCK(info.st_mode)) {
    why = fmt::format("{} is there already and is no socket. Remove it, or choose another path.",
                      address.path);
    return false;
  }
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr *>(&name), sizeof(name)) == 0 ||
      errno != ECONNREFUSED) {
    why = fmt::format("{} is in use by another server.", address.path);
    return false;
  }
  ::unlink(address.path.c_str());
  return true;
}

UniqueFd listen_unix(const ListenAddress &address, std::string &why) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (address.path.size() >= sizeof(name.sun_path)) {
    why = fmt::format("The path {} is too long for a socket: {} bytes at most.", address.path,
                      sizeof(name.sun_path) - 1);
    return {};
  }
  std::memcpy(name.sun_path, address.path.data(), address.path.size());
  if (!clear_path(address, name, why)) return {};
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // Nobody can connect before listen(), so the mode is right in time.
  if (!fd.valid() ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr *>(&name), sizeof(name)) != 0 ||
      ::chmod(address.path.c_str(), S_IRUSR | S_IWUSR) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    why = failure(address, "listen on", errno);
    return {};
  }
  return fd;
}

}  // namespace

std::optional<ListenAddress> ListenAddress::parse(std::string_view text, std::string &why) {
  constexpr std::string_view kTcp = "tcp:", kUnix = "unix:";
  if (text == "stdio") return ListenAddress{};
  if (text.starts_with(kTcp)) return parse_tcp(text.substr(kTcp.size()), why);
  if (text.starts_with(kUnix)) {
    ListenAddress address{.kind = Kind::Unix};
    address.path = text.substr(kUnix.size());
    if (!address.path.empty()) return address;
    why = fmt::format("\"{}\" has no path. {}", text, kForms);
    return std::nullopt;
  }
  why = fmt::format("\"{}\" is no address for gdb. {}", text, kForms);
  return std::nullopt;
}

std::string ListenAddress::text() const {
  if (kind == Kind::Stdio) return "stdio";
  if (kind == Kind::Unix) return "unix:" + path;
  const bool v6 = host.find(':') != std::string::npos;
  const auto shown = host.empty() ? std::string("127.0.0.1") : v6 ? "[" + host + "]" : host;
  return fmt::format("tcp:{}:{}", shown, port);
}

UniqueFd listen_on(ListenAddress &address, std::string &why) {
  if (address.kind == ListenAddress::Kind::Tcp) return listen_tcp(address, why);
  return listen_unix(address, why);
}

}  // namespace cowbird::debug
