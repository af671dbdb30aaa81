// A serial port's bytes with marks of breaks: whatever comes in, in pieces or whole, gives the same
// bytes and breaks, no more than came in. And what is marked as the host's line discipline does it
// comes out as it was.
#include <cstddef>
#include <cstdint>

#include "common/marked_breaks.hpp"

namespace {

void check_order(const channels::Received &plain, std::size_t most) {
  if (plain.bytes.size() + 3 * plain.breaks.size() > most) __builtin_trap();
  std::size_t before = 0;
  for (const std::size_t place : plain.breaks) {
    if (place < before || place > plain.bytes.size()) __builtin_trap();
    before = place;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  std::string wire;
  channels::MarkedBreaks whole, pieces, marked;
  channels::Received all, some, back;
  whole.decode(bytes, all, wire);
  for (std::size_t at = 0; at < size; ++at) pieces.decode(bytes.subspan(at, 1), some, wire);
  if (all.bytes != some.bytes || all.breaks != some.breaks || !wire.empty()) __builtin_trap();
  check_order(all, size);

  std::string line;
  for (const std::byte byte : bytes) {
    line += static_cast<char>(byte);
    if (byte == std::byte{0xff}) line += '\377';
  }
  marked.decode(std::as_bytes(std::span(line)), back, wire);
  if (!back.breaks.empty() ||
      back.bytes != std::string(reinterpret_cast<const char *>(data), size)) {
    __builtin_trap();
  }
  return 0;
}
