// RegisterLayout: which registers gdb is told of (target.xml), in which order, and where each one
// lies in `Registers`. The numbers are gdb's for amd64; what lies in the XSAVE area follows the
// processor (SDM volume 1, chapter 13; CPUID leaf 0xD). Sessions use it, and targets for what a
// condition reads (AgentContext).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

// Offsets of the XSAVE components in the standard form; 0: this processor or host lacks it.
struct XsaveOffsets {
  std::uint32_t avx = 0, opmask = 0, zmm_high = 0, zmm_16_31 = 0, pkru = 0;
  static XsaveOffsets host();
};

class RegisterLayout {
 public:
  // `kernel_registers`: names of 64-bit registers that the target adds (Target::kernel_registers).
  RegisterLayout(const XsaveOffsets &offsets, std::vector<std::string> kernel_registers);

  const std::string &target_xml() const { return xml_; }
  std::size_t count() const { return rows_.size(); }

  // The value in target byte order as hex digits, "xx" for each byte of one that is unknown.
  // NoEnt: no such register.
  Result<void> append(std::string &out, unsigned number, const Registers &registers) const;
  // The reply to `g`.
  std::string pack(const Registers &registers) const;
  // Sets one register from a packet. Inval: wrong number of digits; NoEnt: no such register or one
  // that cannot be set; OpNotSupp: it lies in an extended state that the thread has not got.
  Result<void> set(Registers &registers, unsigned number, std::string_view hex) const;
  // Sets what a `G` packet has; registers of "xx" stay. Inval: it is too long or not hex.
  Result<void> unpack(Registers &registers, std::string_view hex) const;

  // A condition's operand. NoEnt: unknown here, or wider than 64 bits.
  Result<std::uint64_t> value(unsigned number, const Registers &registers) const;
  // The general registers that a stop reply carries: gdb needs no `g` to unwind with them.
  static constexpr unsigned kExpedited = 17;  // rax to r15, rip

 private:
  enum class Place : std::uint8_t { General, State, FullTag, Kernel };
  struct Row {
    std::string name;
    std::uint8_t bytes;   // in packets
    std::uint8_t stored;  // in the XSAVE area; the rest reads as 0
    Place place;
    std::uint8_t component;  // State: bit of XSTATE_BV
    std::uint32_t where;     // General: a Reg; State: offset; Kernel: index
  };
  void add_core();
  void add_sse();
  void add_avx512(const XsaveOffsets &offsets);
  void begin_feature(std::string_view name);
  void end_feature();
  void add(std::string_view type, Row row);
  void add_state(std::string name, std::string_view type, unsigned bytes, unsigned stored,
                 unsigned component, std::uint32_t offset);
  void add_general(std::string_view name, std::string_view type, unsigned bytes, Reg reg);
  bool read(const Row &row, const Registers &registers, std::span<std::byte> out) const;
  Result<void> write(const Row &row, Registers &registers, std::span<const std::byte> in) const;

  std::vector<Row> rows_;
  std::string xml_;
};

// The general register with this number in gdb's order.
Result<Reg> general_register(unsigned number);

}  // namespace cowbird::debug
