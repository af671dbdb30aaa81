// The ELF parser.
#include "proc/elf.hpp"

#include <algorithm>
#include <cstring>

#include "abi/elf.hpp"
#include "engine/platform.hpp"

namespace cowbird::elf {
namespace {

constexpr std::uint8_t kMagic[] = {0x7f, 'E', 'L', 'F'};
constexpr std::uint8_t kClass64 = 2;
constexpr std::uint8_t kLittleEndian = 1;
constexpr std::uint64_t kMaxAlignment = 1ull << 30;

template <typename T>
T load(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

bool is_power_of_two(std::uint64_t value) { return value != 0 && (value & (value - 1)) == 0; }

// The segment lies inside the guest's address space and can be mapped page by page.
bool fits(const abi::Elf64Phdr &h) {
  std::uint64_t end;
  if (h.filesz > h.memsz) return false;
  if (__builtin_add_overflow(h.vaddr, h.memsz, &end) || end > kUserMax) return false;
  if (__builtin_add_overflow(h.offset, h.filesz, &end) || end > INT64_MAX - kPageSize) return false;
  return (h.vaddr & kPageMask) == (h.offset & kPageMask) || h.filesz == 0;
}

Result<void> add_segment(Program &program, const abi::Elf64Phdr &h) {
  if (h.memsz == 0) return {};
  if (!fits(h)) return Err(Errno::NoExec);
  if (!program.segments.empty()) {
    const Segment &last = program.segments.back();
    if (h.vaddr < last.address + last.memory_size) return Err(Errno::NoExec);
  }
  Segment segment;
  segment.address = h.vaddr;
  segment.memory_size = h.memsz;
  segment.file_offset = h.offset;
  segment.file_size = h.filesz;
  segment.read = (h.flags & abi::kPF_R) != 0;
  segment.write = (h.flags & abi::kPF_W) != 0;
  segment.execute = (h.flags & abi::kPF_X) != 0;
  program.segments.push_back(segment);
  if (is_power_of_two(h.align) && h.align <= kMaxAlignment) {
    program.alignment = std::max(program.alignment, h.align);
  }
  // The headers are in memory when a segment covers them in the file.
  const Header &header = program.header;
  const std::uint64_t table_end = header.table_offset + header.table_bytes();
  if (h.offset <= header.table_offset && table_end <= h.offset + h.filesz) {
    program.table_address = h.vaddr + (header.table_offset - h.offset);
  }
  return {};
}

Result<void> add_header(Program &program, const abi::Elf64Phdr &h) {
  switch (h.type) {
    case abi::kPT_LOAD:
      return add_segment(program, h);
    case abi::kPT_INTERP:
      if (program.interpreter_size != 0) return {};
      if (h.filesz < 2 || h.filesz > kMaxInterpreterName || h.offset > INT64_MAX - h.filesz) {
        return Err(Errno::NoExec);
      }
      program.interpreter_offset = h.offset;
      program.interpreter_size = h.filesz;
      return {};
    case abi::kPT_GNU_STACK:
      program.executable_stack = (h.flags & abi::kPF_X) != 0;
      return {};
    default:
      return {};
  }
}

}  // namespace

Result<Header> parse_header(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) return Err(Errno::NoExec);
  const auto h = load<abi::Elf64Ehdr>(bytes, 0);
  if (!std::equal(std::begin(kMagic), std::end(kMagic), h.ident)) return Err(Errno::NoExec);
  if (h.ident[4] != kClass64 || h.ident[5] != kLittleEndian) return Err(Errno::NoExec);
  if (h.type != abi::kET_EXEC && h.type != abi::kET_DYN) return Err(Errno::NoExec);
  if (h.machine != abi::kEM_X86_64) return Err(Errno::NoExec);
  if (h.phentsize != sizeof(abi::Elf64Phdr) || h.phnum == 0) return Err(Errno::NoExec);
  Header header;
  header.position_independent = h.type == abi::kET_DYN;
  header.entry = h.entry;
  header.table_offset = h.phoff;
  header.count = h.phnum;
  if (header.table_bytes() > kMaxProgramHeaderBytes) return Err(Errno::NoExec);
  if (h.phoff > INT64_MAX - header.table_bytes()) return Err(Errno::NoExec);
  return header;
}

Result<Program> parse_program(const Header &header, std::span<const std::byte> table) {
  if (table.size() < header.table_bytes()) return Err(Errno::NoExec);
  Program program;
  program.header = header;
  for (std::size_t i = 0; i < header.count; ++i) {
    TRY(add_header(program, load<abi::Elf64Phdr>(table, i * sizeof(abi::Elf64Phdr))));
  }
  if (program.segments.empty()) return Err(Errno::NoExec);
  const Segment &first = program.segments.front();
  const Segment &last = program.segments.back();
  program.low = page_down(first.address);
  program.high = page_up(last.address + last.memory_size);
  if (!header.position_independent && program.low < kUserMin) return Err(Errno::NoExec);
  if (header.entry >= kUserMax) return Err(Errno::NoExec);
  return program;
}

Result<std::string_view> parse_interpreter(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  if (text.size() < 2 || text.back() != '\0') return Err(Errno::NoExec);
  const std::string_view name = text.substr(0, text.find('\0'));
  if (name.empty()) return Err(Errno::NoExec);
  return name;
}

}  // namespace cowbird::elf
