// The system request keys: emergency commands for a kernel that is in trouble, from
// /proc/sysrq-trigger and the management console. Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "abi/registers.hpp"
#include "base/log.hpp"
#include "base/result.hpp"

namespace cowbird {

class Thread;

// Runs the command of this key and says so in the log, and in `output` when there is one, line by
// line; an unknown key prints the help. sysrq_may_sleep() says for which keys this needs a kernel
// thread.
//   0-9 log level   b reboot   c crash   e terminate all   f OOM kill   h help   i kill all
//   m memory   n real-time tasks become normal ones   o power off   p registers   s sync   t tasks
//   u remount read-only   w blocked tasks
Result<void> handle_sysrq(char key, std::string *output = nullptr);
bool sysrq_may_sleep(char key);

// /proc/sys/kernel/sysrq, as in the Linux documentation: 0 nothing, 1 everything, else a sum of
// bits. It does not bind /proc/sysrq-trigger. Any host thread may ask.
std::uint64_t sysrq_mask();
void set_sysrq_mask(std::uint64_t mask);
bool sysrq_allowed(char key);

// Who carries out a change of the console's log level (keys 0-9), and who prints the kernel stack
// of a thread that does not run, a line a frame (t, p).
void set_log_level_hook(void (*hook)(LogLevel));
using StackPrinter = std::vector<std::string> (*)(const Thread &);
void set_stack_printer(StackPrinter printer);
std::vector<std::string> print_stack(const Thread &thread);

// The registers in lines, as Linux shows them.
std::vector<std::string> format_registers(const abi::UserRegs &regs);

// Processes that were ever made (/proc/stat).
std::uint64_t forks_since_boot();

}  // namespace cowbird
