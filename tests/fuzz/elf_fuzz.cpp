// The ELF parser on any bytes: it may refuse, but what it accepts must keep its promises.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "engine/platform.hpp"
#include "proc/elf.hpp"

using namespace cowbird;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_program(const elf::Program &program) {
  require(!program.segments.empty());
  std::uint64_t end = 0;
  for (const elf::Segment &segment : program.segments) {
    require(segment.address >= end && segment.file_size <= segment.memory_size);
    end = segment.address + segment.memory_size;
    require(end > segment.address && end <= kUserMax);
    require(segment.file_offset + segment.file_size >= segment.file_offset);
    require(segment.address >= program.low && end <= program.high);
  }
  require(page_aligned(program.low) && page_aligned(program.high));
  require((program.alignment & (program.alignment - 1)) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  (void)elf::parse_interpreter(bytes);
  const auto header = elf::parse_header(bytes);
  if (!header) return 0;
  require(header->table_bytes() <= elf::kMaxProgramHeaderBytes);
  if (header->table_offset > size || header->table_bytes() > size - header->table_offset) return 0;
  const auto program =
      elf::parse_program(*header, bytes.subspan(header->table_offset, header->table_bytes()));
  if (program) check_program(*program);
  return 0;
}
