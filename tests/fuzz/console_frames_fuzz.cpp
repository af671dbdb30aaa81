// Streams of an attached console, from either side: the frames and what is in them.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "tty/console_protocol.hpp"

using namespace cowbird::console_protocol;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  FrameReader reader;
  const auto bytes = std::as_bytes(std::span(data, size));
  // The first byte says how the stream is cut.
  const std::size_t piece = size > 0 ? data[0] + 1U : 1U;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    reader.feed(bytes.subspan(at, std::min(piece, bytes.size() - at)));
    while (const auto frame = reader.next()) {
      if (frame->payload.size() > kMaxPayload) std::abort();
      if (const auto hello = parse_hello(frame->payload)) {
        std::vector<std::byte> out;
        append_hello(out, *hello);
        const auto again = parse_hello(std::span<const std::byte>(out).subspan(kHeaderSize));
        if (!again || again->device != hello->device) std::abort();
      }
      if (parse_welcome(frame->payload)) text_of(frame->payload);
      parse_window(frame->payload);
    }
    if (reader.buffered() > kMaxPayload + kHeaderSize + piece) std::abort();
  }
  return 0;
}
