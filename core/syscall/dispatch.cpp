// Dispatch of system calls: from the number in the registers to the row's handler.
#include <array>
#include <bitset>

#include "base/log.hpp"
#include "proc/task.hpp"
#include "syscall/syscall.hpp"
#include "syscall/trace.hpp"

namespace cowbird {
namespace {

using enum ArgKind;

constexpr SyscallRow kRows[] = {
#define SYSCALL(number, name, support, caveat, ...) \
  {number, #name, sys_##name, Support::support, caveat, {__VA_ARGS__}},
#include "syscall/table.inc"
#undef SYSCALL
};

constexpr std::size_t kRowCount = std::size(kRows);
constexpr std::size_t kNumbers = kRows[kRowCount - 1].number + 1;

constexpr std::array<SyscallHandler, kNumbers> kHandlers = [] {
  std::array<SyscallHandler, kNumbers> handlers{};
  for (const SyscallRow &row : kRows) handlers[row.number] = row.handler;
  return handlers;
}();

constexpr std::array<std::uint16_t, kNumbers> kRowOfNumber = [] {
  std::array<std::uint16_t, kNumbers> rows{};
  for (auto &index : rows) index = 0xffff;
  for (std::size_t i = 0; i < kRowCount; ++i) rows[kRows[i].number] = static_cast<std::uint16_t>(i);
  return rows;
}();

constexpr std::array<const char *, kNumbers> kNames = [] {
  std::array<const char *, kNumbers> names{};
  for (const SyscallRow &row : kRows) names[row.number] = row.name.data();
  return names;
}();

bool trace_on = false;

// The guest chooses the numbers, so only those that have a name are remembered.
constexpr std::size_t kNamedNumbers = 512;

void report_unimplemented(const Task &task, std::uint32_t number) {
  static std::bitset<kNamedNumbers> reported;
  static bool nameless_reported = false;
  const std::string_view name = syscall_name(number);
  if (name.empty()) {
    if (nameless_reported) return;
    nameless_reported = true;
    log_notice("{}[{}] used the unknown system call number {}; it and others like it get ENOSYS.",
               task.comm, task.tid, number);
    return;
  }
  if (number >= kNamedNumbers || reported.test(number)) return;
  reported.set(number);
  log_notice("{}[{}] used the system call {} ({}), which is not implemented; it gets ENOSYS.",
             task.comm, task.tid, name, number);
}

void store_result(Task &task, const SysResult &result) {
  task.regs().rax = static_cast<std::uint64_t>(
      result ? *result : -static_cast<std::int64_t>(static_cast<std::uint16_t>(result.error())));
}

void dispatch_traced(Task &task, SyscallHandler handler, std::uint32_t number,
                     const SysArgs &args) {
  const SyscallRow &row = kRows[kRowOfNumber[number]];
  // Calls that do not come back here must be shown before, and must leave nothing on this stack.
  if (row.name == "exit" || row.name == "exit_group" || row.name == "reboot") {
    log_info("{}", format_syscall(task, row, args) + " = ?");
    store_result(task, handler(task, args));
    return;
  }
  const std::string line = format_syscall(task, row, args);
  const SysResult result = handler(task, args);
  store_result(task, result);
  log_info("{} = {}", line, format_syscall_result(result));
}

// Where the stack of a system call begins, for whoever looks at it with a debugger: its arguments
// say which call it is. They are used after the call, so that they are known while it runs.
__attribute__((noinline)) void enter_system_call(const char *name, unsigned long number, Task &task,
                                                 const SysArgs &args) {
  const SysResult result = kHandlers[number](task, args);
  asm volatile("" : : "r"(name), "r"(number));
  store_result(task, result);
}

}  // namespace

std::span<const SyscallRow> syscall_table() { return kRows; }

const SyscallRow *find_syscall(std::uint64_t number) {
  if (number >= kNumbers || kRowOfNumber[number] == 0xffff) return nullptr;
  return &kRows[kRowOfNumber[number]];
}

void set_syscall_trace(bool on) { trace_on = on; }
bool syscall_trace_enabled() { return trace_on; }

void dispatch_syscall(Task &task) {
  const abi::UserRegs &regs = task.regs();
  // The number is the low half of rax, as on Linux.
  const auto number = static_cast<std::uint32_t>(regs.orig_rax);
  const SyscallHandler handler = number < kNumbers ? kHandlers[number] : nullptr;
  if (handler == nullptr) [[unlikely]] {
    report_unimplemented(task, number);
    store_result(task, Err(Errno::NoSys));
    return;
  }
  const SysArgs args{{regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9}};
  task.syscall_number = number;
  if (trace_on) [[unlikely]] {
    dispatch_traced(task, handler, number, args);
  } else {
    enter_system_call(kNames[number], number, task, args);
  }
  task.syscall_number = ~0ull;
}

}  // namespace cowbird
