#include "debug/target/agent_client.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace cowbird::debug {
namespace {

using namespace debug_agent;  // NOLINT: its words are all that this file is about

constexpr std::int64_t kPatienceMs = 10'000;
constexpr int kTurnMs = 50;

std::int64_t now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1'000'000;
}

}  // namespace

Result<std::unique_ptr<AgentClient>> AgentClient::connect(const std::string &socket,
                                                          Waiting waiting, std::string &why) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.empty() || socket.size() >= sizeof(address.sun_path)) {
    why = "The guest has no debug agent: it has not started one yet, or has no run-time directory.";
    return Err(Errno::NoEnt);
  }
  std::memcpy(address.sun_path, socket.data(), socket.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Err(errno_from_host(errno));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof(address)) != 0) {
    const Errno error = errno_from_host(errno);
    why = fmt::format("The guest's debug agent at {} cannot be reached: {}.", socket,
                      errno_text(error));
    return Err(error);
  }
  std::unique_ptr<AgentClient> client(new AgentClient(std::move(fd), std::move(waiting)));
  const std::uint64_t version = kVersion;
  const auto reply = client->call(Command::Hello, {}, std::span(&version, 1));
  if (!reply || reply->size() < sizeof(HelloReply)) {
    why = client->words().empty() ? "The guest's debug agent does not answer." : client->words();
    return Err(reply ? Errno::Proto : reply.error());
  }
  std::memcpy(&client->hello_, reply->data(), sizeof(HelloReply));
  return client;
}

Result<void> AgentClient::wait(short events, std::int64_t deadline_ms) {
  std::array<pollfd, 2> polls{{{fd_.get(), events, 0}, {waiting_.fd, POLLIN, 0}}};
  const int ready = ::poll(polls.data(), waiting_.fd >= 0 ? 2 : 1, kTurnMs);
  if (ready < 0 && errno != EINTR) return Err(errno_from_host(errno));
  if (polls[0].revents != 0) return {};
  if (waiting_.turn && !waiting_.turn()) {
    words_ = "The guest kernel stands still, and cannot answer for its programs.";
    return Err(Errno::Again);
  }
  if (now_ms() > deadline_ms) {
    words_ = "The guest kernel's debug agent does not answer: the kernel may hang.";
    return Err(Errno::TimedOut);
  }
  return {};
}

Result<void> AgentClient::send() {
  const std::int64_t deadline = now_ms() + kPatienceMs;
  while (!output_.empty()) {
    const ssize_t sent =
        ::send(fd_.get(), output_.data(), output_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      output_.erase(output_.begin(), output_.begin() + sent);
    } else if (errno == EPIPE) {
      output_.clear();  // the reason is there to be read
    } else if (errno == EAGAIN) {
      TRY(wait(POLLOUT, deadline));
    } else if (errno != EINTR) {
      return Err(errno_from_host(errno));
    }
  }
  return {};
}

void AgentClient::receive() {
  std::array<std::byte, 65536> buffer;
  for (;;) {
    const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got > 0) {
      input_.insert(input_.end(), buffer.begin(), buffer.begin() + got);
      while (take_message()) {
      }
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got == 0 || errno != EAGAIN) gone_ = true;
    return;
  }
}

bool AgentClient::take_message() {
  const auto header = parse_header(input_);
  if (!header) {
    if (!header.is(Errno::Again)) gone_ = true;
    return false;
  }
  const std::size_t whole = sizeof(Header) + header->size;
  if (input_.size() < whole) return false;
  const auto begin = input_.begin() + sizeof(Header);
  const auto end = input_.begin() + static_cast<std::ptrdiff_t>(whole);
  if (header->command == static_cast<std::uint16_t>(Command::Stopped)) {
    for (const StopRecord &stop : records<StopRecord>(std::span(begin, end))) {
      stops_.push_back(stop);
    }
  } else {
    replies_.push_back({header->id, static_cast<Errno>(header->error), Bytes(begin, end)});
  }
  input_.erase(input_.begin(), end);
  return true;
}

Result<AgentClient::Bytes> AgentClient::reply_to(std::uint32_t id) {
  const std::int64_t deadline = now_ms() + kPatienceMs;
  for (;;) {
    receive();
    while (!replies_.empty()) {
      Reply reply = std::move(replies_.front());
      replies_.pop_front();
      // Id 0: it refuses the connection. Others are late replies to calls that were given up.
      if (reply.id != id && reply.id != 0) continue;
      if (reply.error == Errno{}) return std::move(reply.body);
      words_.assign(reinterpret_cast<const char *>(reply.body.data()), reply.body.size());
      return Err(reply.error);
    }
    if (gone_) {
      words_ = "The guest has ended.";
      return Err(Errno::Pipe);
    }
    TRY(wait(POLLIN, deadline));
  }
}

Result<AgentClient::Bytes> AgentClient::call(Command command, RequestFields fields,
                                             std::span<const std::uint64_t> numbers,
                                             std::span<const std::byte> bytes) {
  words_.clear();
  if (gone_) return Err(Errno::Pipe);
  if (waiting_.ready) TRY(waiting_.ready(words_));
  const std::uint32_t id = ++last_id_;
  const Bytes request = encode_request(command, id, fields, numbers, bytes);
  output_.insert(output_.end(), request.begin(), request.end());
  TRY(send());
  return reply_to(id);
}

void AgentClient::post(Command command) {
  const Bytes request = encode_request(command, ++last_id_, {});
  output_.insert(output_.end(), request.begin(), request.end());
  const ssize_t sent =
      ::send(fd_.get(), output_.data(), output_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent > 0) output_.erase(output_.begin(), output_.begin() + sent);
}

std::optional<StopRecord> AgentClient::next_stop() {
  if (!gone_) receive();
  if (stops_.empty()) return std::nullopt;
  const StopRecord stop = stops_.front();
  stops_.pop_front();
  return stop;
}

}  // namespace cowbird::debug
