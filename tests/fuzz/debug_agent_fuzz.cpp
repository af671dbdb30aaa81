// What the debug agent makes of the bytes of a client: headers and requests, one after another.
#include <cstdlib>
#include <span>

#include "debug_agent/protocol.hpp"

using namespace cowbird;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  std::span<const std::byte> input(reinterpret_cast<const std::byte *>(data), size);
  while (true) {
    const auto header = debug_agent::parse_header(input);
    if (!header || input.size() < sizeof(debug_agent::Header) + header->size) return 0;
    const auto body = input.subspan(sizeof(debug_agent::Header), header->size);
    input = input.subspan(sizeof(debug_agent::Header) + header->size);
    const auto request = debug_agent::parse_request(*header, body);
    if (!request) continue;
    // What was understood says the same when it is written again.
    const auto again = debug_agent::encode_request(request->command, request->id, request->fields,
                                                   request->numbers, request->bytes);
    const auto second = debug_agent::parse_request(
        *debug_agent::parse_header(again), std::span(again).subspan(sizeof(debug_agent::Header)));
    if (!second || second->numbers != request->numbers ||
        second->bytes.size() != request->bytes.size()) {
      std::abort();
    }
  }
}
