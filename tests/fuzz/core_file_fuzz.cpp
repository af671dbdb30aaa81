// The reader of core files on any bytes: it may refuse; what it accepts can be read everywhere.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "debug/core/core_file.hpp"

using namespace cowbird;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  std::string why;
  const auto core = debug::CoreFile::parse(std::as_bytes(std::span(data, size)), why);
  if (!core) {
    if (why.empty()) std::abort();
    return 0;
  }
  if ((*core)->threads().empty()) std::abort();
  std::array<std::byte, 300> out;
  for (const std::uint64_t address : {0ull, 0x1000ull, 0x400000ull, ~0ull - 100, 1ull << 63}) {
    if (const auto got = (*core)->read_some(address, out); got && *got > out.size()) std::abort();
  }
  for (const auto &mapping : (*core)->mappings()) {
    (void)(*core)->read(mapping.start, out);
  }
  (void)(*core)->auxv_value(3);
  (void)(*core)->property("panic");
  return 0;
}
