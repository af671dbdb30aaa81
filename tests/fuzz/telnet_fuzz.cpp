// The telnet server's protocol on any bytes of a client, in pieces of any size. Whatever comes in,
// the guest's input is no longer than what the client sent.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "port/telnet_codec.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  channels::TelnetCodec codec;
  channels::Received plain;
  std::string wire;
  codec.start(wire);
  auto bytes = std::as_bytes(std::span(data, size));
  std::size_t total = 0;
  while (!bytes.empty()) {
    // The first byte of a piece is its length.
    const std::size_t length =
        std::min<std::size_t>(std::to_integer<std::size_t>(bytes[0]) + 1, bytes.size() - 1);
    const auto piece = bytes.subspan(1, length);
    bytes = bytes.subspan(1 + length);
    total += length;
    if (!codec.decode(piece, plain, wire)) {
      codec.start(wire);  // the next client
      (void)codec.take_window_change();
      continue;
    }
    if (plain.bytes.size() + plain.breaks.size() > total) __builtin_trap();
    for (std::size_t before = 0; const std::size_t place : plain.breaks) {
      if (place < std::exchange(before, place) || place > plain.bytes.size()) __builtin_trap();
    }
    // What the guest answers with, all bytes among it.
    codec.encode(piece, wire);
    if (codec.take_window_change() && !codec.window()) __builtin_trap();
  }
  return 0;
}
