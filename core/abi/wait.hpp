// wait(2) and clone(2): options, status words, clone flags and structures. Plain data.
#pragma once

#include <cstdint>

namespace cowbird::abi {

inline constexpr int kWNOHANG = 1;
inline constexpr int kWUNTRACED = 2;
inline constexpr int kWSTOPPED = 2;
inline constexpr int kWEXITED = 4;
inline constexpr int kWCONTINUED = 8;
inline constexpr int kWNOWAIT = 0x01000000;
inline constexpr int k__WNOTHREAD = 0x20000000;
inline constexpr int k__WALL = 0x40000000;
inline constexpr int k__WCLONE = static_cast<int>(0x80000000u);

inline constexpr int kP_ALL = 0;
inline constexpr int kP_PID = 1;
inline constexpr int kP_PGID = 2;
inline constexpr int kP_PIDFD = 3;

constexpr int exit_status_word(int code) { return (code & 0xff) << 8; }
constexpr int stopped_status_word(int signal) { return (signal << 8) | 0x7f; }
inline constexpr int kContinuedStatusWord = 0xffff;

inline constexpr std::uint64_t kCSIGNAL = 0xff;
inline constexpr std::uint64_t kCLONE_NEWTIME = 0x80;
inline constexpr std::uint64_t kCLONE_VM = 0x100;
inline constexpr std::uint64_t kCLONE_FS = 0x200;
inline constexpr std::uint64_t kCLONE_FILES = 0x400;
inline constexpr std::uint64_t kCLONE_SIGHAND = 0x800;
inline constexpr std::uint64_t kCLONE_PIDFD = 0x1000;
inline constexpr std::uint64_t kCLONE_PTRACE = 0x2000;
inline constexpr std::uint64_t kCLONE_VFORK = 0x4000;
inline constexpr std::uint64_t kCLONE_PARENT = 0x8000;
inline constexpr std::uint64_t kCLONE_THREAD = 0x10000;
inline constexpr std::uint64_t kCLONE_NEWNS = 0x20000;
inline constexpr std::uint64_t kCLONE_SYSVSEM = 0x40000;
inline constexpr std::uint64_t kCLONE_SETTLS = 0x80000;
inline constexpr std::uint64_t kCLONE_PARENT_SETTID = 0x100000;
inline constexpr std::uint64_t kCLONE_CHILD_CLEARTID = 0x200000;
inline constexpr std::uint64_t kCLONE_DETACHED = 0x400000;
inline constexpr std::uint64_t kCLONE_UNTRACED = 0x800000;
inline constexpr std::uint64_t kCLONE_CHILD_SETTID = 0x1000000;
inline constexpr std::uint64_t kCLONE_NEWCGROUP = 0x2000000;
inline constexpr std::uint64_t kCLONE_NEWUTS = 0x4000000;
inline constexpr std::uint64_t kCLONE_NEWIPC = 0x8000000;
inline constexpr std::uint64_t kCLONE_NEWUSER = 0x10000000;
inline constexpr std::uint64_t kCLONE_NEWPID = 0x20000000;
inline constexpr std::uint64_t kCLONE_NEWNET = 0x40000000;
inline constexpr std::uint64_t kCLONE_IO = 0x80000000;
inline constexpr std::uint64_t kCLONE_CLEAR_SIGHAND = 0x100000000;
inline constexpr std::uint64_t kCLONE_INTO_CGROUP = 0x200000000;
inline constexpr std::uint64_t kNamespaceFlags = kCLONE_NEWTIME | kCLONE_NEWNS | kCLONE_NEWCGROUP |
                                                 kCLONE_NEWUTS | kCLONE_NEWIPC | kCLONE_NEWUSER |
                                                 kCLONE_NEWPID | kCLONE_NEWNET;

// clone3(2)'s structure, version 2.
struct CloneArgs {
  std::uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
      set_tid_size, cgroup;
};
static_assert(sizeof(CloneArgs) == 88);
inline constexpr std::uint64_t kCloneArgsSizeVer0 = 64;

inline constexpr std::uint32_t kPIDFD_NONBLOCK = 04000;

}  // namespace cowbird::abi
