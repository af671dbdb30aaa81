#include "mconsole/server.hpp"

#include <fmt/format.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/log.hpp"

namespace cowbird::mconsole {

namespace {

using std::chrono::steady_clock;

// How often a full queue of a client is tried again; the host does not tell when there is room.
constexpr int kRetryMs = 1;

// Longer than any request, so that one which is too long is seen as such.
using Buffer = std::array<std::byte, sizeof(RequestPacket) + 1>;

// One datagram with its sender; the length, or -1.
ssize_t receive_from(int fd, Buffer &buffer, ClientAddress &client, ucred &sender) {
  iovec part{buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  msghdr message{};
  message.msg_name = &client.address;
  message.msg_namelen = sizeof client.address;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  // An unbound sender's address is its family alone.
  client.length = message.msg_namelen > sizeof(sa_family_t) ? message.msg_namelen : 0;
  sender.uid = static_cast<uid_t>(-1);
  for (const cmsghdr *c = CMSG_FIRSTHDR(&message); c;
       c = CMSG_NXTHDR(&message, const_cast<cmsghdr *>(c))) {
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
      std::memcpy(&sender, CMSG_DATA(c), sizeof sender);
    }
  }
  return got;
}

// What clients have not read yet, with the host's own bookkeeping.
int unread_bytes(int fd) {
  int bytes = 0;
  return ::ioctl(fd, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

std::size_t bytes_of(const std::deque<std::string> &packets) {
  std::size_t bytes = 0;
  for (const auto &packet : packets) bytes += packet.size();
  return bytes;
}

}  // namespace

bool ClientAddress::operator==(const ClientAddress &other) const {
  return length == other.length && std::memcmp(&address, &other.address, length) == 0;
}

void Responder::answer(const Answer &answer, std::string_view first) const {
  if (answered_->exchange(true)) return;
  server_->enqueue(client_, encode_answer(answer, first));
}

std::unique_ptr<Server> Server::start(const std::filesystem::path &socket, Dispatch dispatch,
                                      std::string &error, Tick tick) {
  const auto refuse = [&](const char *what) {
    error = fmt::format("The management console's socket {} cannot be {}: {}.", socket.string(),
                        what, std::strerror(errno));
    return nullptr;
  };
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.native().size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return refuse("made");
  }
  std::memcpy(address.sun_path, socket.c_str(), socket.native().size());
  std::unique_ptr<Server> server(new Server);
  server->dispatch_ = std::move(dispatch);
  server->tick_ = std::move(tick);
  server->socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  server->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!server->socket_.valid() || !server->wake_.valid()) return refuse("made");
  // As much as the host allows.
  const int size = 1 << 20;
  ::setsockopt(server->socket_.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  const int on = 1;
  if (::setsockopt(server->socket_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
    return refuse("told to name its senders");
  }
  ::unlink(socket.c_str());
  // The mode of the socket before it has a name is that of its name.
  ::fchmod(server->socket_.get(), 0600);
  if (::bind(server->socket_.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) !=
      0) {
    return refuse("bound");
  }
  auto thread = HostThread::start("mconsole", [raw = server.get()] { raw->main(); });
  if (!thread) {
    errno = EAGAIN;
    ::unlink(socket.c_str());
    return refuse("served");
  }
  server->thread_ = std::move(*thread);
  return server;
}

void Server::stop(std::chrono::milliseconds patience) {
  if (!thread_.joinable()) return;
  stop_patience_ms_ = patience.count();
  stopping_ = true;
  wake();
  thread_.join();
}

Server::~Server() { stop(std::chrono::milliseconds(0)); }

void Server::wake() {
  const std::uint64_t one = 1;
  // A full counter wakes as well.
  [[maybe_unused]] const ssize_t put = ::write(wake_.get(), &one, sizeof one);
}

void Server::main() {
  while (!stopping_) {
    const int again_ms = tick_ ? tick_() : -1;
    const bool again = send_waiting();
    pollfd fds[2] = {{socket_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (::poll(fds, 2, again ? kRetryMs : again_ms) < 0 && errno != EINTR) {
      log_err("mconsole: poll: {}", errno_text(errno_from_host(errno)));
      return;
    }
    std::uint64_t count = 0;
    if (fds[1].revents != 0) {
      [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
    }
    if (fds[0].revents != 0 && !stopping_) receive();
  }
  flush(std::chrono::milliseconds(stop_patience_ms_));
}

void Server::flush(std::chrono::milliseconds patience) {
  const auto end = steady_clock::now() + patience;
  while (send_waiting() && steady_clock::now() < end) ::poll(nullptr, 0, kRetryMs);
}

void Server::receive() {
  Buffer buffer;
  ClientAddress client;
  ucred sender{};
  const ssize_t got = receive_from(socket_.get(), buffer, client, sender);
  if (got < 0) return;
  const Responder responder(*this, client);
  if (sender.uid != 0 && sender.uid != ::geteuid()) {
    log_warn("mconsole: a request of user {} was refused", sender.uid);
    responder.answer(Answer::error("Permission denied"));
    return;
  }
  const Request request = parse_request(std::span(buffer).first(static_cast<std::size_t>(got)));
  if (request.plain) {
    enqueue(client, {encode_plain(Answer::error(request.why))});
    return;
  }
  if (!request.good) {
    responder.answer(Answer::error(request.why));
    return;
  }
  const CommandLine line = parse_command(request.text);
  if (line.command == Command::Unknown) {
    responder.answer(Answer::error("Unknown command"));
    return;
  }
  dispatch_(line, responder);
}

void Server::enqueue(const ClientAddress &client, std::vector<std::string> packets) {
  if (client.length == 0) return;
  Waiting waiting{
      client,
      {std::make_move_iterator(packets.begin()), std::make_move_iterator(packets.end())},
      steady_clock::now() + kPatience};
  const std::size_t bytes = bytes_of(waiting.packets);
  bool kept = false;
  {
    const MutexLock guard(lock_);
    kept = waiting_bytes_ + bytes <= kMaxWaiting;
    if (kept) {
      waiting_bytes_ += bytes;
      waiting_.push_back(std::move(waiting));
    }
  }
  if (!kept) log_warn("mconsole: clients do not read their answers; one was dropped");
  wake();
}

bool Server::send_one(Waiting &waiting) {
  if (waiting.unread_before < 0) waiting.unread_before = unread_bytes(socket_.get());
  while (!waiting.packets.empty()) {
    if (unread_bytes(socket_.get()) - waiting.unread_before > kWindow &&
        steady_clock::now() < waiting.give_up) {
      return false;
    }
    const std::string &packet = waiting.packets.front();
    const ssize_t sent = ::sendto(
        socket_.get(), packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
        reinterpret_cast<const sockaddr *>(&waiting.client.address), waiting.client.length);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS) &&
        steady_clock::now() < waiting.give_up) {
      return false;
    }
    if (sent < 0) {  // the client is gone, or does not read
      waiting_bytes_ -= bytes_of(waiting.packets);
      waiting.packets.clear();
      return true;
    }
    waiting_bytes_ -= packet.size();
    waiting.packets.pop_front();
    waiting.give_up = steady_clock::now() + kPatience;
  }
  return true;
}

bool Server::send_waiting() {
  const MutexLock guard(lock_);
  // A client gets its answers one after the other.
  std::vector<const ClientAddress *> stuck;
  for (Waiting &waiting : waiting_) {
    const bool behind = std::ranges::any_of(
        stuck, [&](const ClientAddress *client) { return *client == waiting.client; });
    if (behind || !send_one(waiting)) stuck.push_back(&waiting.client);
  }
  std::erase_if(waiting_, [](const Waiting &waiting) { return waiting.packets.empty(); });
  return !waiting_.empty();
}

}  // namespace cowbird::mconsole
