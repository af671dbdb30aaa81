// System calls that wait for children.
#include "abi/signal.hpp"
#include "abi/wait.hpp"
#include "proc/proc_internal.hpp"
#include "proc/signal_frame.hpp"
#include "proc/wait.hpp"
#include "syscall/rusage.hpp"
#include "syscall/syscall.hpp"
#include "vfs/file.hpp"

namespace cowbird {
namespace {

constexpr int kThreadOptions = abi::k__WNOTHREAD | abi::k__WALL | abi::k__WCLONE;

SignalInfo child_info(const WaitResult &child) {
  SignalInfo info;
  info.signal = kSigChld;
  info.code = child.code;
  info.pid = child.pid;
  info.uid = child.uid;
  switch (child.code) {
    case abi::kCLD_EXITED:
    case abi::kCLD_STOPPED:
      info.status = (child.status >> 8) & 0xff;
      break;
    case abi::kCLD_CONTINUED:
      info.status = kSigCont;
      break;
    default:
      info.status = child.status & 0x7f;
  }
  return info;
}

struct WaitidTarget {
  WaitRequest request;
  bool nonblocking = false;  // a PIDFD_NONBLOCK descriptor
};

Result<WaitidTarget> waitid_target(Task &task, const SysArgs &args) {
  using Which = WaitRequest::Which;
  WaitidTarget target;
  const int id = args.s32(1);
  switch (args.s32(0)) {
    case abi::kP_ALL:
      return target;
    case abi::kP_PID:
      if (id <= 0) return Err(Errno::Inval);
      target.request.which = Which::Pid;
      target.request.id = id;
      return target;
    case abi::kP_PGID:
      if (id < 0) return Err(Errno::Inval);
      target.request.which = Which::Group;
      target.request.id = id == 0 ? task.process->pgid : id;
      return target;
    case abi::kP_PIDFD: {
      if (id < 0) return Err(Errno::Inval);
      const Ref<File> file = TRY(task.files->get(id));
      const Ref<Process> process = process_of_pidfd(*file);
      if (!process) return Err(Errno::BadF);
      target.request.which = Which::Pid;
      target.request.id = process->pid;
      target.nonblocking = file->nonblocking();
      return target;
    }
    default:
      return Err(Errno::Inval);
  }
}

}  // namespace

SysResult sys_wait4(Task &task, const SysArgs &args) {
  using Which = WaitRequest::Which;
  const int pid = args.s32(0), options = args.s32(2);
  constexpr int kAllowed = abi::kWNOHANG | abi::kWUNTRACED | abi::kWCONTINUED | kThreadOptions;
  if ((options & ~kAllowed) != 0) return Err(Errno::Inval);
  if (pid == INT32_MIN) return Err(Errno::Srch);
  WaitRequest request;
  request.options = options | abi::kWEXITED;
  if (pid > 0) {
    request.which = Which::Pid;
    request.id = pid;
  } else if (pid != -1) {
    request.which = Which::Group;
    request.id = pid == 0 ? task.process->pgid : -pid;
  }
  const WaitResult child = TRY(wait_for_child(task, request));
  if (child.pid == 0) return 0;
  if (args.u64(1) != 0) TRY(args.ptr<std::int32_t>(1).write(child.status));
  if (args.u64(3) != 0) TRY(args.ptr<abi::Rusage>(3).write(to_rusage(child.usage)));
  return child.pid;
}

SysResult sys_waitid(Task &task, const SysArgs &args) {
  const int options = args.s32(3);
  constexpr int kEvents = abi::kWEXITED | abi::kWSTOPPED | abi::kWCONTINUED;
  constexpr int kAllowed = kEvents | abi::kWNOHANG | abi::kWNOWAIT | kThreadOptions;
  if ((options & ~kAllowed) != 0 || (options & kEvents) == 0) return Err(Errno::Inval);
  WaitidTarget target = TRY(waitid_target(task, args));
  target.request.options = options | (target.nonblocking ? abi::kWNOHANG : 0);
  const WaitResult child = TRY(wait_for_child(task, target.request));
  if (child.pid == 0 && target.nonblocking && (options & abi::kWNOHANG) == 0) {
    return Err(Errno::Again);
  }
  if (args.u64(2) != 0) {
    const abi::Siginfo info = child.pid == 0 ? abi::Siginfo{} : encode_siginfo(child_info(child));
    TRY(args.ptr<abi::Siginfo>(2).write(info));
  }
  if (child.pid != 0 && args.u64(4) != 0) {
    TRY(args.ptr<abi::Rusage>(4).write(to_rusage(child.usage)));
  }
  return 0;
}

}  // namespace cowbird
