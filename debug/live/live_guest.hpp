// The target of a running guest: its kernel by ptrace, its processes by the debug agent, commands
// and tables out of the kernel's structures. For the server's program.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "debug/target/target.hpp"

namespace cowbird::debug {

// `host_pid` is the kernel's process. Nothing is touched before attach().
std::unique_ptr<Target> make_live_guest(pid_t host_pid);

// The socket of the debug agent in this process; empty when it has none.
std::string agent_socket_of(pid_t host_pid);

}  // namespace cowbird::debug
