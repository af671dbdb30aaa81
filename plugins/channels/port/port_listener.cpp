#include "port/port_listener.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>

#include <algorithm>
#include <map>

#include "common/listener.hpp"

namespace channels {

using cowbird::sdk::Error;
using cowbird::sdk::throw_errno;

namespace {

constexpr int kKnocking = 16;

void say(int socket, const std::string &text) {
  // A client that takes not even that is told nothing.
  [[maybe_unused]] const ssize_t n =
      send(socket, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

struct AddressInfo {
  addrinfo *info = nullptr;
  ~AddressInfo() {
    if (info) freeaddrinfo(info);
  }
};

}  // namespace

std::shared_ptr<PortListener> PortListener::open(const std::string &bind, std::uint16_t port) {
  using Key = std::pair<std::string, std::uint16_t>;
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<PortListener>> all;
  const std::lock_guard lock(mutex);
  std::erase_if(all, [](const auto &entry) { return entry.second.expired(); });
  if (const auto found = all.find(Key(bind, port)); found != all.end()) {
    if (auto listener = found->second.lock()) {
      listener->add_channel(bind, port);
      return listener;
    }
  }
  auto listener = std::make_shared<PortListener>();
  listener->add_channel(bind, port);
  all[Key(bind, port)] = listener;
  return listener;
}

void PortListener::add_channel(const std::string &bind, std::uint16_t port) {
  const std::lock_guard lock(mutex_);
  if (channels_ == 0) listen_on(bind, port);
  ++channels_;
}

bool PortListener::close() {
  const std::lock_guard lock(mutex_);
  if (--channels_ == 0) {
    accept_all();  // who has knocked already is in line
    sockets_.clear();
  }
  return !line_.empty();
}

void PortListener::listen_on(const std::string &bind, std::uint16_t port) {
  sockets_.clear();  // of an attempt that failed
  const bool loopback = bind == "loopback";
  if (!loopback && bind != "any") return add_socket(bind, port, false);
  add_socket(loopback ? "127.0.0.1" : "0.0.0.0", port, false);
  add_socket(loopback ? "::1" : "::", port, true);  // where the host has IPv6
}

void PortListener::add_socket(const std::string &address, std::uint16_t port, bool optional) {
  const std::string name = address + " port " + std::to_string(port);
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  AddressInfo found;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found.info) != 0) {
    throw Error(EINVAL, "\"" + address +
                            "\" (key \"bind\") is no address. Give \"loopback\", \"any\", or an "
                            "IPv4 or IPv6 address in numbers.");
  }
  Descriptor fd(socket(found.info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) {
    if (optional) return;
    throw_errno("The host gives no socket for " + name);
  }
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // Else "::" would be IPv4's too, which has a socket of its own.
  if (found.info->ai_family == AF_INET6)
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind(fd.get(), found.info->ai_addr, found.info->ai_addrlen) != 0 ||
      listen(fd.get(), kKnocking) != 0) {
    const int error = errno;
    if (optional && error == EADDRNOTAVAIL) return;
    if (error == EADDRINUSE) {
      throw Error(error, name + " is in use by somebody else. Name another port.");
    }
    throw_errno("Nobody can connect to " + name, error);
  }
  sockets_.push_back(std::move(fd));
}

std::vector<Descriptor> PortListener::duplicates() const {
  std::vector<Descriptor> copies;
  for (const Descriptor &socket : sockets_) {
    Descriptor copy(fcntl(socket.get(), F_DUPFD_CLOEXEC, 3));
    if (!copy) throw_errno("The listening socket cannot be duplicated");
    copies.push_back(std::move(copy));
  }
  return copies;
}

void PortListener::sit(Seat &seat) {
  const std::lock_guard lock(mutex_);
  free_.push_back(&seat);
  serve_line();
}

void PortListener::leave(Seat &seat) {
  const std::lock_guard lock(mutex_);
  free_.remove(&seat);
  if (!seat.client) return;
  line_.push_front({std::move(seat.client)});
  serve_line();
}

Descriptor PortListener::fetch(Seat &seat) {
  const std::lock_guard lock(mutex_);
  return std::move(seat.client);
}

// Who waits in the line is served in order; who has given up meanwhile is dropped.
void PortListener::serve_line() {
  while (!line_.empty() && !free_.empty()) {
    Waiting first = std::move(line_.front());
    line_.pop_front();
    if (first.gave_up()) continue;
    Seat *const seat = free_.front();
    free_.pop_front();
    seat->client = std::move(first.client);
    seat->wake();
  }
}

void PortListener::welcome(Descriptor client) {
  std::erase_if(line_, [](const Waiting &waiting) { return waiting.gave_up(); });
  const bool waits = free_.empty();
  if (waits) {
    if (line_.size() >= kLongestLine) {
      say(client.get(), "All terminals are in use, and too many wait already.\r\n");
      close_politely(std::move(client));
      return;
    }
    say(client.get(), "All terminals are in use. You are number " +
                          std::to_string(line_.size() + 1) + " in line; wait, or go.\r\n");
  }
  line_.push_back({std::move(client), waits});
  serve_line();
}

bool PortListener::take_clients() {
  const std::lock_guard lock(mutex_);
  return accept_all();
}

bool PortListener::accept_all() {
  bool all = true;
  for (const Descriptor &socket : sockets_) {
    for (;;) {
      auto [client, refused] = accept_client(socket.get());
      all &= !refused;
      if (!client) break;
      welcome(std::move(client));
    }
  }
  return all;
}

}  // namespace channels
