// Other processes of the host: what /proc/PID/status says about them (proc(5)), and what it takes
// to start one and hear from it. Anyone may call it; host threads only, since it may wait.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cowbird {

// The number in the row `key` ("VmRSS", in kB there): none when there is no such process, row or
// number.
std::optional<std::uint64_t> host_process_status(pid_t pid, std::string_view key);

// Who traces the process; 0: nobody, or it cannot be known.
pid_t host_process_tracer(pid_t pid);

// What execve(2) takes: the words, which stay the caller's, and a null pointer.
std::vector<char *> exec_pointers(std::vector<std::string> &words);

// What a child writes into a pipe up to its first newline, which is left out, or up to its end, to
// 4096 bytes, or until it has been silent for `patience_ms` (-1: for ever).
std::string read_first_line(int fd, int patience_ms);

}  // namespace cowbird
