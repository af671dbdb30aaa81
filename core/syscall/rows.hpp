// The rows of the system call table without their handlers, for programs that only show the table
// (the documentation, unit tests) and do not link the kernel.
#pragma once

#include "syscall/syscall.hpp"

namespace cowbird {

std::span<const SyscallRow> syscall_rows_without_handlers();
// docs/system-calls.md.
std::string render_syscall_docs(std::span<const SyscallRow> rows);

}  // namespace cowbird
