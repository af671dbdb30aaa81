// Listening and connected stream sockets, made so that they neither block nor outlive a program
// that the process starts. For the channel plugins.
#pragma once

#include <sys/socket.h>

#include <cowbird/plugin.hpp>
#include <functional>
#include <string>

#include "common/descriptor.hpp"
#include "common/readiness.hpp"

namespace channels {

struct Arrival {
  Descriptor client;     // empty: there is none
  bool refused = false;  // one waits, but the host has no descriptor or memory to spare just now
};
// The next client that waits, without blocking.
Arrival accept_client(int listener);
// The peer has closed its side, or is gone, and has left nothing to read.
bool is_gone(int socket);
// The same, or it has sent its last word already, read or not.
bool sends_no_more(int socket);
// Closes a connection so that what was sent last is not thrown away: unread bytes at a close would
// make the host tell the peer "reset".
void close_politely(Descriptor socket) noexcept;

// Says when somebody knocks at a listening socket. On the device's own calls.
class Doorbell {
 public:
  explicit Doorbell(const cowbird::sdk::Host &host) : host_(host), ready_(host) {}

  // `socket` stays the caller's and open until detach(). `rings` must not throw.
  void attach(int socket, std::function<void()> rings);
  void detach() noexcept;
  // Rings once. Who was refused is still there and would have it ring all the time: after that it
  // waits a moment. 0, or the errno (negative) that says why it cannot ring.
  int wait(bool refused = false) noexcept;

 private:
  static constexpr std::int64_t kMomentNs = 250'000'000;

  const cowbird::sdk::Host &host_;
  Readiness ready_;
  cowbird::sdk::Timer timer_;
  std::function<void()> rings_;
};

}  // namespace channels
