#include "debug/rsp/agent_expression.hpp"

#include <array>
#include <limits>

namespace cowbird::debug {

namespace {

// The opcodes of the manual's "Bytecode Descriptions".
enum class Op : std::uint8_t {
  Add = 0x02,
  Sub = 0x03,
  Mul = 0x04,
  DivSigned = 0x05,
  DivUnsigned = 0x06,
  RemSigned = 0x07,
  RemUnsigned = 0x08,
  Lsh = 0x09,
  RshSigned = 0x0a,
  RshUnsigned = 0x0b,
  LogNot = 0x0e,
  BitAnd = 0x0f,
  BitOr = 0x10,
  BitXor = 0x11,
  BitNot = 0x12,
  Equal = 0x13,
  LessSigned = 0x14,
  LessUnsigned = 0x15,
  Ext = 0x16,
  Ref8 = 0x17,
  Ref16 = 0x18,
  Ref32 = 0x19,
  Ref64 = 0x1a,
  IfGoto = 0x20,
  Goto = 0x21,
  Const8 = 0x22,
  Const16 = 0x23,
  Const32 = 0x24,
  Const64 = 0x25,
  GetReg = 0x26,
  End = 0x27,
  Dup = 0x28,
  Pop = 0x29,
  ZeroExt = 0x2a,
  Swap = 0x2b,
  Pick = 0x32,
  Rot = 0x33,
};

enum class Support : std::uint8_t { Unknown, Yes, No };
struct Shape {
  Support support = Support::Unknown;
  std::uint8_t operand = 0;  // bytes after the opcode
};

constexpr std::array<Shape, 256> make_shapes() {
  std::array<Shape, 256> shapes{};
  for (unsigned op = 0x02; op <= 0x0b; ++op) shapes[op] = {Support::Yes, 0};
  for (unsigned op = 0x0e; op <= 0x15; ++op) shapes[op] = {Support::Yes, 0};
  for (unsigned op = 0x17; op <= 0x1a; ++op) shapes[op] = {Support::Yes, 0};
  for (unsigned op = 0x1b; op <= 0x1f; ++op) shapes[op] = {Support::No, 0};  // floating point
  for (unsigned op : {0x27u, 0x28u, 0x29u, 0x2bu, 0x33u}) shapes[op] = {Support::Yes, 0};
  for (unsigned op : {0x16u, 0x22u, 0x2au, 0x32u}) shapes[op] = {Support::Yes, 1};
  for (unsigned op : {0x20u, 0x21u, 0x23u, 0x26u}) shapes[op] = {Support::Yes, 2};
  shapes[0x24] = {Support::Yes, 4};
  shapes[0x25] = {Support::Yes, 8};
  shapes[0x01] = {Support::No, 0};                                   // float
  for (unsigned op : {0x0cu, 0x2fu}) shapes[op] = {Support::No, 0};  // trace, tracenz
  shapes[0x0d] = {Support::No, 1};                                   // trace_quick
  for (unsigned op : {0x2cu, 0x2du, 0x2eu, 0x30u})
    shapes[op] = {Support::No, 2};  // trace variables
  return shapes;
}
constexpr auto kShapes = make_shapes();

std::uint64_t big_endian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (auto b : bytes) value = (value << 8) | std::to_integer<std::uint64_t>(b);
  return value;
}

std::int64_t as_signed(std::uint64_t v) { return static_cast<std::int64_t>(v); }

std::uint64_t sign_extend(std::uint64_t v, unsigned bits) {
  if (bits >= 64) return v;
  const unsigned gap = 64 - bits;
  return static_cast<std::uint64_t>(as_signed(v << gap) >> gap);
}

std::uint64_t zero_extend(std::uint64_t v, unsigned bits) {
  return bits >= 64 ? v : v & ((std::uint64_t{1} << bits) - 1);
}

// Division as the processor has it, but for the one quotient that does not fit: it wraps.
Result<std::uint64_t> divide(Op op, std::uint64_t a, std::uint64_t b) {
  if (b == 0) return Err(Errno::Inval);
  const bool wraps = as_signed(a) == std::numeric_limits<std::int64_t>::min() && as_signed(b) == -1;
  switch (op) {
    case Op::DivSigned:
      return wraps ? a : static_cast<std::uint64_t>(as_signed(a) / as_signed(b));
    case Op::RemSigned:
      return wraps ? std::uint64_t{0} : static_cast<std::uint64_t>(as_signed(a) % as_signed(b));
    case Op::DivUnsigned:
      return a / b;
    default:
      return a % b;
  }
}

// An operator with two operands: `a` was pushed before `b`.
Result<std::uint64_t> binary(Op op, std::uint64_t a, std::uint64_t b) {
  switch (op) {
    case Op::Add:
      return a + b;
    case Op::Sub:
      return a - b;
    case Op::Mul:
      return a * b;
    case Op::Lsh:
      return b < 64 ? a << b : 0;
    case Op::RshSigned:
      return static_cast<std::uint64_t>(as_signed(a) >> (b < 64 ? b : 63));
    case Op::RshUnsigned:
      return b < 64 ? a >> b : 0;
    case Op::BitAnd:
      return a & b;
    case Op::BitOr:
      return a | b;
    case Op::BitXor:
      return a ^ b;
    case Op::Equal:
      return a == b;
    case Op::LessSigned:
      return as_signed(a) < as_signed(b);
    case Op::LessUnsigned:
      return a < b;
    default:
      return divide(op, a, b);
  }
}

// One evaluation: the stack and what the expression reads.
class Machine {
 public:
  Machine(std::span<const std::byte> code, const AgentContext &context)
      : code_(code), context_(context) {}

  Result<std::uint64_t> run() {
    for (unsigned steps = 0; steps < AgentExpression::kMaxSteps; ++steps) {
      const auto op = static_cast<Op>(code_[pc_]);
      const auto operand =
          big_endian(code_.subspan(pc_ + 1, kShapes[static_cast<std::size_t>(op)].operand));
      if (op == Op::End) return pop();
      pc_ += 1 + kShapes[static_cast<std::size_t>(op)].operand;
      TRY(step(op, operand));
    }
    return Err(Errno::Range);
  }

 private:
  Result<void> step(Op op, std::uint64_t operand) {
    switch (op) {
      case Op::Goto:
        pc_ = operand;
        return {};
      case Op::IfGoto:
        if (TRY(pop()) != 0) pc_ = operand;
        return {};
      case Op::Const8:
      case Op::Const16:
      case Op::Const32:
      case Op::Const64:
        return push(operand);
      case Op::GetReg:
        return push(TRY(context_.read_register(static_cast<unsigned>(operand))));
      case Op::LogNot:
        return push(TRY(pop()) == 0);
      case Op::BitNot:
        return push(~TRY(pop()));
      case Op::Ext:
        return push(sign_extend(TRY(pop()), static_cast<unsigned>(operand)));
      case Op::ZeroExt:
        return push(zero_extend(TRY(pop()), static_cast<unsigned>(operand)));
      case Op::Ref8:
        return reference(1);
      case Op::Ref16:
        return reference(2);
      case Op::Ref32:
        return reference(4);
      case Op::Ref64:
        return reference(8);
      case Op::Pop:
        TRY(pop());
        return {};
      case Op::Dup:
        return pick(0);
      case Op::Pick:
        return pick(operand);
      case Op::Swap:
        return rotate(2);
      case Op::Rot:
        return rotate(3);
      default: {
        const auto b = TRY(pop());
        const auto a = TRY(pop());
        return push(TRY(binary(op, a, b)));
      }
    }
  }

  Result<void> push(std::uint64_t v) {
    if (depth_ == stack_.size()) return Err(Errno::Range);
    stack_[depth_++] = v;
    return {};
  }
  Result<std::uint64_t> pop() {
    if (depth_ == 0) return Err(Errno::Range);
    return stack_[--depth_];
  }
  Result<void> pick(std::uint64_t below) {
    if (below >= depth_) return Err(Errno::Range);
    return push(stack_[depth_ - 1 - below]);
  }
  // The top goes below the next `count` - 1.
  Result<void> rotate(std::size_t count) {
    if (depth_ < count) return Err(Errno::Range);
    const auto top = stack_[depth_ - 1];
    for (std::size_t i = 1; i < count; ++i) stack_[depth_ - i] = stack_[depth_ - i - 1];
    stack_[depth_ - count] = top;
    return {};
  }
  Result<void> reference(std::size_t size) {
    const auto address = TRY(pop());
    std::array<std::byte, 8> bytes{};
    if (!context_.read_memory(address, std::span(bytes).first(size))) return Err(Errno::Fault);
    std::uint64_t value = 0;
    for (std::size_t i = size; i-- > 0;)
      value = (value << 8) | std::to_integer<std::uint64_t>(bytes[i]);
    return push(value);
  }

  std::span<const std::byte> code_;
  const AgentContext &context_;
  std::array<std::uint64_t, AgentExpression::kMaxStack> stack_{};
  std::size_t depth_ = 0;
  std::size_t pc_ = 0;
};

}  // namespace

Result<AgentExpression> AgentExpression::parse(std::span<const std::byte> code) {
  if (code.empty() || code.size() > kMaxCode) return Err(Errno::Inval);
  std::vector<bool> starts(code.size());
  bool supported = true;
  Op last{};
  for (std::size_t at = 0; at < code.size();) {
    const auto &shape = kShapes[std::to_integer<std::size_t>(code[at])];
    if (shape.support == Support::Unknown || shape.operand >= code.size() - at)
      return Err(Errno::Inval);
    supported &= shape.support == Support::Yes;
    last = static_cast<Op>(code[at]);
    if (last == Op::Ext || last == Op::ZeroExt) {
      const auto bits = std::to_integer<unsigned>(code[at + 1]);
      if (bits == 0 || bits > 64) return Err(Errno::Inval);
    }
    starts[at] = true;
    at += 1 + shape.operand;
  }
  if (last != Op::End && last != Op::Goto) return Err(Errno::Inval);
  for (std::size_t at = 0; at < code.size(); ++at) {
    const auto op = static_cast<Op>(code[at]);
    if (!starts[at] || (op != Op::Goto && op != Op::IfGoto)) continue;
    const auto to = big_endian(code.subspan(at + 1, 2));
    if (to >= code.size() || !starts[to]) return Err(Errno::Inval);
  }
  if (!supported) return Err(Errno::OpNotSupp);
  return AgentExpression(std::vector(code.begin(), code.end()));
}

Result<std::uint64_t> AgentExpression::evaluate(const AgentContext &context) const {
  return Machine(code_, context).run();
}

}  // namespace cowbird::debug
