// Listening and connected stream sockets, made so that they neither block nor outlive a program
// that the process starts. For the channel plugins.
#pragma once

#include <sys/socket.h>

#include <string>

#include "common/descriptor.hpp"

namespace channels {

// The next client that waits, without blocking; empty when there is none.
Descriptor accept_client(int listener);
// The peer has closed its side, or is gone, and has left nothing to read.
bool is_gone(int socket);
// The same, or it has sent its last word already, read or not.
bool sends_no_more(int socket);
// Closes a connection so that what was sent last is not thrown away: unread bytes at a close would
// make the host tell the peer "reset".
void close_politely(Descriptor socket) noexcept;

}  // namespace channels
