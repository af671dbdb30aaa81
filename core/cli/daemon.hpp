// `cowbird boot --daemon`: the guest goes on without the caller's terminal. Called on the main
// thread before any other was started.
#pragma once

#include <functional>
#include <optional>
#include <ostream>
#include <string>

#include "machine/machine_config.hpp"

namespace cowbird::cli {

// Consoles and serial lines on the descriptors 0, 1 and 2, which a daemon does not have, get the
// channel `null`: they are there for those who attach.
void detach_consoles(MachineConfig &config);

// Makes a process of its own for the guest. In the caller's: waits until the guest runs, says so on
// `out`, and returns the exit status: the other's, when it did not come so far. In the new one:
// returns nothing, and `up` is what the guest calls with its name once it runs; standard error is
// the caller's until then, and `log` (or nothing) afterwards. A guest that restarts is such a
// process already.
std::optional<int> become_daemon(const std::string &log, std::ostream &out, std::ostream &err,
                                 std::function<void(const std::string &name)> &up);

}  // namespace cowbird::cli
