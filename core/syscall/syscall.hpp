// The system call table. A row is data: number, name, handler, support level, caveat, kinds of the
// arguments; dispatch, the log of unimplemented calls, `strace`-like tracing and
// docs/system-calls.md come from the rows. Rows are in syscall/table.inc; handlers in
// syscall/sys_<area>.cpp, declared in syscall/handlers.inc's expansion below.
//
// A handler fetches its arguments, validates, calls the kernel and returns; it holds no logic. It
// runs on the calling task's kernel thread with the big kernel lock held, and may sleep.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "mm/user_access.hpp"
#include "syscall/names.hpp"

namespace cowbird {

class Task;

// The value that goes to rax; errors go there negated.
using SysResult = Result<std::int64_t>;

// The six argument registers (rdi, rsi, rdx, r10, r8, r9).
struct SysArgs {
  std::uint64_t value[6];

  std::uint64_t u64(int i) const { return value[i]; }
  std::int64_t s64(int i) const { return static_cast<std::int64_t>(value[i]); }
  std::uint32_t u32(int i) const { return static_cast<std::uint32_t>(value[i]); }
  std::int32_t s32(int i) const { return static_cast<std::int32_t>(value[i]); }
  int fd(int i) const { return s32(i); }
  template <typename T>
  UserPtr<T> ptr(int i) const {
    return UserPtr<T>(value[i]);
  }
};

using SyscallHandler = SysResult (*)(Task &task, const SysArgs &args);

enum class Support : std::uint8_t {
  Full,     // as the manual page says
  Partial,  // the caveat says what is missing
  Refused,  // known, and answered with the error of a kernel without it (the caveat says which)
};

// How strace shows an argument.
enum class ArgKind : std::uint8_t {
  None,
  Int,
  Uint,
  Hex,
  Octal,
  Fd,
  DirFd,
  Pointer,
  Path,
  Buffer,
  Size,
  Offset,
  Signal,
  Pid,
  OpenFlags,
  Mode,
  Prot,
  MapFlags,
  Struct,
};

struct SyscallRow {
  std::uint16_t number;
  std::string_view name;
  SyscallHandler handler;
  Support support;
  std::string_view caveat;  // one line, empty when Full
  ArgKind args[6];
};

std::span<const SyscallRow> syscall_table();  // by number, ascending; gaps are unimplemented
const SyscallRow *find_syscall(std::uint64_t number);

// Runs the system call that is in the task's registers and stores its result there (rax). An
// unimplemented call is ENOSYS and is named in the log the first time.
void dispatch_syscall(Task &task);

// `strace`-like lines in the kernel log (level Debug is not needed: they are Info records).
void set_syscall_trace(bool on);
bool syscall_trace_enabled();

// Declares every handler of the table.
#define SYSCALL(number, name, ...) SysResult sys_##name(Task &task, const SysArgs &args);
#include "syscall/table.inc"
#undef SYSCALL

}  // namespace cowbird
