// The debug agent: what serves a debugger's requests about guest programs, over a stream socket in
// the run-time directory (debug_agent/protocol.hpp). It is a tracer (proc/trace.hpp) whose requests
// are carried out by the kernel thread "kdebug", which goes on while the guest is frozen. Of boot/
// alone. Nothing runs while nobody is connected; there is one client at a time.
//
// When the client goes, in whatever way, its breakpoints leave the guest's memory, stopped threads
// and the guest's clock go on.
#pragma once

#include <string>

#include "base/result.hpp"

namespace cowbird::debug_agent {

// Listens on this socket, which is made. With the big kernel lock, on a kernel thread.
Result<void> start(const std::string &socket_path);
// Nobody is served any more. With the big kernel lock, before the irq thread stops.
void stop();

}  // namespace cowbird::debug_agent
