// System calls about user and group ids and capabilities (credentials(7), capabilities(7)).
#include "abi/capability.hpp"
#include "abi/prctl.hpp"
#include "proc/proc_internal.hpp"
#include "syscall/syscall.hpp"

namespace cowbird {
namespace {

constexpr std::uint32_t kKeep = ~0u;  // -1: this id stays
constexpr std::size_t kMaxGroups = 65536;
// Capabilities that go with the file system user id.
constexpr std::uint64_t kFsCapabilities =
    1ull << 0 | 1ull << 1 | 1ull << 2 | 1ull << 3 | 1ull << 4 | 1ull << 9 | 1ull << 27 | 1ull << 32;

bool one_of(std::uint32_t id, std::initializer_list<std::uint32_t> ids) {
  for (const std::uint32_t candidate : ids) {
    if (candidate == id) return true;
  }
  return false;
}

// "Effect of user ID changes on capabilities".
void fix_capabilities(Credentials &now, const Credentials &old) {
  if ((now.securebits & abi::kSECBIT_NO_SETUID_FIXUP) != 0) return;
  const bool had_root = one_of(0, {old.uid, old.euid, old.suid});
  const bool has_root = one_of(0, {now.uid, now.euid, now.suid});
  if (had_root && !has_root) {
    if ((now.securebits & abi::kSECBIT_KEEP_CAPS) == 0) {
      now.cap_permitted = now.cap_effective = 0;
    }
    now.cap_ambient = 0;
  }
  if (old.euid == 0 && now.euid != 0) now.cap_effective = 0;
  if (old.euid != 0 && now.euid == 0) now.cap_effective = now.cap_permitted;
}

void fix_fs_capabilities(Credentials &now, const Credentials &old) {
  if ((now.securebits & abi::kSECBIT_NO_SETUID_FIXUP) != 0) return;
  if (old.fsuid == 0 && now.fsuid != 0) now.cap_effective &= ~kFsCapabilities;
  if (old.fsuid != 0 && now.fsuid == 0) {
    now.cap_effective |= now.cap_permitted & kFsCapabilities;
  }
}

// A program that changed its identity is not to be looked into.
void commit(Task &task, const Credentials &now) {
  const Credentials &old = task.credentials;
  if (old.euid != now.euid || old.egid != now.egid || old.fsuid != now.fsuid ||
      old.fsgid != now.fsgid) {
    task.process->dumpable = false;
    task.parent_death_signal = 0;
  }
  task.credentials = now;
}

// --- capget and capset

struct CapabilityWords {
  abi::CapUserData data[2];
};

// The number of words that the version has; an unknown version is answered with ours.
Result<unsigned> check_version(VirtAddr address, std::uint32_t version) {
  switch (version) {
    case abi::k_LINUX_CAPABILITY_VERSION_1:
      return 1u;
    case abi::k_LINUX_CAPABILITY_VERSION_2:
    case abi::k_LINUX_CAPABILITY_VERSION_3:
      return 2u;
    default:
      TRY(UserPtr<std::uint32_t>(address).write(abi::k_LINUX_CAPABILITY_VERSION_3));
      return Err(Errno::Inval);
  }
}

std::uint64_t join(std::uint32_t low, std::uint32_t high) {
  return (low | static_cast<std::uint64_t>(high) << 32) & kAllCapabilities;
}

}  // namespace

SysResult sys_getuid(Task &task, const SysArgs &) { return task.credentials.uid; }
SysResult sys_geteuid(Task &task, const SysArgs &) { return task.credentials.euid; }
SysResult sys_getgid(Task &task, const SysArgs &) { return task.credentials.gid; }
SysResult sys_getegid(Task &task, const SysArgs &) { return task.credentials.egid; }

SysResult sys_getresuid(Task &task, const SysArgs &args) {
  TRY(args.ptr<std::uint32_t>(0).write(task.credentials.uid));
  TRY(args.ptr<std::uint32_t>(1).write(task.credentials.euid));
  TRY(args.ptr<std::uint32_t>(2).write(task.credentials.suid));
  return 0;
}

SysResult sys_getresgid(Task &task, const SysArgs &args) {
  TRY(args.ptr<std::uint32_t>(0).write(task.credentials.gid));
  TRY(args.ptr<std::uint32_t>(1).write(task.credentials.egid));
  TRY(args.ptr<std::uint32_t>(2).write(task.credentials.sgid));
  return 0;
}

SysResult sys_setuid(Task &task, const SysArgs &args) {
  const std::uint32_t uid = args.u32(0);
  if (uid == kKeep) return Err(Errno::Inval);
  Credentials now = task.credentials;
  if (now.capable(Capability::SetUid)) {
    now.uid = now.suid = uid;
  } else if (!one_of(uid, {now.uid, now.suid})) {
    return Err(Errno::Perm);
  }
  now.euid = now.fsuid = uid;
  fix_capabilities(now, task.credentials);
  fix_fs_capabilities(now, task.credentials);
  commit(task, now);
  return 0;
}

SysResult sys_setgid(Task &task, const SysArgs &args) {
  const std::uint32_t gid = args.u32(0);
  if (gid == kKeep) return Err(Errno::Inval);
  Credentials now = task.credentials;
  if (now.capable(Capability::SetGid)) {
    now.gid = now.sgid = gid;
  } else if (!one_of(gid, {now.gid, now.sgid})) {
    return Err(Errno::Perm);
  }
  now.egid = now.fsgid = gid;
  commit(task, now);
  return 0;
}

SysResult sys_setreuid(Task &task, const SysArgs &args) {
  const std::uint32_t ruid = args.u32(0), euid = args.u32(1);
  const Credentials &old = task.credentials;
  Credentials now = old;
  const bool privileged = old.capable(Capability::SetUid);
  if (ruid != kKeep) {
    if (!privileged && !one_of(ruid, {old.uid, old.euid})) return Err(Errno::Perm);
    now.uid = ruid;
  }
  if (euid != kKeep) {
    if (!privileged && !one_of(euid, {old.uid, old.euid, old.suid})) return Err(Errno::Perm);
    now.euid = euid;
  }
  if (ruid != kKeep || (euid != kKeep && euid != old.uid)) now.suid = now.euid;
  now.fsuid = now.euid;
  fix_capabilities(now, old);
  fix_fs_capabilities(now, old);
  commit(task, now);
  return 0;
}

SysResult sys_setregid(Task &task, const SysArgs &args) {
  const std::uint32_t rgid = args.u32(0), egid = args.u32(1);
  const Credentials &old = task.credentials;
  Credentials now = old;
  const bool privileged = old.capable(Capability::SetGid);
  if (rgid != kKeep) {
    if (!privileged && !one_of(rgid, {old.gid, old.egid})) return Err(Errno::Perm);
    now.gid = rgid;
  }
  if (egid != kKeep) {
    if (!privileged && !one_of(egid, {old.gid, old.egid, old.sgid})) return Err(Errno::Perm);
    now.egid = egid;
  }
  if (rgid != kKeep || (egid != kKeep && egid != old.gid)) now.sgid = now.egid;
  now.fsgid = now.egid;
  commit(task, now);
  return 0;
}

SysResult sys_setresuid(Task &task, const SysArgs &args) {
  const Credentials &old = task.credentials;
  Credentials now = old;
  std::uint32_t *const ids[] = {&now.uid, &now.euid, &now.suid};
  for (int i = 0; i < 3; ++i) {
    const std::uint32_t id = args.u32(i);
    if (id == kKeep) continue;
    if (!old.capable(Capability::SetUid) && !one_of(id, {old.uid, old.euid, old.suid})) {
      return Err(Errno::Perm);
    }
    *ids[i] = id;
  }
  now.fsuid = now.euid;
  fix_capabilities(now, old);
  fix_fs_capabilities(now, old);
  commit(task, now);
  return 0;
}

SysResult sys_setresgid(Task &task, const SysArgs &args) {
  const Credentials &old = task.credentials;
  Credentials now = old;
  std::uint32_t *const ids[] = {&now.gid, &now.egid, &now.sgid};
  for (int i = 0; i < 3; ++i) {
    const std::uint32_t id = args.u32(i);
    if (id == kKeep) continue;
    if (!old.capable(Capability::SetGid) && !one_of(id, {old.gid, old.egid, old.sgid})) {
      return Err(Errno::Perm);
    }
    *ids[i] = id;
  }
  now.fsgid = now.egid;
  commit(task, now);
  return 0;
}

SysResult sys_setfsuid(Task &task, const SysArgs &args) {
  const Credentials &old = task.credentials;
  const std::uint32_t before = old.fsuid, uid = args.u32(0);
  if (uid != kKeep &&
      (one_of(uid, {old.uid, old.euid, old.suid, old.fsuid}) || old.capable(Capability::SetUid))) {
    Credentials now = old;
    now.fsuid = uid;
    fix_fs_capabilities(now, old);
    commit(task, now);
  }
  return before;
}

SysResult sys_setfsgid(Task &task, const SysArgs &args) {
  const Credentials &old = task.credentials;
  const std::uint32_t before = old.fsgid, gid = args.u32(0);
  if (gid != kKeep &&
      (one_of(gid, {old.gid, old.egid, old.sgid, old.fsgid}) || old.capable(Capability::SetGid))) {
    Credentials now = old;
    now.fsgid = gid;
    commit(task, now);
  }
  return before;
}

SysResult sys_getgroups(Task &task, const SysArgs &args) {
  const auto &groups = task.credentials.groups;
  if (args.s32(0) < 0) return Err(Errno::Inval);
  if (args.s32(0) == 0) return static_cast<std::int64_t>(groups.size());
  if (static_cast<std::size_t>(args.s32(0)) < groups.size()) return Err(Errno::Inval);
  TRY(args.ptr<std::uint32_t>(1).write_array(groups));
  return static_cast<std::int64_t>(groups.size());
}

SysResult sys_setgroups(Task &task, const SysArgs &args) {
  if (!task.credentials.capable(Capability::SetGid)) return Err(Errno::Perm);
  if (args.u64(0) > kMaxGroups) return Err(Errno::Inval);
  task.credentials.groups = TRY(args.ptr<std::uint32_t>(1).read_array(args.u64(0)));
  return 0;
}

SysResult sys_capget(Task &task, const SysArgs &args) {
  const auto header = TRY(args.ptr<abi::CapUserHeader>(0).read());
  const Result<unsigned> words = check_version(args.u64(0), header.version);
  if (!words) {
    // A null data pointer asks for the version only.
    if (words.is(Errno::Inval) && args.u64(1) == 0) return 0;
    return Err(words.error());
  }
  if (header.pid < 0) return Err(Errno::Inval);
  const Ref<Task> target = header.pid == 0 ? Ref<Task>(&task) : find_task(header.pid);
  if (!target) return Err(Errno::Srch);
  if (args.u64(1) == 0) return 0;
  const Credentials &who = target->credentials;
  const auto word = [](std::uint64_t set, unsigned i) {
    return static_cast<std::uint32_t>(set >> (32 * i));
  };
  for (unsigned i = 0; i < *words; ++i) {
    TRY(args.ptr<abi::CapUserData>(1).at(i).write(
        {word(who.cap_effective, i), word(who.cap_permitted, i), word(who.cap_inheritable, i)}));
  }
  return 0;
}

SysResult sys_capset(Task &task, const SysArgs &args) {
  const auto header = TRY(args.ptr<abi::CapUserHeader>(0).read());
  const unsigned words = TRY(check_version(args.u64(0), header.version));
  if (header.pid != 0 && header.pid != task.tid) return Err(Errno::Perm);
  CapabilityWords w{};
  for (unsigned i = 0; i < words; ++i) w.data[i] = TRY(args.ptr<abi::CapUserData>(1).at(i).read());
  const std::uint64_t effective = join(w.data[0].effective, w.data[1].effective);
  const std::uint64_t permitted = join(w.data[0].permitted, w.data[1].permitted);
  const std::uint64_t inheritable = join(w.data[0].inheritable, w.data[1].inheritable);
  Credentials now = task.credentials;
  if ((permitted & ~now.cap_permitted) != 0 || (effective & ~permitted) != 0) {
    return Err(Errno::Perm);
  }
  if (!now.capable(Capability::SetPcap) &&
      (inheritable & ~(now.cap_inheritable | now.cap_permitted)) != 0) {
    return Err(Errno::Perm);
  }
  if ((inheritable & ~(now.cap_inheritable | now.cap_bounding)) != 0) return Err(Errno::Perm);
  now.cap_effective = effective;
  now.cap_permitted = permitted;
  now.cap_inheritable = inheritable;
  now.cap_ambient &= permitted & inheritable;
  task.credentials = now;
  return 0;
}

}  // namespace cowbird
