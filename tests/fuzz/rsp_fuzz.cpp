// The gdb session on any bytes of a gdb, with a small machine behind it. A line feed outside of
// packets lets the machine run for a while; what it answers must be packets that a gdb can read.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "debug/server/session.hpp"
#include "debug/target/fake_target.hpp"

namespace {

using namespace cowbird::debug;

// Whole packets, notifications and acknowledgements only.
void check(std::string_view output) {
  PacketReader reader(8 * Session::kPacketSize);
  for (const char c : output)
    if (reader.push(static_cast<unsigned char>(c)) == PacketReader::Event::BadChecksum)
      __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  constexpr std::size_t kMaxOutput = 1 << 20;
  FakeTarget::Options options;
  options.sleeping = 3;
  FakeTarget target(options);
  {
    Session session(target, [](std::string &output) {
      const bool goes_on = output.size() < kMaxOutput;
      check(output);
      output.clear();
      return goes_on;
    });
    for (std::size_t i = 0; i < size && !session.is_finished(); ++i) {
      const auto c = static_cast<char>(data[i]);
      session.receive(std::string_view(&c, 1));
      if (c == '\n') session.target_event();
      check(session.output());
      session.output().clear();
    }
  }
  // However gdb goes, the guest is let go.
  if (target.counts().attached > target.counts().detached + 1) __builtin_trap();
  return 0;
}
