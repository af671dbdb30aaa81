// Who is at the other end of a unix stream socket. For the servers in the run-time directory, which
// are for the guest's owner alone; any host thread, no lock is needed.
#pragma once

#include <string_view>

namespace cowbird {

// Whether the peer of this connection is the user we run as, or root (unix(7), SO_PEERCRED). Who is
// not, is named in the log; `server` is what was asked for.
bool peer_is_owner(int fd, std::string_view server);

}  // namespace cowbird
