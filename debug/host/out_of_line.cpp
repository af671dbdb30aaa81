#include "debug/host/out_of_line.hpp"

#include <Zydis/Zydis.h>
#include <sys/ucontext.h>

#include <algorithm>
#include <cstring>

#include "debug/host/code_patches.hpp"

namespace cowbird::debug {
namespace {

// What may stand in for rip: registers whose code needs no prefix and no SIB byte.
struct StandIn {
  int code;
  ZydisRegister name;
  unsigned long long user_regs_struct::*member;
  int saved;  // its index in a signal frame
};
constexpr StandIn kStandIns[] = {
    {0, ZYDIS_REGISTER_RAX, &user_regs_struct::rax, REG_RAX},
    {1, ZYDIS_REGISTER_RCX, &user_regs_struct::rcx, REG_RCX},
    {2, ZYDIS_REGISTER_RDX, &user_regs_struct::rdx, REG_RDX},
    {3, ZYDIS_REGISTER_RBX, &user_regs_struct::rbx, REG_RBX},
    {6, ZYDIS_REGISTER_RSI, &user_regs_struct::rsi, REG_RSI},
    {7, ZYDIS_REGISTER_RDI, &user_regs_struct::rdi, REG_RDI},
};

const ZydisDecoder &decoder() {
  static const ZydisDecoder made = [] {
    ZydisDecoder value;
    ZydisDecoderInit(&value, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return value;
  }();
  return made;
}

bool uses(const ZydisDecodedInstruction &instruction, const ZydisDecodedOperand *operands,
          ZydisRegister wanted) {
  const auto is = [&](ZydisRegister name) {
    return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, name) == wanted;
  };
  for (unsigned i = 0; i < instruction.operand_count; ++i) {
    const ZydisDecodedOperand &operand = operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER && is(operand.reg.value)) return true;
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY &&
        (is(operand.mem.base) || is(operand.mem.index))) {
      return true;
    }
  }
  return false;
}

// Makes [rip + d] an operand [register + d].
Result<void> replace_rip(OutOfLine &out, const ZydisDecodedInstruction &instruction,
                         const ZydisDecodedOperand *operands) {
  if (instruction.address_width != 64) return Err(Errno::Inval);
  const auto chosen =
      std::find_if(std::begin(kStandIns), std::end(kStandIns),
                   [&](const StandIn &one) { return !uses(instruction, operands, one.name); });
  if (chosen == std::end(kStandIns)) return Err(Errno::Inval);
  const auto set = [&](unsigned offset, unsigned clear, unsigned value) {
    out.code[offset] =
        (out.code[offset] & static_cast<std::byte>(~clear)) | static_cast<std::byte>(value);
  };
  set(instruction.raw.modrm.offset, 0xc7, 0x80u | static_cast<unsigned>(chosen->code));
  switch (instruction.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
      if (instruction.attributes & ZYDIS_ATTRIB_HAS_REX) set(instruction.raw.rex.offset, 0x01, 0);
      break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
      if (instruction.raw.vex.size == 3) set(instruction.raw.vex.offset + 1u, 0, 0x20);
      break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
      set(instruction.raw.evex.offset + 1u, 0, 0x60);
      break;
    default:
      return Err(Errno::Inval);
  }
  out.base_register = chosen->code;
  return {};
}

const StandIn &stand_in_of(int code) {
  const auto found = std::find_if(std::begin(kStandIns), std::end(kStandIns),
                                  [=](const StandIn &one) { return one.code == code; });
  return found == std::end(kStandIns) ? kStandIns[0] : *found;
}

// Notes the step in the program's journal while it lives.
class NotedStep {
 public:
  NotedStep(Tracee &tracee, const CodePatches &patches, const CodePatches::Step &step)
      : tracee_(tracee), patches_(patches), tid_(static_cast<pid_t>(step.tid)) {
    patches_.note_step(tracee_, step);
  }
  ~NotedStep() {
    if (tracee_.is_stopped(tid_)) tracee_.flush(tid_);  // it stands right before nothing is noted
    patches_.note_step(tracee_, {});
  }
  NotedStep(const NotedStep &) = delete;
  NotedStep &operator=(const NotedStep &) = delete;

 private:
  Tracee &tracee_;
  const CodePatches &patches_;
  pid_t tid_;
};

}  // namespace

Result<OutOfLine> OutOfLine::decode(std::span<const std::byte> bytes) {
  ZydisDecodedInstruction instruction;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  if (!ZYAN_SUCCESS(
          ZydisDecoderDecodeFull(&decoder(), bytes.data(), bytes.size(), &instruction, operands)) ||
      instruction.length > 15) {
    return Err(Errno::Inval);
  }
  OutOfLine out;
  out.length = instruction.length;
  std::copy_n(bytes.begin(), instruction.length, out.code.begin());
  out.code[instruction.length] = kInt3;
  const auto category = instruction.meta.category;
  const bool branch = category == ZYDIS_CATEGORY_CALL || category == ZYDIS_CATEGORY_RET ||
                      category == ZYDIS_CATEGORY_UNCOND_BR || category == ZYDIS_CATEGORY_COND_BR;
  const bool immediate =
      instruction.operand_count > 0 && operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  out.branch = branch;
  out.call = category == ZYDIS_CATEGORY_CALL;
  if (branch && immediate) out.displacement = operands[0].imm.value.s;
  out.absolute = branch && (category == ZYDIS_CATEGORY_RET || !immediate);
  // Interrupts, far branches and what the CPU only gives to the host's kernel.
  if (category == ZYDIS_CATEGORY_INTERRUPT || category == ZYDIS_CATEGORY_SYSRET ||
      instruction.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
    return Err(Errno::Inval);
  }
  out.system_call = instruction.mnemonic == ZYDIS_MNEMONIC_SYSCALL;
  out.repeated = (instruction.attributes &
                  (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0 &&
                 !branch;
  const bool rip_relative = (instruction.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0 &&
                            instruction.raw.modrm.mod == 0 && instruction.raw.modrm.rm == 5;
  if (rip_relative) TRY(replace_rip(out, instruction, operands));
  return out;
}

Result<OutOfLineRun> run_out_of_line(Tracee &tracee, pid_t tid, std::span<const std::byte> bytes,
                                     std::uint64_t scratch, const CodePatches &patches) {
  const OutOfLine plan = TRY(OutOfLine::decode(bytes));
  TRY(tracee.write(scratch, {plan.code.data(), plan.length + 1u}));
  user_regs_struct *before = tracee.change_registers(tid);
  if (before == nullptr) return Err(Errno::Srch);
  const std::uint64_t place = before->rip;
  const StandIn &stand_in = stand_in_of(plan.base_register);
  const auto member = stand_in.member;
  const std::uint64_t saved = before->*member;
  CodePatches::Step step{static_cast<std::uint64_t>(tid), place, scratch, plan.length};
  step.displacement = static_cast<std::uint64_t>(plan.displacement);
  step.call = plan.call ? 1 : 0;
  if (plan.base_register >= 0) {
    step.stand_in = static_cast<std::uint64_t>(stand_in.saved) + 1;
    step.value = saved;
  }
  const NotedStep noted(tracee, patches, step);
  if (plan.base_register >= 0) before->*member = place + plan.length;
  before->rip = scratch;

  const RunHow how = plan.system_call ? RunHow::Syscall
                     : plan.repeated  ? RunHow::Continue
                                      : RunHow::Step;
  std::optional<TraceEvent> event;
  do {
    tracee.resume(tid, how);
    event = tracee.wait(tid);
  } while (event && (event->kind == TraceKind::Interrupted || event->kind == TraceKind::Clone));
  OutOfLineRun run;
  if (!event || !tracee.is_stopped(tid)) {
    run.result = StepResult::Gone;
    if (event) run.event = *event;
    return run;
  }
  run.event = *event;
  user_regs_struct *after = tracee.change_registers(tid);
  if (after == nullptr) return Err(Errno::Srch);
  if (plan.base_register >= 0) after->*member = saved;

  if (event->kind == TraceKind::Syscall) {
    after->rip = place + plan.length;
    after->rcx = after->rip;
    run.result = StepResult::Entered;
    return run;
  }
  const std::uint64_t behind = scratch + plan.length;
  const bool done =
      event->kind == TraceKind::Signal && event->value == SIGTRAP && after->rip != scratch;
  if (plan.repeated && after->rip == behind + 1) after->rip = behind;
  if (!plan.absolute || after->rip == scratch) after->rip += place - scratch;
  if (!done) {
    run.result = StepResult::Signalled;
    return run;
  }
  tracee.set_signal(tid, 0);
  if (plan.call) {
    const std::uint64_t back = place + plan.length;
    TRY(tracee.write(after->rsp, std::as_bytes(std::span(&back, 1))));
  }
  return run;
}

}  // namespace cowbird::debug
