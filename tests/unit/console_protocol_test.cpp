#include "tty/console_protocol.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace cowbird;
using namespace cowbird::console_protocol;

namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("a greeting has this layout") {
  std::vector<std::byte> out;
  append_hello(out, {kMagic, kVersion, true, {24, 80}, "con1"});
  CHECK(out == bytes_of(std::string_view("\x01\x00\x10\x00WCON\x01\x00\x01\x00\x18\x00\x50\x00"
                                         "con1",
                                         20)));
  out.clear();
  append_welcome(out, {1, true, "con0", "demo"});
  CHECK(out == bytes_of(std::string_view("\x04\x00\x0d\x00\x01\x00\x01\x00\x04"
                                         "con0demo",
                                         17)));
}

TEST_CASE("frames come out of a stream however it is cut") {
  std::vector<std::byte> stream;
  append_hello(stream, {kMagic, kVersion, false, {0, 0}, ""});
  append_data(stream, bytes_of(std::string(20000, 'x')));
  append_window(stream, {50, 132});
  append_frame(stream, FrameType::HangUp, "it is over");
  for (const std::size_t piece : {1UL, 3UL, 4096UL, stream.size()}) {
    FrameReader reader;
    std::string data, farewell;
    std::size_t windows = 0;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      reader.feed(std::span(stream).subspan(at, std::min(piece, stream.size() - at)));
      while (const auto frame = reader.next()) {
        if (frame->type == FrameType::Data) data += text_of(frame->payload);
        if (frame->type == FrameType::HangUp) farewell = text_of(frame->payload);
        if (frame->type == FrameType::Window) {
          ++windows;
          const auto size = parse_window(frame->payload);
          REQUIRE(size);
          CHECK(size->rows == 50);
          CHECK(size->columns == 132);
        }
      }
    }
    CHECK(data == std::string(20000, 'x'));
    CHECK(farewell == "it is over");
    CHECK(windows == 1);
    CHECK_FALSE(reader.bad());
    CHECK(reader.buffered() == 0);
  }
}

TEST_CASE("greetings are read back, and only whole ones") {
  std::vector<std::byte> out;
  append_hello(out, {kMagic, 7, true, {1, 2}, "ssl12"});
  const auto payload = std::span<const std::byte>(out).subspan(kHeaderSize);
  const auto hello = parse_hello(payload);
  REQUIRE(hello);
  CHECK(hello->magic == kMagic);
  CHECK(hello->version == 7);
  CHECK(hello->read_only);
  CHECK(hello->window.columns == 2);
  CHECK(hello->device == "ssl12");
  CHECK_FALSE(parse_hello(payload.first(11)));
  out.clear();
  append_hello(out, {kMagic, 1, false, {}, std::string(kMaxDeviceName + 1, 'c')});
  CHECK_FALSE(parse_hello(std::span<const std::byte>(out).subspan(kHeaderSize)));
  out.clear();
  append_welcome(out, {1, false, "con0", "a guest"});
  const auto answer = std::span<const std::byte>(out).subspan(kHeaderSize);
  const auto welcome = parse_welcome(answer);
  REQUIRE(welcome);
  CHECK(welcome->guest == "a guest");
  CHECK_FALSE(parse_welcome(answer.first(7)));
}

TEST_CASE("a stream that is something else is known for it") {
  for (const auto &text :
       {std::string("GET / HTTP/1.0\r\n"), std::string("\x02\x01\x00\x00", 4),
        std::string("\x02\x00\xff\xff", 4), std::string("\x00\x00\x00\x00", 4)}) {
    FrameReader reader;
    reader.feed(bytes_of(text));
    CHECK_FALSE(reader.next());
    CHECK(reader.bad());
    reader.feed(bytes_of(text));
    CHECK(reader.buffered() <= text.size());
  }
}
