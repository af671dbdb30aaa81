// What the host's /proc/PID/status says about a process (proc(5)). Anyone may call it; host threads
// only, since it reads files.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace cowbird {

// The number in the row `key` ("VmRSS", in kB there): none when there is no such process, row or
// number.
std::optional<std::uint64_t> host_process_status(pid_t pid, std::string_view key);

// Who traces the process; 0: nobody, or it cannot be known.
pid_t host_process_tracer(pid_t pid);

}  // namespace cowbird
