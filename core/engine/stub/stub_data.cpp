// The read-only data of the stub process: signal actions and the two seccomp filters. There is no
// code here, and nothing in the stub is writable; see engine/stub_protocol.hpp.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <cstddef>
#include <cstdint>

#include "engine/stub_protocol.hpp"

extern "C" {
void stub_handler();
void stub_restorer();
}

namespace {

namespace stub = cowbird::stub;

// The kernel's struct sigaction.
struct KernelSigaction {
  void (*handler)();
  unsigned long flags;
  void (*restorer)();
  std::uint64_t mask;
};
constexpr unsigned long kSaSiginfo = 4, kSaRestorer = 0x04000000, kSaOnStack = 0x08000000;

constexpr std::uint32_t lo(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
constexpr std::uint32_t hi(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

constexpr std::uint32_t kNumber = offsetof(seccomp_data, nr);
constexpr std::uint32_t kArch = offsetof(seccomp_data, arch);
constexpr std::uint32_t kIpLow = offsetof(seccomp_data, instruction_pointer);
constexpr std::uint32_t kIpHigh = kIpLow + 4;
constexpr std::uint32_t arg_low(unsigned n) {
  return static_cast<std::uint32_t>(offsetof(seccomp_data, args) + sizeof(std::uint64_t) * n);
}
constexpr std::uint32_t arg_high(unsigned n) { return arg_low(n) + 4; }

// Jump targets that `complete` turns into distances to the two returns it appends.
constexpr std::uint8_t kAllow = 255, kTrap = 254;

constexpr sock_filter load(std::uint32_t offset) {
  return {BPF_LD | BPF_W | BPF_ABS, 0, 0, offset};
}
constexpr sock_filter if_equal(std::uint32_t value, std::uint8_t then, std::uint8_t otherwise) {
  return {BPF_JMP | BPF_JEQ | BPF_K, then, otherwise, value};
}
constexpr sock_filter if_at_least(std::uint32_t value, std::uint8_t then, std::uint8_t otherwise) {
  return {BPF_JMP | BPF_JGE | BPF_K, then, otherwise, value};
}
constexpr sock_filter allow_call(std::uint32_t number) { return if_equal(number, kAllow, 0); }

template <std::size_t N>
struct Filter {
  sock_filter code[N + 2];
};

template <std::size_t N>
constexpr Filter<N> complete(const sock_filter (&body)[N]) {
  Filter<N> filter{};
  for (std::size_t i = 0; i < N; ++i) {
    filter.code[i] = body[i];
    const auto distance = [i](std::uint8_t target) {
      if (target == kTrap) return static_cast<std::uint8_t>(N - i - 1);
      return target == kAllow ? static_cast<std::uint8_t>(N - i) : target;
    };
    filter.code[i].jt = distance(body[i].jt);
    filter.code[i].jf = distance(body[i].jf);
  }
  filter.code[N] = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_TRAP};
  filter.code[N + 1] = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  return filter;
}

// M: what its orders need. A refusal is a trap and not more, because the stricter of two stacked
// filters wins and guest threads, which have both, must be able to trap. M dies of a trap, since it
// blocks SIGSYS.
constexpr auto kWide = complete({
    load(kArch),
    if_equal(AUDIT_ARCH_X86_64, 0, kTrap),
    load(kNumber),
    allow_call(SYS_futex),
    allow_call(SYS_rt_sigreturn),
    allow_call(SYS_mmap),
    allow_call(SYS_munmap),
    allow_call(SYS_mprotect),
    allow_call(SYS_lseek),
    allow_call(SYS_madvise),
    allow_call(SYS_clone),
    allow_call(SYS_seccomp),
    allow_call(SYS_execveat),
    allow_call(SYS_rt_sigaction),
    allow_call(SYS_rt_sigprocmask),
    allow_call(SYS_arch_prctl),
    allow_call(SYS_prctl),
    allow_call(SYS_exit_group),
    if_equal(SYS_write, 0, kTrap),
    load(arg_low(0)),
    if_equal(STUB_FD_EVENT, kAllow, kTrap),
});

// G: futex wait and wake on words of this stub's own control memory, and rt_sigreturn. Only from
// the stub's text, so that the guest's own rt_sigreturn and futex calls trap as all others do;
// guest code that jumps there gets no more than these two calls.
constexpr sock_filter kFromText[] = {
    load(kArch),   if_equal(AUDIT_ARCH_X86_64, 0, kTrap),
    load(kIpHigh), if_equal(hi(stub::kTextBase), 0, kTrap),
    load(kIpLow),  if_at_least(lo(stub::kTextBase), 0, kTrap),
};
constexpr auto kNarrow = complete({
    kFromText[0],
    kFromText[1],
    kFromText[2],
    kFromText[3],
    kFromText[4],
    kFromText[5],
    if_at_least(lo(stub::kTextBase) + STUB_TEXT_BYTES, kTrap, 0),
    load(kNumber),
    allow_call(SYS_rt_sigreturn),
    if_equal(SYS_futex, 0, kTrap),
    load(arg_low(1)),
    if_equal(0, 1, 0),      // FUTEX_WAIT
    if_equal(1, 0, kTrap),  // FUTEX_WAKE
    load(arg_high(0)),
    if_equal(hi(stub::kFutexLow), 0, kTrap),
    load(arg_low(0)),
    if_at_least(lo(stub::kFutexLow), 0, kTrap),
    if_at_least(lo(stub::kFutexHigh), kTrap, kAllow),
});
// The same where segment bases can only be set by a system call.
constexpr auto kNarrowBases = complete({
    kFromText[0],
    kFromText[1],
    kFromText[2],
    kFromText[3],
    kFromText[4],
    kFromText[5],
    if_at_least(lo(stub::kTextBase) + STUB_TEXT_BYTES, kTrap, 0),
    load(kNumber),
    allow_call(SYS_rt_sigreturn),
    if_equal(SYS_futex, 4, 0),
    if_equal(SYS_arch_prctl, 0, kTrap),
    load(arg_low(0)),
    if_equal(0x1001, kAllow, 0),      // ARCH_SET_GS
    if_equal(0x1002, kAllow, kTrap),  // ARCH_SET_FS
    load(arg_low(1)),
    if_equal(0, 1, 0),
    if_equal(1, 0, kTrap),
    load(arg_high(0)),
    if_equal(hi(stub::kFutexLow), 0, kTrap),
    load(arg_low(0)),
    if_at_least(lo(stub::kFutexLow), 0, kTrap),
    if_at_least(lo(stub::kFutexHigh), kTrap, kAllow),
});

template <std::size_t N>
constexpr sock_fprog program(const Filter<N> &filter) {
  return {static_cast<unsigned short>(N + 2), const_cast<sock_filter *>(filter.code)};
}

}  // namespace

extern "C" {

extern const std::uint64_t stub_all_signals;
extern const char stub_name[16];
extern const std::int32_t stub_signals[8];
extern const KernelSigaction stub_sigaction;
extern const sock_fprog stub_wide_filter, stub_narrow_filter, stub_narrow_filter_bases;

const std::uint64_t stub_all_signals = ~std::uint64_t{0};
const char stub_name[16] = "cowbird-stub";
// SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS, the kick; ended by 0.
const std::int32_t stub_signals[8] = {4, 5, 7, 8, 11, 31, stub::kKickSignal, 0};
const KernelSigaction stub_sigaction = {stub_handler, kSaSiginfo | kSaRestorer | kSaOnStack,
                                        stub_restorer, ~std::uint64_t{0}};
const sock_fprog stub_wide_filter = program(kWide);
const sock_fprog stub_narrow_filter = program(kNarrow);
const sock_fprog stub_narrow_filter_bases = program(kNarrowBases);
}
