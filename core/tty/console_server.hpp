// The console server: `cowbird console` attaches to a guest's consoles and serial lines through it.
// It listens on the stream socket `console` of the instance directory, speaks
// tty/console_protocol.hpp, and watches all lines through their taps (tty/console_tap.hpp). Several
// clients may be on one line: each sees all its output, beginning with the latest 64K, and what
// each of them types goes into it.
//
// No client holds the guest up: what a client does not take waits in a buffer of its own. A full
// buffer holds the line's output back, so that nothing is lost for those who read; a client that
// takes nothing for half a second then, or too little for five, is told that it was too slow and is
// let go. Who is refused or let go can read why: the server closes its side and hears the client
// out until that closes its own, for half a minute at most. Clients have the server's user id;
// others are turned away.
//
// Needs the big kernel lock. The sockets are served on the irq thread; nothing sleeps.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.hpp"

namespace cowbird::console_server {

inline constexpr std::size_t kMaxClients = 32;

// Listens on `socket`, which must not be there. `guest` is the machine's name. Once, after
// irq::start(). What the host refuses: an errno, and a sentence in `error`.
Result<void> start(const std::filesystem::path &socket, std::string guest, std::string &error);

// Sends what is still waiting, as far as the clients take it at once or within a moment, tells them
// that the guest has ended, and closes. When no kernel code runs any more; may block for a moment.
void stop(std::string_view farewell);

// How many clients are attached to a line ("con0"), for listings.
std::size_t attached(std::string_view device);

}  // namespace cowbird::console_server
