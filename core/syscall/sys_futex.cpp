// System calls about futexes and robust lists.
#include <algorithm>

#include "abi/futex.hpp"
#include "abi/time.hpp"
#include "proc/futex.hpp"
#include "syscall/syscall.hpp"
#include "syscall/times.hpp"

namespace cowbird {
namespace {

// The operations that count take a non-negative number.
Result<std::uint32_t> count_of(std::uint32_t value) {
  if (value > INT32_MAX) return Err(Errno::Inval);
  return value;
}

struct FutexCall {
  int command = 0;
  bool is_private = false;
  bool realtime = false;
};

Result<FutexCall> decode(const SysArgs &args) {
  const int op = args.s32(1);
  FutexCall call;
  call.command = op & abi::kFUTEX_CMD_MASK;
  call.is_private = (op & abi::kFUTEX_PRIVATE_FLAG) != 0;
  call.realtime = (op & abi::kFUTEX_CLOCK_REALTIME) != 0;
  if (call.realtime && call.command != abi::kFUTEX_WAIT &&
      call.command != abi::kFUTEX_WAIT_BITSET) {
    return Err(Errno::NoSys);
  }
  return call;
}

// FUTEX_WAIT's time is relative, FUTEX_WAIT_BITSET's a point of the clock.
Result<std::int64_t> deadline_of(const FutexCall &call, const SysArgs &args) {
  if (args.u64(3) == 0) return kNoDeadline;
  const std::int64_t ns = TRY(to_ns(TRY(args.ptr<abi::Timespec>(3).read())));
  if (call.command == abi::kFUTEX_WAIT) return deadline_after(ns);
  return call.realtime ? ns - clock::realtime_offset_ns() : ns;
}

Result<std::int64_t> wait_until(Task &task, const FutexWait &wait) {
  const auto waited = futex_wait(task, wait);
  if (waited) return 0;
  if (waited.error() != Errno::RestartSys || wait.deadline_ns == kNoDeadline) {
    return Err(waited.error());
  }
  // The rest of the time is waited for, not the whole of it again.
  task.restart = [wait](Task &self) { return wait_until(self, wait); };
  return Err(Errno::RestartBlock);
}

SysResult wait_call(Task &task, const FutexCall &call, const SysArgs &args) {
  FutexWait wait;
  wait.address = args.u64(0);
  wait.is_private = call.is_private;
  wait.expected = args.u32(2);
  wait.bitset = call.command == abi::kFUTEX_WAIT ? abi::kFUTEX_BITSET_MATCH_ANY : args.u32(5);
  wait.deadline_ns = TRY(deadline_of(call, args));
  return wait_until(task, wait);
}

SysResult requeue_call(Task &task, const FutexCall &call, const SysArgs &args) {
  FutexRequeue request;
  request.from = args.u64(0);
  request.to = args.u64(4);
  request.is_private = call.is_private;
  request.wake = TRY(count_of(args.u32(2)));
  request.requeue = TRY(count_of(args.u32(3)));
  if (call.command == abi::kFUTEX_CMP_REQUEUE) request.expected = args.u32(5);
  return futex_requeue(*task.mm, request);
}

}  // namespace

SysResult sys_futex(Task &task, const SysArgs &args) {
  const FutexCall call = TRY(decode(args));
  switch (call.command) {
    case abi::kFUTEX_WAIT:
    case abi::kFUTEX_WAIT_BITSET:
      return wait_call(task, call, args);
    case abi::kFUTEX_WAKE:
      return futex_wake(*task.mm, args.u64(0), call.is_private, std::max(1u, args.u32(2)),
                        abi::kFUTEX_BITSET_MATCH_ANY);
    case abi::kFUTEX_WAKE_BITSET:
      return futex_wake(*task.mm, args.u64(0), call.is_private, std::max(1u, args.u32(2)),
                        args.u32(5));
    case abi::kFUTEX_REQUEUE:
    case abi::kFUTEX_CMP_REQUEUE:
      return requeue_call(task, call, args);
    case abi::kFUTEX_WAKE_OP:
      return futex_wake_op(*task.mm, args.u64(0), args.u64(4), call.is_private,
                           std::max(1u, args.u32(2)), args.u32(3), args.u32(5));
    default:
      return Err(Errno::NoSys);
  }
}

SysResult sys_set_robust_list(Task &task, const SysArgs &args) {
  if (args.u64(1) != sizeof(abi::RobustListHead)) return Err(Errno::Inval);
  task.robust_list = args.u64(0);
  task.robust_list_length = args.u64(1);
  return 0;
}

SysResult sys_get_robust_list(Task &task, const SysArgs &args) {
  Ref<Task> target = args.s32(0) == 0 ? Ref<Task>(&task) : find_task(args.s32(0));
  if (!target) return Err(Errno::Srch);
  if (target.get() != &task && target->credentials.uid != task.credentials.uid &&
      !task.credentials.capable(Capability::SysPtrace)) {
    return Err(Errno::Perm);
  }
  TRY(args.ptr<std::uint64_t>(2).write(sizeof(abi::RobustListHead)));
  TRY(args.ptr<std::uint64_t>(1).write(target->robust_list));
  return 0;
}

}  // namespace cowbird
