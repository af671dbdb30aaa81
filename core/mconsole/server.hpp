// The server's side of the management console's socket: one host thread, "mconsole", receives
// requests and sends answers. It never takes the big kernel lock, so it works whatever the guest
// kernel does; what a request means is decided by the Dispatch that it is given
// (mconsole/commands.cpp).
//
// Answers may come later and from anywhere: a Responder is kept for as long as that takes.
// Datagrams that the client's queue has no room for wait here, in order, until it reads or has not
// done so for kPatience. Requests of other users than ours and root are refused.
//
// Lock: `lock_`, rank Mconsole, protects the answers on their way.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/host_thread.hpp"
#include "base/lock.hpp"
#include "base/unique_fd.hpp"
#include "mconsole/protocol.hpp"

namespace cowbird::mconsole {

class Server;

struct ClientAddress {
  sockaddr_un address{};
  socklen_t length = 0;  // 0: it has none and gets no answer
  bool operator==(const ClientAddress &other) const;
};

// Where the answer to one request goes. Copies are the same; the first answer counts, others are
// dropped. The server outlives it.
class Responder {
 public:
  Responder(Server &server, const ClientAddress &client) : server_(&server), client_(client) {}
  // Any host thread, under any lock of a lower rank than Mconsole. Does not block.
  void answer(const Answer &answer, std::string_view first = {}) const;
  bool answered() const { return answered_->load(); }

 private:
  Server *server_;
  ClientAddress client_;
  std::shared_ptr<std::atomic<bool>> answered_ = std::make_shared<std::atomic<bool>>(false);
};

class Server {
 public:
  // Called on the server's thread, without locks, for each good request.
  using Dispatch = std::function<void(const CommandLine &, const Responder &)>;
  // Called on the server's thread, without locks, after each request, and again after so many
  // milliseconds as it says; -1: not before the next request.
  using Tick = std::function<int()>;
  static constexpr std::chrono::seconds kPatience{10};
  // The host bounds the queue of a client whose socket is not connected. What a connected one does
  // not read stays in our send buffer, which all share; it gets so many bytes of that.
  static constexpr int kWindow = 64 * 1024;
  static constexpr std::size_t kMaxWaiting = 128ul * 1024 * 1024;  // bytes of answers

  // Makes the socket (mode 0600; one that is there is replaced) and starts the thread. nullptr and
  // a sentence when the host refuses.
  static std::unique_ptr<Server> start(const std::filesystem::path &socket, Dispatch dispatch,
                                       std::string &error, Tick tick = {});
  // From the Dispatch, before it does something from which there is no return: sends what waits.
  void flush(std::chrono::milliseconds patience);
  // Takes no more requests, sends what waits for at most `patience`, ends the thread. Not on it.
  void stop(std::chrono::milliseconds patience);
  ~Server();

 private:
  friend class Responder;
  struct Waiting {
    ClientAddress client;
    std::deque<std::string> packets;
    std::chrono::steady_clock::time_point give_up;
    int unread_before = -1;  // in our send buffer when the first packet was sent
  };

  Server() = default;
  void main();
  void receive();
  void enqueue(const ClientAddress &client, std::vector<std::string> packets);
  // Sends what goes; true when something has to wait.
  bool send_waiting() EXCLUDES(lock_);
  bool send_one(Waiting &waiting) REQUIRES(lock_);
  void wake();

  UniqueFd socket_, wake_;
  Dispatch dispatch_;
  Tick tick_;
  HostThread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::int64_t> stop_patience_ms_{0};
  Mutex lock_{LockRank::Mconsole, "mconsole"};
  std::deque<Waiting> waiting_ GUARDED_BY(lock_);
  std::size_t waiting_bytes_ GUARDED_BY(lock_) = 0;
};

}  // namespace cowbird::mconsole
