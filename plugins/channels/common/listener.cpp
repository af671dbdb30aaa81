#include "common/listener.hpp"

#include <poll.h>

#include <array>
#include <cerrno>

namespace channels {

Arrival accept_client(int listener) {
  for (;;) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) return {Descriptor(fd)};
    // A client that gave up while it waited is no reason to keep the next one waiting (accept(2)).
    if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
    return {{}, errno != EAGAIN};
  }
}

bool is_gone(int socket) {
  char byte;
  const ssize_t n = recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

bool sends_no_more(int socket) {
  pollfd end{socket, POLLRDHUP, 0};
  return is_gone(socket) || poll(&end, 1, 0) > 0;
}

void close_politely(Descriptor socket) noexcept {
  if (!socket) return;
  shutdown(socket.get(), SHUT_WR);
  std::array<char, 4096> unread;
  for (int i = 0; i < 64; ++i) {
    if (recv(socket.get(), unread.data(), unread.size(), MSG_DONTWAIT) <= 0) break;
  }
}

void Doorbell::attach(int socket, std::function<void()> rings) {
  timer_.reset();
  rings_ = std::move(rings);
  ready_.attach(socket, [this](std::uint32_t) { rings_(); });
}

void Doorbell::detach() noexcept {
  ready_.detach();
  timer_.reset();
}

int Doorbell::wait(bool refused) noexcept {
  if (!refused) return ready_.want(COWBIRD_WATCH_READABLE);
  const int status = host_.add_timer(timer_, [this] { rings_(); });
  if (status != 0) return status;
  timer_.arm(kMomentNs);
  return 0;
}

}  // namespace channels
