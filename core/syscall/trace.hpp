// How a system call is shown, in the manner of strace(1); used by dispatch when tracing is on. Runs
// on the calling task's kernel thread, may sleep (paths are read from guest memory).
#pragma once

#include <string>

#include "syscall/syscall.hpp"

namespace cowbird {

// "busybox[12] openat(AT_FDCWD, "/etc/passwd", O_RDONLY)"
std::string format_syscall(const Task &task, const SyscallRow &row, const SysArgs &args);
// "3", "0x7f0000000000", "-1 ENOENT (No such file or directory)"
std::string format_syscall_result(const SysResult &result);

}  // namespace cowbird
