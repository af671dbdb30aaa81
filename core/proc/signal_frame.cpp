// Building and taking back signal frames.
#include "proc/signal_frame.hpp"

#include <cpuid.h>

#include <array>
#include <cstring>
#include <vector>

#include "mm/user_access.hpp"

namespace cowbird {
namespace {

// eflags that a frame may set: AC OF DF TF SF ZF AF PF CF RF.
constexpr std::uint64_t kFixEflags =
    0x40000 | 0x800 | abi::kFlagDf | abi::kFlagTf | 0x80 | 0x40 | 0x10 | 0x4 | 0x1 | abi::kFlagRf;

std::uint64_t xcr0() {
  unsigned eax, ebx, ecx, edx;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0) return 3;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

// Where each enabled feature's state ends in the standard form of XSAVE; 0 for the others.
std::array<std::size_t, 64> feature_ends() {
  std::array<std::size_t, 64> ends{};
  const std::uint64_t enabled = xcr0();
  ends[0] = (enabled & 1) != 0 ? 160 : 0;
  ends[1] = (enabled & 2) != 0 ? 416 : 0;
  for (unsigned feature = 2; feature < 63; ++feature) {
    if ((enabled & (1ull << feature)) == 0) continue;
    unsigned size = 0, offset = 0, ecx, edx;
    __get_cpuid_count(0xd, feature, &size, &offset, &ecx, &edx);
    if (size != 0) ends[feature] = std::size_t{offset} + size;
  }
  return ends;
}

abi::Sigcontext save_registers(const Task &task) {
  const abi::UserRegs &r = task.context->regs();
  abi::Sigcontext c{};
  c.r8 = r.r8, c.r9 = r.r9, c.r10 = r.r10, c.r11 = r.r11;
  c.r12 = r.r12, c.r13 = r.r13, c.r14 = r.r14, c.r15 = r.r15;
  c.di = r.rdi, c.si = r.rsi, c.bp = r.rbp, c.bx = r.rbx;
  c.dx = r.rdx, c.ax = r.rax, c.cx = r.rcx, c.sp = r.rsp;
  c.ip = r.rip, c.flags = r.eflags;
  c.cs = static_cast<std::uint16_t>(r.cs);
  c.ss = static_cast<std::uint16_t>(r.ss);
  c.err = task.fault_error_code;
  c.trapno = task.fault_vector;
  c.cr2 = task.fault_address;
  c.oldmask = 0;
  return c;
}

void load_registers(Task &task, const abi::Sigcontext &c) {
  abi::UserRegs &r = task.regs();
  r.r8 = c.r8, r.r9 = c.r9, r.r10 = c.r10, r.r11 = c.r11;
  r.r12 = c.r12, r.r13 = c.r13, r.r14 = c.r14, r.r15 = c.r15;
  r.rdi = c.di, r.rsi = c.si, r.rbp = c.bp, r.rbx = c.bx;
  r.rdx = c.dx, r.rax = c.ax, r.rcx = c.cx, r.rsp = c.sp;
  r.rip = c.ip;
  // Only 64-bit code with flat segments runs here, whatever the frame says.
  r.cs = abi::kUserCs;
  r.ss = abi::kUserSs;
  r.eflags = (r.eflags & ~kFixEflags) | (c.flags & kFixEflags);
  r.orig_rax = ~0ull;
}

Result<void> write_xstate(Task &task, VirtAddr address) {
  const std::size_t size = guest_platform().xstate_size();
  std::vector<std::byte> area(size + abi::kFP_XSTATE_MAGIC2_SIZE);
  task.context->get_xstate(std::span(area).first(size));
  abi::FpxSwBytes sw{};
  sw.magic1 = abi::kFP_XSTATE_MAGIC1;
  sw.extended_size = static_cast<std::uint32_t>(area.size());
  sw.xfeatures = user_xfeatures(size);
  sw.xstate_size = static_cast<std::uint32_t>(size);
  std::memcpy(area.data() + abi::kFpxSwBytesOffset, &sw, sizeof(sw));
  // x87 and SSE state are always there, so that a program may change them without knowing XSAVE.
  std::uint64_t present;
  std::memcpy(&present, area.data() + abi::kXsaveHeaderOffset, sizeof(present));
  present |= 3;
  std::memcpy(area.data() + abi::kXsaveHeaderOffset, &present, sizeof(present));
  std::memcpy(area.data() + size, &abi::kFP_XSTATE_MAGIC2, abi::kFP_XSTATE_MAGIC2_SIZE);
  return copy_out(address, area.data(), area.size());
}

// The frame holds a whole XSAVE area, and not only what FXSAVE knows.
bool has_extended_state(const abi::FpxSwBytes &sw, VirtAddr address, std::size_t size) {
  if (sw.magic1 != abi::kFP_XSTATE_MAGIC1) return false;
  if (sw.xstate_size < abi::kXsaveHeaderOffset + abi::kXsaveHeaderSize || sw.xstate_size > size ||
      sw.xstate_size > sw.extended_size) {
    return false;
  }
  std::uint32_t magic2 = 0;
  if (!copy_in(&magic2, address + sw.xstate_size, sizeof(magic2))) return false;
  return magic2 == abi::kFP_XSTATE_MAGIC2;
}

Result<void> read_xstate(Task &task, VirtAddr address) {
  if (address == 0) {
    task.context->reset_xstate();
    return {};
  }
  const std::size_t size = guest_platform().xstate_size();
  std::vector<std::byte> area(size);
  TRY(copy_in(area.data(), address, abi::kXsaveHeaderOffset));
  abi::FpxSwBytes sw;
  std::memcpy(&sw, area.data() + abi::kFpxSwBytesOffset, sizeof(sw));
  std::uint64_t present = 3;
  if (has_extended_state(sw, address, size)) {
    TRY(copy_in(area.data(), address, sw.xstate_size));
    std::memcpy(&present, area.data() + abi::kXsaveHeaderOffset, sizeof(present));
    present &= sw.xfeatures & user_xfeatures(sw.xstate_size);
  }
  // What the header says besides the features must be zero; the reserved bytes of FXSAVE are ours.
  std::memset(area.data() + abi::kXsaveHeaderOffset, 0, abi::kXsaveHeaderSize);
  std::memcpy(area.data() + abi::kXsaveHeaderOffset, &present, sizeof(present));
  std::memset(area.data() + abi::kFpxSwBytesOffset, 0, sizeof(abi::FpxSwBytes));
  return task.context->set_xstate(area);
}

}  // namespace

std::uint64_t user_xfeatures(std::size_t xstate_size) {
  // Asked once: a hypervisor makes the processor's answer cost many microseconds.
  static const std::array<std::size_t, 64> ends = feature_ends();
  std::uint64_t features = 0;
  for (unsigned feature = 0; feature < ends.size(); ++feature) {
    if (ends[feature] != 0 && ends[feature] <= xstate_size) features |= 1ull << feature;
  }
  return features;
}

Result<void> push_signal_frame(Task &task, const SignalInfo &info, const SignalAction &action,
                               SignalSet mask) {
  abi::UserRegs &regs = task.regs();
  // A handler cannot return without it, and there is no vDSO that would.
  if ((action.flags & abi::kSA_RESTORER) == 0) return Err(Errno::Fault);
  VirtAddr sp = regs.rsp;
  const std::uint32_t state = alternate_stack_state(task.alt_stack, sp);
  const bool enters = (action.flags & abi::kSA_ONSTACK) != 0 && state == 0;
  if (enters) sp = task.alt_stack.base + task.alt_stack.size;
  const auto layout = layout_signal_frame(sp, enters, guest_platform().xstate_size());
  if (!layout) return Err(Errno::Fault);
  if ((enters || state == abi::kSS_ONSTACK) &&
      (layout->frame < task.alt_stack.base ||
       layout->frame >= task.alt_stack.base + task.alt_stack.size)) {
    return Err(Errno::Fault);
  }
  TRY(write_xstate(task, layout->xstate));
  abi::RtSigframe frame{};
  frame.pretcode = action.restorer;
  frame.uc.flags = abi::kUC_FP_XSTATE | abi::kUC_SIGCONTEXT_SS | abi::kUC_STRICT_RESTORE_SS;
  frame.uc.stack = {task.alt_stack.base, task.alt_stack.flags, 0, task.alt_stack.size};
  frame.uc.mcontext = save_registers(task);
  frame.uc.mcontext.fpstate = layout->xstate;
  frame.uc.mcontext.oldmask = mask.bits();
  frame.uc.sigmask = mask.bits();
  frame.info = encode_siginfo(info);
  TRY(copy_out(layout->frame, &frame, sizeof(frame)));
  if ((task.alt_stack.flags & abi::kSS_AUTODISARM) != 0) task.alt_stack = Task::AltStack{};
  regs.rdi = static_cast<std::uint64_t>(info.signal);
  regs.rsi = layout->frame + offsetof(abi::RtSigframe, info);
  regs.rdx = layout->frame + offsetof(abi::RtSigframe, uc);
  regs.rax = 0;
  regs.rsp = layout->frame;
  regs.rip = action.handler;
  regs.cs = abi::kUserCs;
  regs.ss = abi::kUserSs;
  regs.eflags &= ~(abi::kFlagDf | abi::kFlagRf | abi::kFlagTf);
  return {};
}

Result<void> return_from_signal(Task &task) {
  // The restorer's `ret` took pretcode off the stack.
  const VirtAddr address = task.regs().rsp - 8;
  abi::RtSigframe frame;
  TRY(copy_in(&frame, address, sizeof(frame)));
  TRY(read_xstate(task, frame.uc.mcontext.fpstate));
  load_registers(task, frame.uc.mcontext);
  task.set_blocked(SignalSet(frame.uc.sigmask));
  const abi::StackT &stack = frame.uc.stack;
  // As sigaltstack(2): not while on it, and errors are of no interest here.
  const bool busy = alternate_stack_state(task.alt_stack, task.regs().rsp) == abi::kSS_ONSTACK;
  const std::uint32_t mode = stack.flags & ~abi::kSS_AUTODISARM;
  if (!busy && (mode == abi::kSS_DISABLE || mode == 0 || mode == abi::kSS_ONSTACK)) {
    if (mode == abi::kSS_DISABLE) {
      task.alt_stack = Task::AltStack{0, 0, stack.flags};
    } else if (stack.size >= abi::kMINSIGSTKSZ) {
      task.alt_stack = Task::AltStack{stack.sp, stack.size, stack.flags};
    }
  }
  return {};
}

}  // namespace cowbird
