// The system request keys: emergency commands for a kernel that is in trouble, from
// /proc/sysrq-trigger (and the management console). Needs the big kernel lock.
#pragma once

#include <cstdint>

#include "base/log.hpp"
#include "base/result.hpp"

namespace cowbird {

// Runs the command of this key and says so in the log; an unknown key prints the help there. May
// sleep (s).
//   0-9 log level   b reboot   c crash   e terminate all   f OOM kill   h help   i kill all
//   m memory   o power off   s sync   t tasks   w blocked tasks
Result<void> handle_sysrq(char key);

// Who carries out a change of the console's log level (keys 0-9).
void set_log_level_hook(void (*hook)(LogLevel));

// Processes that were ever made (/proc/stat).
std::uint64_t forks_since_boot();

}  // namespace cowbird
