// System calls that make, change and end processes.
#include <algorithm>

#include "abi/wait.hpp"
#include "proc/proc_internal.hpp"
#include "proc/wait.hpp"
#include "syscall/syscall.hpp"
#include "tty/tty.hpp"
#include "vfs/file.hpp"

namespace cowbird {
namespace {

constexpr int kAtFdCwd = -100;
constexpr int kAtSymlinkNoFollow = 0x100;
constexpr int kAtEmptyPath = 0x1000;
constexpr std::size_t kMaxArgString = 128 * kKiB;
constexpr std::uint64_t kMinArgSpace = 128 * kKiB;
constexpr std::uint64_t kMaxArgSpace = 6 * kMiB;
constexpr std::size_t kPathMax = 4096;

// What execve's strings may take: a quarter of the stack, within bounds.
class ArgSpace {
 public:
  explicit ArgSpace(std::uint64_t stack_limit)
      : left_(std::clamp(stack_limit / 4, kMinArgSpace, kMaxArgSpace)) {}
  Result<void> take(std::uint64_t bytes) {
    if (bytes > left_) return Err(Errno::TooBig);
    left_ -= bytes;
    return {};
  }

 private:
  std::uint64_t left_;
};

Result<std::string> read_arg_string(VirtAddr address) {
  auto text = copy_in_string(address, kMaxArgString - 1);
  if (text.is(Errno::NameTooLong)) return Err(Errno::TooBig);
  return text;
}

Result<std::vector<std::string>> read_strings(VirtAddr array, ArgSpace &space) {
  std::vector<std::string> strings;
  if (array == 0) return strings;
  for (;;) {
    const VirtAddr pointer = TRY(UserPtr<std::uint64_t>(array).at(strings.size()).read());
    if (pointer == 0) return strings;
    std::string text = TRY(read_arg_string(pointer));
    TRY(space.take(text.size() + 1 + sizeof(std::uint64_t)));
    strings.push_back(std::move(text));
  }
}

SysResult execute(Task &task, ExecRequest request, VirtAddr argv, VirtAddr envp) {
  ArgSpace space(task.process->limit(Limit::Stack));
  request.argv = TRY(read_strings(argv, space));
  request.envp = TRY(read_strings(envp, space));
  TRY(exec_task(task, std::move(request)));
  return 0;
}

Result<Ref<Process>> process_or_self(Task &task, int pid) {
  if (pid == 0) return task.process;
  Ref<Process> process = find_process(pid);
  if (!process) return Err(Errno::Srch);
  return process;
}

}  // namespace

SysResult sys_fork(Task &task, const SysArgs &) {
  CloneRequest request;
  request.exit_signal = kSigChld;
  return clone_task(task, request);
}

SysResult sys_vfork(Task &task, const SysArgs &) {
  CloneRequest request;
  request.flags = abi::kCLONE_VFORK | abi::kCLONE_VM;
  request.exit_signal = kSigChld;
  return clone_task(task, request);
}

SysResult sys_clone(Task &task, const SysArgs &args) {
  CloneRequest request;
  // Only the low 32 bits are flags here; the others are clone3's.
  request.flags = args.u32(0) & ~abi::kCSIGNAL;
  request.exit_signal = static_cast<int>(args.u64(0) & abi::kCSIGNAL);
  request.stack = args.u64(1);
  request.parent_tid = args.u64(2);
  request.child_tid = args.u64(3);
  request.tls = args.u64(4);
  request.pidfd = args.u64(2);
  if ((request.flags & abi::kCLONE_PIDFD) != 0 &&
      (request.flags & abi::kCLONE_PARENT_SETTID) != 0) {
    return Err(Errno::Inval);
  }
  // CLONE_NEWTIME shares its bit with the exit signal and cannot be asked for here.
  return clone_task(task, request);
}

SysResult sys_clone3(Task &task, const SysArgs &args) {
  const std::uint64_t size = args.u64(1);
  if (size > kPageSize) return Err(Errno::TooBig);
  if (size < abi::kCloneArgsSizeVer0) return Err(Errno::Inval);
  abi::CloneArgs a{};
  TRY(copy_in(&a, args.u64(0), std::min<std::uint64_t>(size, sizeof(a))));
  for (std::uint64_t at = sizeof(a); at < size; ++at) {
    std::uint8_t byte;
    TRY(copy_in(&byte, args.u64(0) + at, 1));
    if (byte != 0) return Err(Errno::TooBig);
  }
  if (a.exit_signal > static_cast<std::uint64_t>(kSignalCount)) return Err(Errno::Inval);
  if ((a.stack == 0) != (a.stack_size == 0)) return Err(Errno::Inval);
  // Choosing the child's pid is for checkpoint tools, which this kernel does not serve.
  if (a.set_tid != 0 || a.set_tid_size != 0) return Err(Errno::Inval);
  if ((a.flags & (abi::kCLONE_DETACHED | abi::kCSIGNAL) & ~abi::kCLONE_NEWTIME) != 0) {
    return Err(Errno::Inval);
  }
  constexpr std::uint64_t kSilent = abi::kCLONE_THREAD | abi::kCLONE_PARENT;
  if ((a.flags & kSilent) != 0 && a.exit_signal != 0) return Err(Errno::Inval);
  CloneRequest request;
  request.flags = a.flags;
  request.exit_signal = static_cast<int>(a.exit_signal);
  request.stack = a.stack == 0 ? 0 : a.stack + a.stack_size;
  request.parent_tid = a.parent_tid;
  request.child_tid = a.child_tid;
  request.tls = a.tls;
  request.pidfd = a.pidfd;
  return clone_task(task, request);
}

SysResult sys_execve(Task &task, const SysArgs &args) {
  ExecRequest request;
  request.directory = task.fs->cwd;
  request.name = TRY(copy_in_string(args.u64(0), kPathMax - 1));
  return execute(task, std::move(request), args.u64(1), args.u64(2));
}

SysResult sys_execveat(Task &task, const SysArgs &args) {
  const int flags = args.s32(4);
  if ((flags & ~(kAtEmptyPath | kAtSymlinkNoFollow)) != 0) return Err(Errno::Inval);
  ExecRequest request;
  request.name = TRY(copy_in_string(args.u64(1), kPathMax - 1));
  request.no_follow = (flags & kAtSymlinkNoFollow) != 0;
  request.empty_path = (flags & kAtEmptyPath) != 0;
  if (args.fd(0) == kAtFdCwd || request.name.starts_with('/')) {
    request.directory = task.fs->cwd;
  } else {
    request.directory = TRY(task.files->get(args.fd(0), true))->path;
    if (!request.directory) return Err(Errno::Access);
  }
  return execute(task, std::move(request), args.u64(2), args.u64(3));
}

SysResult sys_exit(Task &, const SysArgs &args) { exit_task(abi::exit_status_word(args.s32(0))); }

SysResult sys_exit_group(Task &, const SysArgs &args) {
  exit_process(abi::exit_status_word(args.s32(0)));
}

SysResult sys_getpid(Task &task, const SysArgs &) { return task.process->pid; }
SysResult sys_gettid(Task &task, const SysArgs &) { return task.tid; }
SysResult sys_getppid(Task &task, const SysArgs &) {
  return task.process->parent ? task.process->parent->pid : 0;
}

SysResult sys_set_tid_address(Task &task, const SysArgs &args) {
  task.clear_child_tid = args.u64(0);
  return task.tid;
}

SysResult sys_getpgrp(Task &task, const SysArgs &) { return task.process->pgid; }

SysResult sys_getpgid(Task &task, const SysArgs &args) {
  return TRY(process_or_self(task, args.s32(0)))->pgid;
}

SysResult sys_getsid(Task &task, const SysArgs &args) {
  return TRY(process_or_self(task, args.s32(0)))->sid;
}

SysResult sys_setpgid(Task &task, const SysArgs &args) {
  const Process &self = *task.process;
  const Ref<Process> target = TRY(process_or_self(task, args.s32(0)));
  const int pgid = args.s32(1) == 0 ? target->pid : args.s32(1);
  if (pgid < 0) return Err(Errno::Inval);
  if (target.get() != &self) {
    if (target->parent != &self) return Err(Errno::Srch);
    if (target->sid != self.sid) return Err(Errno::Perm);
    if (target->has_execed) return Err(Errno::Access);
  }
  if (target->sid == target->pid) return Err(Errno::Perm);
  if (pgid != target->pid && !process_group_exists(pgid, self.sid)) return Err(Errno::Perm);
  if (pgid != target->pgid) set_process_group(*target, pgid);
  return 0;
}

SysResult sys_setsid(Task &task, const SysArgs &) {
  Process &process = *task.process;
  bool leads_group = false;
  for_each_in_group(process.pid, [&](Process &) { leads_group = true; });
  if (leads_group || process.sid == process.pid) return Err(Errno::Perm);
  set_process_group(process, process.pid);
  set_session(process, process.pid);
  process.controlling_tty = nullptr;
  return process.pid;
}

SysResult sys_vhangup(Task &task, const SysArgs &) {
  if (!task.credentials.capable(Capability::SysTtyConfig)) return Err(Errno::Perm);
  tty_vhangup(*task.process);
  return 0;
}

SysResult sys_pidfd_open(Task &task, const SysArgs &args) {
  if ((args.u32(1) & ~abi::kPIDFD_NONBLOCK) != 0 || args.s32(0) <= 0) return Err(Errno::Inval);
  Ref<Process> process = find_process(args.s32(0));
  if (!process) return Err(find_task(args.s32(0)) ? Errno::Inval : Errno::Srch);
  return TRY(task.files->install(make_pidfd(std::move(process), 02 | args.u32(1)), true,
                                 task.process->limit(Limit::NoFile)));
}

SysResult sys_pidfd_getfd(Task &task, const SysArgs &args) {
  if (args.u32(2) != 0) return Err(Errno::Inval);
  const Ref<Process> process = process_of_pidfd(*TRY(task.files->get(args.fd(0))));
  if (!process) return Err(Errno::BadF);
  Task *other = process->representative();
  if (other == nullptr || !other->files) return Err(Errno::Srch);
  const Credentials &own = task.credentials;
  const Credentials &theirs = other->credentials;
  const bool same = own.uid == theirs.uid && own.uid == theirs.euid && own.uid == theirs.suid;
  if (!same && !own.capable(Capability::SysPtrace)) return Err(Errno::Perm);
  Ref<File> file = TRY(other->files->get(args.fd(1), true));
  return TRY(task.files->install(std::move(file), true, task.process->limit(Limit::NoFile)));
}

}  // namespace cowbird
