// The ELF parser of execve: from the bytes of a program's headers to what must be mapped. Pure;
// works on bytes that anybody may have written, so every number is checked. Fuzzed (tests/fuzz).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"

namespace cowbird::elf {

inline constexpr std::size_t kHeaderBytes = 64;
// As on Linux: a table of program headers is at most this long.
inline constexpr std::uint64_t kMaxProgramHeaderBytes = 65536;
inline constexpr std::uint64_t kMaxInterpreterName = 4096;

struct Header {
  bool position_independent = false;
  std::uint64_t entry = 0;
  std::uint64_t table_offset = 0;
  std::uint16_t count = 0;
  std::uint64_t table_bytes() const { return std::uint64_t{count} * 56; }
};

// A PT_LOAD segment; addresses are the file's own, without the load bias.
struct Segment {
  std::uint64_t address = 0, memory_size = 0, file_offset = 0, file_size = 0;
  bool read = false, write = false, execute = false;
};

struct Program {
  Header header;
  std::vector<Segment> segments;        // ascending, not overlapping; at least one
  std::uint64_t low = 0, high = 0;      // page-aligned bounds of the segments
  std::uint64_t alignment = kPageSize;  // of the load bias
  std::uint64_t table_address = 0;      // where the program headers are in memory; 0: nowhere
  std::uint64_t interpreter_offset = 0, interpreter_size = 0;  // with the final zero; 0: none
  bool executable_stack = false;
};

// `bytes` begins with the file; at least kHeaderBytes. NoExec when it is no x86-64 program.
Result<Header> parse_header(std::span<const std::byte> bytes);
// `table` is the program header table (table_bytes() long). NoExec when something does not fit.
Result<Program> parse_program(const Header &header, std::span<const std::byte> table);
// The interpreter's name from its bytes in the file: one string with a final zero. NoExec.
Result<std::string_view> parse_interpreter(std::span<const std::byte> bytes);

}  // namespace cowbird::elf
