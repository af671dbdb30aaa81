// Small types of the file layer: identities, times, stat, attribute changes, credentials for
// permission checks, device numbers. Anyone in the kernel may include this header.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cowbird {

struct Timespec {
  std::int64_t sec = 0;
  std::int64_t nsec = 0;
  friend bool operator==(const Timespec &, const Timespec &) = default;
};

// Linux's dev_t with its internal split (12-bit major, 20-bit minor).
struct DeviceNumber {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  // NOLINTNEXTLINE(modernize-use-nullptr): the check mistakes the 0 that this compares with
  friend auto operator<=>(const DeviceNumber &, const DeviceNumber &) = default;
  // The encoding that stat(2) and mknod(2) use (glibc's makedev).
  std::uint64_t encode() const {
    return (static_cast<std::uint64_t>(major & 0xfff) << 8) | (minor & 0xff) |
           (static_cast<std::uint64_t>(minor & ~0xffu) << 12) |
           (static_cast<std::uint64_t>(major & ~0xfffu) << 32);
  }
  static DeviceNumber decode(std::uint64_t dev) {
    return {static_cast<std::uint32_t>(((dev >> 8) & 0xfff) | ((dev >> 32) & ~0xfffull)),
            static_cast<std::uint32_t>((dev & 0xff) | ((dev >> 12) & ~0xffull))};
  }
};

// What stat and statx report.
struct FileStat {
  std::uint64_t device = 0;  // encoded
  std::uint64_t inode = 0;
  std::uint32_t mode = 0;  // type and permission bits
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0, gid = 0;
  std::uint64_t rdev = 0;  // encoded
  std::uint64_t size = 0;
  std::uint64_t block_size = 4096;
  std::uint64_t blocks = 0;  // of 512 bytes
  Timespec atime, mtime, ctime;
  std::optional<Timespec> btime;
};

// A change of attributes; what is absent stays.
struct SetAttr {
  std::optional<std::uint32_t> mode;  // permission bits only
  std::optional<std::uint32_t> uid, gid;
  std::optional<std::uint64_t> size;
  std::optional<Timespec> atime, mtime;
};

struct FsStat {
  std::uint64_t type = 0;  // magic
  std::uint64_t block_size = 4096, blocks = 0, blocks_free = 0, blocks_available = 0;
  std::uint64_t files = 0, files_free = 0;
  std::uint64_t fsid = 0, name_max = 255, flags = 0;
};

// Capability bits that the kernel checks (capability.h's numbers).
enum class Capability : std::uint8_t {
  Chown = 0,
  DacOverride = 1,
  DacReadSearch = 2,
  Fowner = 3,
  Fsetid = 4,
  Kill = 5,
  SetGid = 6,
  SetUid = 7,
  SetPcap = 8,
  LinuxImmutable = 9,
  NetBindService = 10,
  NetBroadcast = 11,
  NetAdmin = 12,
  NetRaw = 13,
  IpcLock = 14,
  IpcOwner = 15,
  SysModule = 16,
  SysRawIo = 17,
  SysChroot = 18,
  SysPtrace = 19,
  SysPacct = 20,
  SysAdmin = 21,
  SysBoot = 22,
  SysNice = 23,
  SysResource = 24,
  SysTime = 25,
  SysTtyConfig = 26,
  Mknod = 27,
  Lease = 28,
  AuditWrite = 29,
  AuditControl = 30,
  SetFcap = 31,
  MacOverride = 32,
  MacAdmin = 33,
  Syslog = 34,
  WakeAlarm = 35,
  BlockSuspend = 36,
  AuditRead = 37,
  Perfmon = 38,
  Bpf = 39,
  CheckpointRestore = 40,
};
inline constexpr std::uint64_t kAllCapabilities = (1ull << 41) - 1;

// credentials(7) and capabilities(7). A value: tasks copy it, files keep the one they were opened
// with.
struct Credentials {
  std::uint32_t uid = 0, euid = 0, suid = 0, fsuid = 0;
  std::uint32_t gid = 0, egid = 0, sgid = 0, fsgid = 0;
  std::vector<std::uint32_t> groups;
  std::uint64_t cap_permitted = kAllCapabilities, cap_effective = kAllCapabilities,
                cap_inheritable = 0, cap_bounding = kAllCapabilities, cap_ambient = 0;
  std::uint32_t securebits = 0;
  bool no_new_privs = false;

  bool capable(Capability c) const { return (cap_effective >> static_cast<unsigned>(c)) & 1; }
  bool in_group(std::uint32_t g) const {
    if (g == fsgid) return true;
    for (const std::uint32_t own : groups) {
      if (own == g) return true;
    }
    return false;
  }
  static const Credentials &kernel();  // root with everything
};

}  // namespace cowbird
