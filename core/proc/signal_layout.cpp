// Signal frames: what needs no task: the encoding of siginfo and where the frame goes.
#include "proc/signal_frame.hpp"

namespace cowbird {
namespace {

constexpr std::uint64_t kRedZone = 128;

}  // namespace

abi::Siginfo encode_siginfo(const SignalInfo &info) {
  abi::Siginfo out{};
  out.signo = info.signal;
  out.error = info.error;
  out.code = info.code;
  const bool from_kernel = info.code > 0 && info.code < abi::kSI_KERNEL;
  if (info.code == abi::kSI_TIMER) {
    out.u.timer = {info.timer_id, info.overrun, info.value};
  } else if (from_kernel && info.signal == kSigChld) {
    out.u.chld = {info.pid,
                  info.uid,
                  info.status,
                  0,
                  info.utime / (kNsPerSec / 100),
                  info.stime / (kNsPerSec / 100)};
  } else if ((from_kernel && info.signal == kSigIo) || info.code == abi::kSI_SIGIO) {
    out.u.poll = {info.band, info.fd};
  } else if (from_kernel && info.signal == kSigSys) {
    out.u.sys = {info.call_address, info.syscall, info.arch};
  } else if (from_kernel &&
             (info.signal == kSigSegv || info.signal == kSigBus || info.signal == kSigFpe ||
              info.signal == kSigIll || info.signal == kSigTrap)) {
    out.u.fault.address = info.address;
    out.u.fault.address_lsb = static_cast<std::int16_t>(info.address_lsb);
  } else {
    out.u.rt = {info.pid, info.uid, info.value};
  }
  return out;
}

SignalInfo decode_siginfo(const abi::Siginfo &info) {
  SignalInfo out;
  out.signal = info.signo;
  out.error = info.error;
  out.code = info.code;
  out.pid = info.u.rt.pid;
  out.uid = info.u.rt.uid;
  out.value = info.u.rt.value;
  if (info.code == abi::kSI_TIMER) {
    out.timer_id = info.u.timer.id;
    out.overrun = info.u.timer.overrun;
  } else if (info.code == abi::kSI_SIGIO) {
    out.band = info.u.poll.band;
    out.fd = info.u.poll.fd;
  }
  return out;
}

std::optional<FrameLayout> layout_signal_frame(VirtAddr sp, bool on_alternate_stack,
                                               std::size_t xstate_size) {
  const std::uint64_t needed =
      kRedZone + xstate_size + abi::kFP_XSTATE_MAGIC2_SIZE + sizeof(abi::RtSigframe) + 128;
  if (sp < needed) return std::nullopt;
  FrameLayout layout;
  VirtAddr at = sp;
  if (!on_alternate_stack) at -= kRedZone;
  at = (at - (xstate_size + abi::kFP_XSTATE_MAGIC2_SIZE)) & ~63ull;
  layout.xstate = at;
  // As after a call instruction: rsp + 8 is a multiple of 16.
  layout.frame = ((at - sizeof(abi::RtSigframe)) & ~15ull) - 8;
  return layout;
}

std::uint64_t minimal_signal_stack(std::size_t xstate_size) {
  return sizeof(abi::RtSigframe) + xstate_size + abi::kFP_XSTATE_MAGIC2_SIZE + 64 + 16 + 8;
}

std::uint32_t alternate_stack_state(const Task::AltStack &stack, VirtAddr sp) {
  if (stack.size == 0) return abi::kSS_DISABLE;
  if ((stack.flags & abi::kSS_AUTODISARM) != 0) return 0;
  return sp > stack.base && sp - stack.base <= stack.size ? abi::kSS_ONSTACK : 0;
}

}  // namespace cowbird
