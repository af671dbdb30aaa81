#include "base/socket_peer.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include "base/log.hpp"

namespace cowbird {

bool peer_is_owner(int fd, std::string_view server) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  if (peer.uid == ::geteuid() || peer.uid == 0) return true;
  log_warn("{}: user {} (process {}) was turned away", server, peer.uid, peer.pid);
  return false;
}

}  // namespace cowbird
