// A debug agent that is a thread of the test: takes one client and has each request answered by a
// function of the test's, on that thread. For tests of what the debugger's server asks an agent.
#pragma once

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.hpp"
#include "base/unique_fd.hpp"
#include "debug_agent/protocol.hpp"

namespace cowbird::test {

std::vector<std::byte> bytes_of(const auto &value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}

class AgentThread {
 public:
  // The body of the reply. `client` is for say().
  using Answer =
      std::function<std::vector<std::byte>(int client, const debug_agent::Request &request)>;

  explicit AgentThread(Answer answer) : answer_(std::move(answer)) {
    char name[] = "/tmp/cowbird-agent-XXXXXX";
    KASSERT(::mkdtemp(name) != nullptr);
    directory_ = name;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path().c_str(), sizeof address.sun_path - 1);
    listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    KASSERT(::bind(listener_.get(), reinterpret_cast<sockaddr *>(&address), sizeof address) == 0 &&
            ::listen(listener_.get(), 1) == 0);
    thread_ = std::thread([this] { serve(); });
  }
  // The client has gone, and no answer waits for anything any more.
  ~AgentThread() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    std::filesystem::remove_all(directory_);
  }
  AgentThread(const AgentThread &) = delete;
  AgentThread &operator=(const AgentThread &) = delete;

  std::string path() const { return directory_ + "/debug"; }

  // A message. At the end of a test nobody takes it any more.
  static void say(int client, debug_agent::Header header, std::span<const std::byte> body) {
    header.size = static_cast<std::uint32_t>(body.size());
    auto message = bytes_of(header);
    message.insert(message.end(), body.begin(), body.end());
    [[maybe_unused]] const auto sent = ::send(client, message.data(), message.size(), MSG_NOSIGNAL);
  }

 private:
  void serve() {
    const UniqueFd client(::accept(listener_.get(), nullptr, nullptr));
    for (;;) {
      debug_agent::Header header;
      if (!receive(client.get(), std::as_writable_bytes(std::span(&header, 1)))) return;
      std::vector<std::byte> body(header.size);
      if (!receive(client.get(), body)) return;
      const auto request = debug_agent::parse_request(header, body);
      if (!request) return;
      say(client.get(), header, answer_(client.get(), *request));
    }
  }
  static bool receive(int fd, std::span<std::byte> out) {
    return out.empty() ||
           ::recv(fd, out.data(), out.size(), MSG_WAITALL) == static_cast<ssize_t>(out.size());
  }

  const Answer answer_;
  std::string directory_;
  UniqueFd listener_;
  std::thread thread_;
};

}  // namespace cowbird::test
