#include "debug/rsp/register_layout.hpp"

#include <cpuid.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "debug/rsp/hex.hpp"

namespace cowbird::debug {

namespace {

constexpr unsigned kFirstSegment = 18;
constexpr std::array kOrder = {Reg::Rax, Reg::Rbx, Reg::Rcx, Reg::Rdx, Reg::Rsi, Reg::Rdi,
                               Reg::Rbp, Reg::Rsp, Reg::R8,  Reg::R9,  Reg::R10, Reg::R11,
                               Reg::R12, Reg::R13, Reg::R14, Reg::R15, Reg::Rip, Reg::Eflags,
                               Reg::Cs,  Reg::Ss,  Reg::Ds,  Reg::Es,  Reg::Fs,  Reg::Gs};
constexpr std::array<std::string_view, kOrder.size()> kNames = {
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi",    "rbp", "rsp", "r8", "r9", "r10", "r11",
    "r12", "r13", "r14", "r15", "rip", "eflags", "cs",  "ss",  "ds", "es", "fs",  "gs"};
constexpr unsigned kOrigRax = 57, kFsBase = 58, kGsBase = 59;

// The legacy region and the header of an XSAVE area (SDM volume 1, 13.4.1 and 13.4.2).
constexpr std::size_t kControlWord = 0, kTagByte = 4, kTop = 2, kStack = 32, kXmm = 160,
                      kMxcsr = 24;
constexpr std::size_t kStateBv = 512, kHeaderEnd = 576;
constexpr unsigned kX87 = 0, kSse = 1, kAvx = 2, kOpmask = 5, kZmmHigh = 6, kZmm16 = 7, kPkru = 9;
constexpr std::uint16_t kInitialControl = 0x37f;
constexpr std::uint32_t kInitialMxcsr = 0x1f80;

constexpr std::string_view kFlagsXml =
    R"(<flags id="i386_eflags" size="4">)"
    R"(<field name="CF" start="0" end="0"/><field name="" start="1" end="1"/>)"
    R"(<field name="PF" start="2" end="2"/><field name="AF" start="4" end="4"/>)"
    R"(<field name="ZF" start="6" end="6"/><field name="SF" start="7" end="7"/>)"
    R"(<field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/>)"
    R"(<field name="DF" start="10" end="10"/><field name="OF" start="11" end="11"/>)"
    R"(<field name="NT" start="14" end="14"/><field name="RF" start="16" end="16"/>)"
    R"(<field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/>)"
    R"(<field name="VIF" start="19" end="19"/><field name="VIP" start="20" end="20"/>)"
    R"(<field name="ID" start="21" end="21"/></flags>)";
constexpr std::string_view kVectorXml =
    R"(<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>)"
    R"(<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>)"
    R"(<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>)"
    R"(<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>)"
    R"(<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>)"
    R"(<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>)"
    R"(<field name="uint128" type="uint128"/></union>)";
constexpr std::string_view kMxcsrXml =
    R"(<flags id="i386_mxcsr" size="4"><field name="IE" start="0" end="0"/>)"
    R"(<field name="DE" start="1" end="1"/><field name="ZE" start="2" end="2"/>)"
    R"(<field name="OE" start="3" end="3"/><field name="UE" start="4" end="4"/>)"
    R"(<field name="PE" start="5" end="5"/><field name="DAZ" start="6" end="6"/>)"
    R"(<field name="IM" start="7" end="7"/><field name="DM" start="8" end="8"/>)"
    R"(<field name="ZM" start="9" end="9"/><field name="OM" start="10" end="10"/>)"
    R"(<field name="UM" start="11" end="11"/><field name="PM" start="12" end="12"/>)"
    R"(<field name="FZ" start="15" end="15"/></flags>)";

template <typename T>
T load(std::span<const std::byte> area, std::size_t offset) {
  T value;
  std::memcpy(&value, area.data() + offset, sizeof(value));
  return value;
}
template <typename T>
void store(std::span<std::byte> area, std::size_t offset, T value) {
  std::memcpy(area.data() + offset, &value, sizeof(value));
}

bool has_component(const Registers &registers, unsigned component) {
  return (load<std::uint64_t>(registers.xstate, kStateBv) >> component) & 1;
}

// FXSAVE keeps one bit for each x87 register, gdb wants the two of the real tag word: valid, zero,
// special or empty (SDM volume 1, 10.5.1.1).
std::uint16_t full_tag(std::span<const std::byte> area) {
  constexpr unsigned kValid = 0, kZero = 1, kSpecial = 2, kEmpty = 3;
  const auto used = load<std::uint8_t>(area, kTagByte);
  const unsigned top = (load<std::uint16_t>(area, kTop) >> 11) & 7;
  unsigned tags = 0;
  for (unsigned i = 0; i < 8; ++i) {  // i: physical register; the area has them by stack position
    unsigned tag = kEmpty;
    if ((used >> i) & 1) {
      const auto at = kStack + 16ul * ((i + 8 - top) % 8);
      const auto mantissa = load<std::uint64_t>(area, at);
      const unsigned exponent = load<std::uint16_t>(area, at + 8) & 0x7fff;
      if (exponent == 0)
        tag = mantissa == 0 ? kZero : kSpecial;
      else
        tag = exponent == 0x7fff || mantissa >> 63 == 0 ? kSpecial : kValid;
    }
    tags |= tag << (2 * i);
  }
  return static_cast<std::uint16_t>(tags);
}

std::uint8_t short_tag(std::uint16_t full) {
  unsigned used = 0;
  for (unsigned i = 0; i < 8; ++i) used |= static_cast<unsigned>(((full >> (2 * i)) & 3) != 3) << i;
  return static_cast<std::uint8_t>(used);
}

// What the area of a component in its initial state reads as.
void initial_value(std::uint32_t offset, unsigned component, std::span<std::byte> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  if (component == kX87 && offset == kControlWord) store(out, 0, kInitialControl);
  if (component == kSse && offset == kMxcsr) store(out, 0, kInitialMxcsr);
}

}  // namespace

XsaveOffsets XsaveOffsets::host() {
  XsaveOffsets offsets;
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsXsave = 1u << 27;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kOsXsave)) return offsets;
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const auto offset = [&](unsigned component) -> std::uint32_t {
    if (!((low >> component) & 1)) return 0;
    return __get_cpuid_count(0xd, component, &a, &b, &c, &d) ? b : 0;
  };
  offsets.avx = offset(kAvx);
  offsets.opmask = offset(kOpmask);
  offsets.zmm_high = offset(kZmmHigh);
  offsets.zmm_16_31 = offset(kZmm16);
  offsets.pkru = offset(kPkru);
  return offsets;
}

RegisterLayout::RegisterLayout(const XsaveOffsets &offsets,
                               std::vector<std::string> kernel_registers) {
  xml_ =
      "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
      "<architecture>i386:x86-64</architecture><osabi>GNU/Linux</osabi>";
  add_core();
  add_sse();
  begin_feature("org.gnu.gdb.i386.linux");
  add_general("orig_rax", "int", 8, Reg::OrigRax);
  end_feature();
  begin_feature("org.gnu.gdb.i386.segments");
  add_general("fs_base", "int", 8, Reg::FsBase);
  add_general("gs_base", "int", 8, Reg::GsBase);
  end_feature();
  if (offsets.avx != 0) {
    begin_feature("org.gnu.gdb.i386.avx");
    for (unsigned i = 0; i < 16; ++i)
      add_state(fmt::format("ymm{}h", i), "uint128", 16, 16, kAvx, offsets.avx + 16 * i);
    end_feature();
    if (offsets.opmask != 0 && offsets.zmm_high != 0 && offsets.zmm_16_31 != 0) add_avx512(offsets);
  }
  if (offsets.pkru != 0) {
    begin_feature("org.gnu.gdb.i386.pkeys");
    add_state("pkru", "int", 4, 4, kPkru, offsets.pkru);
    end_feature();
  }
  if (!kernel_registers.empty()) {
    begin_feature("org.cowbird.kernel");
    std::uint32_t index = 0;
    for (auto &name : kernel_registers)
      add("uint64", {std::move(name), 8, 8, Place::Kernel, 0, index++});
    end_feature();
  }
  xml_ += "</target>";
}

void RegisterLayout::add_core() {
  begin_feature("org.gnu.gdb.i386.core");
  xml_ += kFlagsXml;
  for (unsigned i = 0; i < kOrder.size(); ++i) {
    if (kOrder[i] == Reg::Rip)
      add_general(kNames[i], "code_ptr", 8, kOrder[i]);
    else if (kOrder[i] == Reg::Rbp || kOrder[i] == Reg::Rsp)
      add_general(kNames[i], "data_ptr", 8, kOrder[i]);
    else if (kOrder[i] == Reg::Eflags)
      add_general(kNames[i], "i386_eflags", 4, kOrder[i]);
    else if (i >= kFirstSegment)
      add_general(kNames[i], "int32", 4, kOrder[i]);
    else
      add_general(kNames[i], "int64", 8, kOrder[i]);
  }
  for (unsigned i = 0; i < 8; ++i)
    add_state(fmt::format("st{}", i), "i387_ext", 10, 10, kX87,
              static_cast<std::uint32_t>(kStack + 16ul * i));
  add_state("fctrl", "int", 4, 2, kX87, kControlWord);
  add_state("fstat", "int", 4, 2, kX87, kTop);
  add("int", {"ftag", 4, 1, Place::FullTag, kX87, kTagByte});
  add_state("fiseg", "int", 4, 2, kX87, 12);
  add_state("fioff", "int", 4, 4, kX87, 8);
  add_state("foseg", "int", 4, 2, kX87, 20);
  add_state("fooff", "int", 4, 4, kX87, 16);
  add_state("fop", "int", 4, 2, kX87, 6);
  end_feature();
}

void RegisterLayout::add_sse() {
  begin_feature("org.gnu.gdb.i386.sse");
  xml_ += kVectorXml;
  xml_ += kMxcsrXml;
  for (unsigned i = 0; i < 16; ++i)
    add_state(fmt::format("xmm{}", i), "vec128", 16, 16, kSse,
              static_cast<std::uint32_t>(kXmm + 16ul * i));
  add_state("mxcsr", "i386_mxcsr", 4, 4, kSse, kMxcsr);
  end_feature();
}

void RegisterLayout::add_avx512(const XsaveOffsets &offsets) {
  begin_feature("org.gnu.gdb.i386.avx512");
  xml_ += kVectorXml;
  xml_ += R"(<vector id="v2ui128" type="uint128" count="2"/>)";
  const auto high = offsets.zmm_16_31;
  for (unsigned i = 16; i < 32; ++i)
    add_state(fmt::format("xmm{}", i), "vec128", 16, 16, kZmm16, high + 64 * (i - 16));
  for (unsigned i = 16; i < 32; ++i)
    add_state(fmt::format("ymm{}h", i), "uint128", 16, 16, kZmm16, high + 64 * (i - 16) + 16);
  for (unsigned i = 0; i < 8; ++i)
    add_state(fmt::format("k{}", i), "uint64", 8, 8, kOpmask, offsets.opmask + 8 * i);
  for (unsigned i = 0; i < 16; ++i)
    add_state(fmt::format("zmm{}h", i), "v2ui128", 32, 32, kZmmHigh, offsets.zmm_high + 32 * i);
  for (unsigned i = 16; i < 32; ++i)
    add_state(fmt::format("zmm{}h", i), "v2ui128", 32, 32, kZmm16, high + 64 * (i - 16) + 32);
  end_feature();
}

void RegisterLayout::begin_feature(std::string_view name) {
  xml_ += fmt::format("<feature name=\"{}\">", name);
}
void RegisterLayout::end_feature() { xml_ += "</feature>"; }

void RegisterLayout::add(std::string_view type, Row row) {
  xml_ += fmt::format("<reg name=\"{}\" bitsize=\"{}\" type=\"{}\" regnum=\"{}\"/>", row.name,
                      8 * row.bytes, type, rows_.size());
  rows_.push_back(std::move(row));
}

void RegisterLayout::add_state(std::string name, std::string_view type, unsigned bytes,
                               unsigned stored, unsigned component, std::uint32_t offset) {
  add(type, {std::move(name), static_cast<std::uint8_t>(bytes), static_cast<std::uint8_t>(stored),
             Place::State, static_cast<std::uint8_t>(component), offset});
}

void RegisterLayout::add_general(std::string_view name, std::string_view type, unsigned bytes,
                                 Reg reg) {
  add(type, {std::string(name), static_cast<std::uint8_t>(bytes), static_cast<std::uint8_t>(bytes),
             Place::General, 0, static_cast<std::uint32_t>(reg)});
}

// False: unknown. `out` has row.bytes.
bool RegisterLayout::read(const Row &row, const Registers &registers,
                          std::span<std::byte> out) const {
  std::fill(out.begin(), out.end(), std::byte{0});
  switch (row.place) {
    case Place::General: {
      const auto reg = static_cast<Reg>(row.where);
      if (!registers.has(reg)) return false;
      const auto value = registers.get(reg);
      std::memcpy(out.data(), &value, row.bytes);
      return true;
    }
    case Place::Kernel:
      if (row.where >= registers.kernel.size() || !registers.kernel[row.where]) return false;
      std::memcpy(out.data(), &*registers.kernel[row.where], row.bytes);
      return true;
    case Place::FullTag:
      if (registers.xstate.size() < kHeaderEnd) return false;
      store<std::uint16_t>(out, 0,
                           has_component(registers, kX87) ? full_tag(registers.xstate) : 0xffff);
      return true;
    case Place::State:
      if (registers.xstate.size() < std::max<std::size_t>(kHeaderEnd, row.where + row.stored))
        return false;
      if (has_component(registers, row.component))
        std::memcpy(out.data(), registers.xstate.data() + row.where, row.stored);
      else
        initial_value(row.where, row.component, out);
      return true;
  }
  return false;
}

Result<void> RegisterLayout::write(const Row &row, Registers &registers,
                                   std::span<const std::byte> in) const {
  std::uint64_t value = 0;
  std::memcpy(&value, in.data(), std::min<std::size_t>(in.size(), sizeof(value)));
  if (row.place == Place::General) {
    registers.set(static_cast<Reg>(row.where), value);
    return {};
  }
  if (row.place == Place::Kernel) return Err(Errno::NoEnt);  // they say what is; nothing is set
  auto &area = registers.xstate;
  if (area.size() < std::max<std::size_t>(kHeaderEnd, row.where + row.stored))
    return Err(Errno::OpNotSupp);
  if (!has_component(registers, row.component)) {
    // The component has bytes of its own from here on: all that are not written are initial.
    for (const auto &other : rows_) {
      if ((other.place != Place::State && other.place != Place::FullTag) ||
          other.component != row.component || other.where + other.stored > area.size())
        continue;
      initial_value(other.where, other.component,
                    std::span(area).subspan(other.where, other.stored));
    }
    store(area, kStateBv, load<std::uint64_t>(area, kStateBv) | std::uint64_t{1} << row.component);
  }
  if (row.place == Place::FullTag)
    store(area, kTagByte, short_tag(static_cast<std::uint16_t>(value)));
  else
    std::memcpy(area.data() + row.where, in.data(), row.stored);
  return {};
}

Result<void> RegisterLayout::append(std::string &out, unsigned number,
                                    const Registers &registers) const {
  if (number >= rows_.size()) return Err(Errno::NoEnt);
  std::array<std::byte, 64> bytes;
  const auto &row = rows_[number];
  const auto value = std::span(bytes).first(row.bytes);
  if (read(row, registers, value))
    append_hex(out, value);
  else
    out.append(2ul * row.bytes, 'x');
  return {};
}

std::string RegisterLayout::pack(const Registers &registers) const {
  std::string out;
  for (unsigned i = 0; i < rows_.size(); ++i) (void)append(out, i, registers);
  return out;
}

Result<void> RegisterLayout::set(Registers &registers, unsigned number,
                                 std::string_view hex) const {
  if (number >= rows_.size()) return Err(Errno::NoEnt);
  const auto &row = rows_[number];
  const auto bytes = from_hex(hex);
  if (!bytes || bytes->size() != row.bytes) return Err(Errno::Inval);
  return write(row, registers, *bytes);
}

Result<void> RegisterLayout::unpack(Registers &registers, std::string_view hex) const {
  for (unsigned i = 0; i < rows_.size() && !hex.empty(); ++i) {
    const auto digits = hex.substr(0, 2ul * rows_[i].bytes);
    hex.remove_prefix(digits.size());
    if (digits.find_first_not_of('x') == std::string_view::npos) continue;
    if (rows_[i].place == Place::Kernel) continue;
    const auto done = set(registers, i, digits);
    // A thread without extended state: gdb sends back the rest of what it read.
    if (!done && !done.is(Errno::OpNotSupp)) return done;
  }
  if (!hex.empty()) return Err(Errno::Inval);
  return {};
}

Result<std::uint64_t> RegisterLayout::value(unsigned number, const Registers &registers) const {
  if (number >= rows_.size() || rows_[number].bytes > 8) return Err(Errno::NoEnt);
  std::array<std::byte, 8> bytes{};
  if (!read(rows_[number], registers, std::span(bytes).first(rows_[number].bytes)))
    return Err(Errno::NoEnt);
  return load<std::uint64_t>(bytes, 0);
}

Result<Reg> general_register(unsigned number) {
  if (number < kOrder.size()) return kOrder[number];
  if (number == kOrigRax) return Reg::OrigRax;
  if (number == kFsBase) return Reg::FsBase;
  if (number == kGsBase) return Reg::GsBase;
  return Err(Errno::NoEnt);
}

}  // namespace cowbird::debug
