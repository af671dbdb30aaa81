#include "boot/backtrace.hpp"

#include <cxxabi.h>
#include <fmt/format.h>
#include <libunwind.h>

#include <array>
#include <cstdlib>
#include <memory>

#include "boot/symbols.hpp"
#include "sched/context.hpp"
#include "sched/scheduler.hpp"

namespace cowbird::boot {
namespace {

// What the unwinder needs to start somewhere else than at its caller: the registers that functions
// preserve.
struct Registers {
  std::uint64_t rip, rsp, rbp, rbx, r12, r13, r14, r15;
};

// The instruction pointer goes first: setting it makes the cursor look up the frame's unwind
// information and may touch the stack pointer.
void set_registers(unw_cursor_t &cursor, const Registers &registers) {
  unw_set_reg(&cursor, UNW_REG_IP, registers.rip);
  unw_set_reg(&cursor, UNW_REG_SP, registers.rsp);
  unw_set_reg(&cursor, UNW_X86_64_RBP, registers.rbp);
  unw_set_reg(&cursor, UNW_X86_64_RBX, registers.rbx);
  unw_set_reg(&cursor, UNW_X86_64_R12, registers.r12);
  unw_set_reg(&cursor, UNW_X86_64_R13, registers.r13);
  unw_set_reg(&cursor, UNW_X86_64_R14, registers.r14);
  unw_set_reg(&cursor, UNW_X86_64_R15, registers.r15);
}

Unwound walk(unw_cursor_t &cursor, std::span<RawFrame> out, const StackRange &range,
             bool first_is_return) {
  Unwound result;
  std::uint64_t last_sp = 0;
  bool is_return = first_is_return;
  for (;;) {
    unw_word_t pc = 0, sp = 0;
    unw_get_reg(&cursor, UNW_REG_IP, &pc);
    unw_get_reg(&cursor, UNW_REG_SP, &sp);
    if (pc == 0) return result;
    if (result.count == out.size()) {
      result.end = UnwindEnd::Full;
      return result;
    }
    out[result.count++] = {pc, is_return};
    if (sp < range.low || sp >= range.high || sp < last_sp) {
      result.end = UnwindEnd::Broken;
      return result;
    }
    last_sp = sp;
    is_return = unw_is_signal_frame(&cursor) <= 0;
    const int step = unw_step(&cursor);
    if (step == 0) return result;
    if (step < 0) {
      result.end = UnwindEnd::Broken;
      return result;
    }
  }
}

Unwound unwind_registers(const Registers &registers, std::span<RawFrame> out,
                         const StackRange &range) {
  unw_context_t context;
  unw_cursor_t cursor;
  unw_getcontext(&context);
  if (unw_init_local(&cursor, &context) != 0) return {0, UnwindEnd::Broken};
  set_registers(cursor, registers);
  return walk(cursor, out, range, false);
}

// As above, of a context that was interrupted between two instructions. Libunwind looks for what
// holds up to the instruction before the address that it is given, which is right behind a call;
// here what the instructions before `rip` have done must count as well, a prologue's push say.
Unwound unwind_interrupted(Registers registers, std::span<RawFrame> out, const StackRange &range) {
  if (out.empty()) return {0, UnwindEnd::Full};
  constexpr std::uint8_t kReturn = 0xc3;
  const std::uint64_t pc = registers.rip;
  const bool on_stack = registers.rsp >= range.low && registers.rsp <= range.high - 8;
  Symbol symbol;
  // One byte long and often the function's last: an address behind it may be the next function's.
  if (on_stack && find_symbol(pc, symbol) &&
      *reinterpret_cast<const std::uint8_t *>(pc) == kReturn) {
    out[0] = {pc, false};
    if (out.size() == 1) return {1, UnwindEnd::Full};
    registers.rip = *reinterpret_cast<const std::uint64_t *>(registers.rsp);
    registers.rsp += 8;
    Unwound rest = unwind_registers(registers, out.subspan(1), range);
    if (rest.count > 0) out[1].is_return = true;
    ++rest.count;
    return rest;
  }
  ++registers.rip;
  const Unwound result = unwind_registers(registers, out, range);
  if (result.count > 0) out[0].pc = pc;
  return result;
}

std::vector<Frame> symbolise_all(std::span<const RawFrame> raw) {
  std::vector<Frame> frames;
  frames.reserve(raw.size());
  for (const RawFrame &frame : raw) frames.push_back(symbolise(frame));
  return frames;
}

}  // namespace

__attribute__((noinline)) Unwound unwind_here(std::span<RawFrame> out, const StackRange &range) {
  unw_context_t context;
  unw_cursor_t cursor;
  unw_getcontext(&context);
  if (unw_init_local(&cursor, &context) != 0 || unw_step(&cursor) <= 0) {
    return {0, UnwindEnd::Broken};
  }
  return walk(cursor, out, range, true);
}

Unwound unwind_ucontext(const ucontext_t &context, std::span<RawFrame> out,
                        const StackRange &range) {
  const auto reg = [&](int index) {
    return static_cast<std::uint64_t>(context.uc_mcontext.gregs[index]);
  };
  Registers registers{reg(REG_RIP), reg(REG_RSP), reg(REG_RBP), reg(REG_RBX),
                      reg(REG_R12), reg(REG_R13), reg(REG_R14), reg(REG_R15)};
  Unwound result = unwind_interrupted(registers, out, range);
  // After a call through a bad pointer there is no unwind information, but the return address is on
  // top of the stack.
  if (result.count <= 1 && out.size() > 1 && registers.rsp >= range.low &&
      registers.rsp <= range.high - 8) {
    Symbol symbol;
    if (find_symbol(registers.rip, symbol)) return result;
    out[0] = {registers.rip, false};
    registers.rip = *reinterpret_cast<const std::uint64_t *>(registers.rsp);
    registers.rsp += 8;
    result = unwind_registers(registers, out.subspan(1), range);
    ++result.count;
  }
  return result;
}

StackRange current_stack(std::uint64_t stack_pointer) {
  StackRange range;
  if (const Thread *thread = current_thread()) {
    scheduler::stack_bounds(*thread, range.low, range.high);
    if (stack_pointer >= range.low && stack_pointer < range.high) return range;
  }
  return {stack_pointer, UINT64_MAX};
}

Frame symbolise(const RawFrame &raw) {
  Frame frame;
  frame.pc = raw.pc;
  Symbol symbol;
  if (!find_symbol(raw.lookup(), symbol)) return frame;
  const std::uint64_t back = raw.pc - raw.lookup();
  frame.object = symbol.object;
  frame.file_address = symbol.file_address + back;
  if (!symbol.name[0]) return frame;
  frame.offset = symbol.offset + back;
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> demangled(
      abi::__cxa_demangle(symbol.name, nullptr, nullptr, &status), &std::free);
  frame.function = demangled ? demangled.get() : symbol.name;
  return frame;
}

std::string format_frame(const Frame &frame) {
  std::string text = fmt::format("{:#018x}", frame.pc);
  if (!frame.function.empty()) text += fmt::format(" {}+{:#x}", frame.function, frame.offset);
  if (!frame.object.empty()) {
    const std::size_t slash = frame.object.rfind('/');
    text += fmt::format(" ({}+{:#x})", frame.object.substr(slash + 1), frame.file_address);
  }
  return text;
}

std::vector<Frame> backtrace_of(const Thread &thread) {
  SavedContext saved;
  if (!scheduler::saved_context(thread, saved)) return {};
  StackRange range;
  scheduler::stack_bounds(thread, range.low, range.high);
  const auto &frame = *reinterpret_cast<const SavedFrame *>(saved.rsp);
  std::array<RawFrame, kMaxFrames> raw;
  const Unwound unwound = unwind_registers({frame.rip, saved.rsp + sizeof(SavedFrame), frame.rbp,
                                            frame.rbx, frame.r12, frame.r13, frame.r14, frame.r15},
                                           raw, range);
  return symbolise_all({raw.data(), unwound.count});
}

std::vector<Frame> backtrace_here() {
  std::array<RawFrame, kMaxFrames> raw;
  const auto here = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  const Unwound unwound = unwind_here(raw, current_stack(here));
  return symbolise_all({raw.data(), unwound.count});
}

}  // namespace cowbird::boot
