// prctl(2), arch_prctl(2), personality(2).
#include "abi/prctl.hpp"
#include "proc/proc_internal.hpp"
#include "syscall/syscall.hpp"

namespace cowbird {
namespace {

constexpr int kLastCapability = 40;
constexpr std::size_t kCommBytes = 16;
constexpr std::uint32_t kQueryPersonality = 0xffffffff;

SysResult ambient(Task &task, const SysArgs &args) {
  Credentials &who = task.credentials;
  const std::uint64_t number = args.u64(2);
  if (args.u64(3) != 0 || args.u64(4) != 0) return Err(Errno::Inval);
  if (args.s32(1) == abi::kPR_CAP_AMBIENT_CLEAR_ALL) {
    if (number != 0) return Err(Errno::Inval);
    who.cap_ambient = 0;
    return 0;
  }
  if (number > kLastCapability) return Err(Errno::Inval);
  const std::uint64_t bit = 1ull << number;
  switch (args.s32(1)) {
    case abi::kPR_CAP_AMBIENT_IS_SET:
      return (who.cap_ambient & bit) != 0;
    case abi::kPR_CAP_AMBIENT_RAISE:
      if ((who.cap_permitted & bit) == 0 || (who.cap_inheritable & bit) == 0 ||
          (who.securebits & abi::kSECBIT_NO_CAP_AMBIENT_RAISE) != 0) {
        return Err(Errno::Perm);
      }
      who.cap_ambient |= bit;
      return 0;
    case abi::kPR_CAP_AMBIENT_LOWER:
      who.cap_ambient &= ~bit;
      return 0;
    default:
      return Err(Errno::Inval);
  }
}

SysResult drop_bounding(Task &task, std::uint64_t number) {
  if (!task.credentials.capable(Capability::SetPcap)) return Err(Errno::Perm);
  if (number > kLastCapability) return Err(Errno::Inval);
  task.credentials.cap_bounding &= ~(1ull << number);
  return 0;
}

SysResult set_securebits(Task &task, std::uint64_t wanted) {
  const std::uint32_t old = task.credentials.securebits;
  const std::uint64_t known = abi::kSECURE_ALL_BITS | abi::kSECURE_ALL_LOCKS;
  if (!task.credentials.capable(Capability::SetPcap) || (wanted & ~known) != 0) {
    return Err(Errno::Perm);
  }
  // A lock stays, and keeps the bit before it as it is.
  const std::uint32_t locks = old & abi::kSECURE_ALL_LOCKS;
  if ((locks & ~wanted) != 0 || (((locks >> 1) & (old ^ wanted)) != 0)) return Err(Errno::Perm);
  task.credentials.securebits = static_cast<std::uint32_t>(wanted);
  return 0;
}

SysResult set_keepcaps(Task &task, std::uint64_t on) {
  if (on > 1) return Err(Errno::Inval);
  std::uint32_t &bits = task.credentials.securebits;
  if ((bits & (abi::kSECBIT_KEEP_CAPS << 1)) != 0) return Err(Errno::Perm);
  bits = on != 0 ? bits | abi::kSECBIT_KEEP_CAPS : bits & ~abi::kSECBIT_KEEP_CAPS;
  return 0;
}

SysResult set_name(Task &task, VirtAddr address) {
  char name[kCommBytes] = {};
  const std::size_t got = copy_in_partial(name, address, kCommBytes - 1);
  const std::string_view text(name, got);
  if (got < kCommBytes - 1 && text.find('\0') == text.npos) return Err(Errno::Fault);
  task.set_comm(text.substr(0, text.find('\0')));
  return 0;
}

SysResult get_name(const Task &task, VirtAddr address) {
  char name[kCommBytes] = {};
  task.comm.copy(name, kCommBytes - 1);
  TRY(copy_out(address, name, sizeof(name)));
  return 0;
}

SysResult write_int(VirtAddr address, int value) {
  TRY(UserPtr<std::int32_t>(address).write(value));
  return 0;
}

SysResult set_death_signal(Task &task, std::uint64_t signal) {
  if (signal > kSignalCount) return Err(Errno::Inval);
  task.parent_death_signal = static_cast<int>(signal);
  return 0;
}

bool rest_is_zero(const SysArgs &args, int from) {
  for (int i = from; i < 5; ++i) {
    if (args.u64(i) != 0) return false;
  }
  return true;
}

SysResult prctl_capabilities(Task &task, const SysArgs &args) {
  switch (args.s32(0)) {
    case abi::kPR_GET_KEEPCAPS:
      return (task.credentials.securebits & abi::kSECBIT_KEEP_CAPS) != 0;
    case abi::kPR_SET_KEEPCAPS:
      return set_keepcaps(task, args.u64(1));
    case abi::kPR_CAPBSET_READ:
      if (args.u64(1) > kLastCapability) return Err(Errno::Inval);
      return (task.credentials.cap_bounding >> args.u64(1)) & 1;
    case abi::kPR_CAPBSET_DROP:
      return drop_bounding(task, args.u64(1));
    case abi::kPR_GET_SECUREBITS:
      return task.credentials.securebits;
    case abi::kPR_SET_SECUREBITS:
      return set_securebits(task, args.u64(1));
    case abi::kPR_CAP_AMBIENT:
      return ambient(task, args);
    case abi::kPR_SET_NO_NEW_PRIVS:
      if (args.u64(1) != 1 || !rest_is_zero(args, 2)) return Err(Errno::Inval);
      task.credentials.no_new_privs = true;
      return 0;
    case abi::kPR_GET_NO_NEW_PRIVS:
      if (!rest_is_zero(args, 1)) return Err(Errno::Inval);
      return task.credentials.no_new_privs;
    default:
      return Err(Errno::Inval);
  }
}

}  // namespace

SysResult sys_prctl(Task &task, const SysArgs &args) {
  switch (args.s32(0)) {
    case abi::kPR_SET_PDEATHSIG:
      return set_death_signal(task, args.u64(1));
    case abi::kPR_GET_PDEATHSIG:
      return write_int(args.u64(1), task.parent_death_signal);
    case abi::kPR_GET_DUMPABLE:
      return task.process->dumpable;
    case abi::kPR_SET_DUMPABLE:
      if (args.u64(1) > 1) return Err(Errno::Inval);
      task.process->dumpable = args.u64(1) == 1;
      return 0;
    case abi::kPR_GET_TIMING:
      return 0;
    case abi::kPR_SET_TIMING:
      if (args.u64(1) != 0) return Err(Errno::Inval);
      return 0;
    case abi::kPR_SET_NAME:
      return set_name(task, args.u64(1));
    case abi::kPR_GET_NAME:
      return get_name(task, args.u64(1));
    case abi::kPR_SET_TIMERSLACK:
      task.timer_slack_ns = static_cast<std::int64_t>(args.u64(1)) <= 0 ? 50'000 : args.u64(1);
      return 0;
    case abi::kPR_GET_TIMERSLACK:
      return static_cast<std::int64_t>(task.timer_slack_ns);
    case abi::kPR_SET_CHILD_SUBREAPER:
      task.process->is_subreaper = args.u64(1) != 0;
      return 0;
    case abi::kPR_GET_CHILD_SUBREAPER:
      return write_int(args.u64(1), task.process->is_subreaper);
    case abi::kPR_GET_TID_ADDRESS:
      TRY(args.ptr<std::uint64_t>(1).write(task.clear_child_tid));
      return 0;
    default:
      return prctl_capabilities(task, args);
  }
}

SysResult sys_arch_prctl(Task &task, const SysArgs &args) {
  switch (args.s32(0)) {
    case abi::kARCH_SET_FS:
      if (args.u64(1) >= kUserMax) return Err(Errno::Perm);
      task.regs().fs_base = args.u64(1);
      return 0;
    case abi::kARCH_SET_GS:
      if (args.u64(1) >= kUserMax) return Err(Errno::Perm);
      task.regs().gs_base = args.u64(1);
      return 0;
    case abi::kARCH_GET_FS:
      TRY(args.ptr<std::uint64_t>(1).write(task.regs().fs_base));
      return 0;
    case abi::kARCH_GET_GS:
      TRY(args.ptr<std::uint64_t>(1).write(task.regs().gs_base));
      return 0;
    default:
      return Err(Errno::Inval);
  }
}

SysResult sys_personality(Task &task, const SysArgs &args) {
  const std::uint32_t old = task.personality;
  if (args.u32(0) != kQueryPersonality) task.personality = args.u32(0);
  return old;
}

}  // namespace cowbird
