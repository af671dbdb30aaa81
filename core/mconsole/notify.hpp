// Notifications: what the guest tells the host's operator without being asked, each one datagram to
// a socket that the operator has bound before ([machine] notify, UML's mconsole=notify:PATH): that
// the management console is there, that the kernel has panicked, what a program writes to
// /proc/mconsole. (The fourth kind, hang, is the watchdog process'.)
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "fs/pseudo_fs.hpp"
#include "mconsole/protocol.hpp"

namespace cowbird::mconsole {

// From now on to this socket; a panic is told by itself. Called once, before the guest runs. False
// and a sentence when the path cannot be that of a socket; that nobody listens yet is no error.
bool set_notify_target(const std::string &path, std::string &error);
// The path, or empty.
const std::string &notify_target();
// Does not block: Again when the listener's queue is full, NoEnt and ConnRefused when there is
// none. Any host thread.
Result<void> notify(NotifyKind kind, std::string_view text);
// /proc/mconsole: each write(2) is a notification.
PseudoEntry proc_mconsole_entry();

}  // namespace cowbird::mconsole
