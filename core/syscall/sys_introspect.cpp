// System calls that look at other processes, and that take apart what tasks share.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "abi/wait.hpp"
#include "proc/proc_internal.hpp"
#include "sched/bkl.hpp"
#include "sched/scheduler.hpp"
#include "syscall/syscall.hpp"
#include "vfs/file.hpp"

namespace cowbird {
namespace {

constexpr std::size_t kMaxSegments = 1024;  // IOV_MAX
constexpr std::size_t kCopyChunk = 64 * kKiB;
constexpr std::uint64_t kMaxTransfer = INT32_MAX & ~kPageMask;

// ptrace(2)'s rule for looking into another process.
bool may_look_into(const Task &task, const Task &other) {
  if (task.process == other.process) return true;
  const Credentials &own = task.credentials;
  const Credentials &their = other.credentials;
  if (own.capable(Capability::SysPtrace)) return true;
  return other.process->dumpable && own.fsuid == their.uid && own.fsuid == their.euid &&
         own.fsuid == their.suid && own.fsgid == their.gid && own.fsgid == their.egid &&
         own.fsgid == their.sgid && (their.cap_permitted & ~own.cap_permitted) == 0;
}

Result<Ref<Task>> task_to_look_into(Task &task, int pid) {
  Ref<Task> other = find_task(pid);
  if (!other) return Err(Errno::Srch);
  if (!may_look_into(task, *other)) return Err(Errno::Perm);
  return other;
}

struct IoVec {
  std::uint64_t base, length;
};

Result<std::vector<IoVec>> read_vectors(VirtAddr address, std::uint64_t count) {
  if (count > kMaxSegments) return Err(Errno::Inval);
  std::vector<IoVec> vectors = TRY(UserPtr<IoVec>(address).read_array(count));
  std::uint64_t total = 0;
  for (IoVec &v : vectors) {
    if (v.length > INT64_MAX) return Err(Errno::Inval);
    v.length = std::min(v.length, kMaxTransfer - total);
    total += v.length;
  }
  return vectors;
}

// A place in a list of ranges.
class Cursor {
 public:
  explicit Cursor(const std::vector<IoVec> &vectors) : vectors_(vectors) { skip_empty(); }
  bool done() const { return index_ == vectors_.size(); }
  VirtAddr address() const { return vectors_[index_].base + offset_; }
  std::uint64_t left() const { return vectors_[index_].length - offset_; }
  void advance(std::uint64_t bytes) {
    offset_ += bytes;
    skip_empty();
  }

 private:
  void skip_empty() {
    while (index_ < vectors_.size() && offset_ == vectors_[index_].length) {
      ++index_;
      offset_ = 0;
    }
  }
  const std::vector<IoVec> &vectors_;
  std::size_t index_ = 0;
  std::uint64_t offset_ = 0;
};

// Other processes' pages end a transfer at page boundaries, so pieces stay inside one.
std::uint64_t piece_at(const Cursor &remote, const Cursor &local) {
  const std::uint64_t to_page_end = kPageSize - (remote.address() & kPageMask);
  return std::min({remote.left(), local.left(), to_page_end, std::uint64_t{kCopyChunk}});
}

SysResult transfer(Task &task, const SysArgs &args, bool write) {
  if (args.u64(5) != 0) return Err(Errno::Inval);
  const std::vector<IoVec> local = TRY(read_vectors(args.u64(1), args.u64(2)));
  const std::vector<IoVec> remote = TRY(read_vectors(args.u64(3), args.u64(4)));
  const Ref<Task> other = TRY(task_to_look_into(task, args.s32(0)));
  const Ref<Mm> mm = other->mm;
  if (!mm) return Err(Errno::Srch);
  std::byte bytes[kPageSize];
  Cursor from(remote), to(local);
  std::int64_t done = 0;
  while (!from.done() && !to.done()) {
    const std::uint64_t piece = piece_at(from, to);
    const bool ok =
        write
            ? copy_in(bytes, to.address(), piece) && copy_out_mm(*mm, from.address(), bytes, piece)
            : copy_in_mm(*mm, bytes, from.address(), piece) && copy_out(to.address(), bytes, piece);
    if (!ok) return done == 0 ? SysResult(Err(Errno::Fault)) : SysResult(done);
    done += static_cast<std::int64_t>(piece);
    from.advance(piece);
    to.advance(piece);
    if (task.killed) break;
    scheduler::cond_resched();
  }
  return done;
}

// kcmp(2)'s order is any that is total and stays; pointers would do, but are not shown as they are.
std::int64_t compare(const void *a, const void *b) {
  constexpr std::uintptr_t kMix = 0x9e3779b97f4a7c15;
  const auto x = reinterpret_cast<std::uintptr_t>(a) * kMix;
  const auto y = reinterpret_cast<std::uintptr_t>(b) * kMix;
  if (x == y) return 0;
  return x < y ? 1 : 2;
}

constexpr int kMembarrierQuery = 0, kMembarrierGlobal = 1, kMembarrierPrivate = 8,
              kMembarrierRegisterPrivate = 16;

// On one vCPU the other threads have passed a switch. On several, the host's global barrier reaches
// every thread of the machine, those of the guest among them; the cheaper ones do not.
SysResult barrier() {
  if (scheduler::vcpu_count() <= 1) return 0;
  const BklReleased released;
  if (::syscall(SYS_membarrier, kMembarrierGlobal, 0, 0) != 0) return Err(Errno::Inval);
  return 0;
}

}  // namespace

SysResult sys_membarrier(Task &task, const SysArgs &args) {
  if (args.u32(1) != 0) return Err(Errno::Inval);
  switch (args.s32(0)) {
    case kMembarrierQuery:
      return kMembarrierGlobal | kMembarrierPrivate | kMembarrierRegisterPrivate;
    case kMembarrierRegisterPrivate:
      task.process->membarrier_registered = true;
      return 0;
    case kMembarrierPrivate:
      if (!task.process->membarrier_registered) return Err(Errno::Perm);
      return task.mm->users > 1 ? barrier() : SysResult(0);
    case kMembarrierGlobal:
      return barrier();
    default:
      return Err(Errno::Inval);
  }
}

SysResult sys_process_vm_readv(Task &task, const SysArgs &args) {
  return transfer(task, args, false);
}

SysResult sys_process_vm_writev(Task &task, const SysArgs &args) {
  return transfer(task, args, true);
}

SysResult sys_kcmp(Task &task, const SysArgs &args) {
  constexpr int kFile = 0, kVm = 1, kFiles = 2, kFs = 3, kSighand = 4;
  const Ref<Task> a = TRY(task_to_look_into(task, args.s32(0)));
  const Ref<Task> b = TRY(task_to_look_into(task, args.s32(1)));
  if (!a->files || !b->files) return Err(Errno::Srch);
  switch (args.s32(2)) {
    case kFile: {
      const Ref<File> x = TRY(a->files->get(args.fd(3), true));
      const Ref<File> y = TRY(b->files->get(args.fd(4), true));
      return compare(x.get(), y.get());
    }
    case kVm:
      return compare(a->mm.get(), b->mm.get());
    case kFiles:
      return compare(a->files.get(), b->files.get());
    case kFs:
      return compare(a->fs.get(), b->fs.get());
    case kSighand:
      return compare(a->process->handlers.get(), b->process->handlers.get());
    default:
      return Err(Errno::Inval);
  }
}

SysResult sys_unshare(Task &task, const SysArgs &args) {
  const std::uint64_t flags = args.u64(0);
  constexpr std::uint64_t kShareable = abi::kCLONE_FS | abi::kCLONE_FILES | abi::kCLONE_SYSVSEM;
  if ((flags & abi::kNamespaceFlags) != 0) {
    const bool allowed = task.credentials.capable(Capability::SysAdmin);
    return Err(allowed || (flags & abi::kCLONE_NEWUSER) != 0 ? Errno::Inval : Errno::Perm);
  }
  constexpr std::uint64_t kAlone = abi::kCLONE_THREAD | abi::kCLONE_SIGHAND | abi::kCLONE_VM;
  if ((flags & ~(kShareable | kAlone)) != 0) return Err(Errno::Inval);
  // What threads share cannot be taken apart; for a single thread there is nothing to do.
  if ((flags & kAlone) != 0 && (task.process->tasks.size() > 1 || task.mm->users > 1)) {
    return Err(Errno::Inval);
  }
  if ((flags & abi::kCLONE_FS) != 0) task.fs = task.fs->clone();
  // A table of its own stays: it owns record locks.
  if ((flags & abi::kCLONE_FILES) != 0 && task.files->ref_count() > 1)
    task.files = task.files->clone();
  return 0;
}

SysResult sys_setns(Task &task, const SysArgs &args) {
  TRY(task.files->get(args.fd(0)));
  // No file here stands for a name space.
  return Err(Errno::Inval);
}

}  // namespace cowbird
