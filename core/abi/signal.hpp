// Signals as the guest sees them: numbers, flags and the structures of rt_sigaction(2),
// sigaltstack(2), siginfo_t and the signal frame of x86-64. Plain data; anyone may include it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint64_t kSIG_DFL = 0;
inline constexpr std::uint64_t kSIG_IGN = 1;

inline constexpr std::uint64_t kSA_NOCLDSTOP = 1;
inline constexpr std::uint64_t kSA_NOCLDWAIT = 2;
inline constexpr std::uint64_t kSA_SIGINFO = 4;
inline constexpr std::uint64_t kSA_UNSUPPORTED = 0x400;
inline constexpr std::uint64_t kSA_EXPOSE_TAGBITS = 0x800;
inline constexpr std::uint64_t kSA_RESTORER = 0x04000000;
inline constexpr std::uint64_t kSA_ONSTACK = 0x08000000;
inline constexpr std::uint64_t kSA_RESTART = 0x10000000;
inline constexpr std::uint64_t kSA_NODEFER = 0x40000000;
inline constexpr std::uint64_t kSA_RESETHAND = 0x80000000;
inline constexpr std::uint64_t kSA_ALL = kSA_NOCLDSTOP | kSA_NOCLDWAIT | kSA_SIGINFO |
                                         kSA_EXPOSE_TAGBITS | kSA_RESTORER | kSA_ONSTACK |
                                         kSA_RESTART | kSA_NODEFER | kSA_RESETHAND;

inline constexpr int kSIG_BLOCK = 0;
inline constexpr int kSIG_UNBLOCK = 1;
inline constexpr int kSIG_SETMASK = 2;

inline constexpr int kSI_USER = 0;
inline constexpr int kSI_KERNEL = 0x80;
inline constexpr int kSI_QUEUE = -1;
inline constexpr int kSI_TIMER = -2;
inline constexpr int kSI_MESGQ = -3;
inline constexpr int kSI_ASYNCIO = -4;
inline constexpr int kSI_SIGIO = -5;
inline constexpr int kSI_TKILL = -6;
inline constexpr int kILL_ILLOPN = 2;
inline constexpr int kFPE_INTDIV = 1;
inline constexpr int kSEGV_MAPERR = 1;
inline constexpr int kSEGV_ACCERR = 2;
inline constexpr int kBUS_ADRALN = 1;
inline constexpr int kBUS_ADRERR = 2;
inline constexpr int kTRAP_BRKPT = 1;
inline constexpr int kCLD_EXITED = 1;
inline constexpr int kCLD_KILLED = 2;
inline constexpr int kCLD_DUMPED = 3;
inline constexpr int kCLD_TRAPPED = 4;
inline constexpr int kCLD_STOPPED = 5;
inline constexpr int kCLD_CONTINUED = 6;
inline constexpr int kPOLL_IN = 1;
inline constexpr int kPOLL_HUP = 6;

inline constexpr std::uint32_t kSS_ONSTACK = 1;
inline constexpr std::uint32_t kSS_DISABLE = 2;
inline constexpr std::uint32_t kSS_AUTODISARM = 1u << 31;
inline constexpr std::uint64_t kMINSIGSTKSZ = 2048;

inline constexpr int kSIGEV_SIGNAL = 0;
inline constexpr int kSIGEV_NONE = 1;
inline constexpr int kSIGEV_THREAD = 2;
inline constexpr int kSIGEV_THREAD_ID = 4;

// struct kernel_sigaction
struct KernelSigaction {
  std::uint64_t handler, flags, restorer, mask;
};
static_assert(sizeof(KernelSigaction) == 32);

struct StackT {
  std::uint64_t sp;
  std::uint32_t flags, pad;
  std::uint64_t size;
};
static_assert(sizeof(StackT) == 24 && offsetof(StackT, size) == 16);

struct Siginfo {
  std::int32_t signo, error, code, pad;
  union {
    struct {
      std::int32_t pid;
      std::uint32_t uid;
      std::uint64_t value;
    } rt;
    struct {
      std::int32_t id, overrun;
      std::uint64_t value;
    } timer;
    struct {
      std::int32_t pid;
      std::uint32_t uid;
      std::int32_t status, pad;
      std::int64_t utime, stime;
    } chld;
    struct {
      std::uint64_t address;
      std::int16_t address_lsb;
    } fault;
    struct {
      std::int64_t band;
      std::int32_t fd;
    } poll;
    struct {
      std::uint64_t call_address;
      std::int32_t syscall;
      std::uint32_t arch;
    } sys;
    std::uint8_t bytes[112];
  } u;
};
static_assert(sizeof(Siginfo) == 128 && offsetof(Siginfo, u) == 16);

struct Sigcontext {
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags;
  std::uint16_t cs, gs, fs, ss;
  std::uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
};
static_assert(sizeof(Sigcontext) == 256 && offsetof(Sigcontext, cs) == 144 &&
              offsetof(Sigcontext, cr2) == 176 && offsetof(Sigcontext, fpstate) == 184);

inline constexpr std::uint64_t kUC_FP_XSTATE = 1;
inline constexpr std::uint64_t kUC_SIGCONTEXT_SS = 2;
inline constexpr std::uint64_t kUC_STRICT_RESTORE_SS = 4;

struct Ucontext {
  std::uint64_t flags, link;
  StackT stack;
  Sigcontext mcontext;
  std::uint64_t sigmask;
};
static_assert(sizeof(Ucontext) == 304 && offsetof(Ucontext, mcontext) == 40 &&
              offsetof(Ucontext, sigmask) == 296);

// What lies at rsp when a handler is entered.
struct RtSigframe {
  std::uint64_t pretcode;
  Ucontext uc;
  Siginfo info;
};
static_assert(sizeof(RtSigframe) == 440 && offsetof(RtSigframe, uc) == 8 &&
              offsetof(RtSigframe, info) == 312);

// The software-reserved bytes of the FXSAVE image (offset 464), which say how much follows.
struct FpxSwBytes {
  std::uint32_t magic1, extended_size;
  std::uint64_t xfeatures;
  std::uint32_t xstate_size, padding[7];
};
static_assert(sizeof(FpxSwBytes) == 48);
inline constexpr std::size_t kFpxSwBytesOffset = 464;
inline constexpr std::size_t kXsaveHeaderOffset = 512;
inline constexpr std::size_t kXsaveHeaderSize = 64;
inline constexpr std::uint32_t kFP_XSTATE_MAGIC1 = 0x46505853;
inline constexpr std::uint32_t kFP_XSTATE_MAGIC2 = 0x46505845;
inline constexpr std::size_t kFP_XSTATE_MAGIC2_SIZE = 4;

struct Sigevent {
  std::uint64_t value;
  std::int32_t signo, notify, tid;
  std::int32_t pad[11];
};
static_assert(sizeof(Sigevent) == 64 && offsetof(Sigevent, tid) == 16);

// Code and data selectors of 64-bit programs.
inline constexpr std::uint64_t kUserCs = 0x33;
inline constexpr std::uint64_t kUserSs = 0x2b;
// rflags
inline constexpr std::uint64_t kFlagTf = 0x100;
inline constexpr std::uint64_t kFlagDf = 0x400;
inline constexpr std::uint64_t kFlagRf = 0x10000;

}  // namespace cowbird::abi
