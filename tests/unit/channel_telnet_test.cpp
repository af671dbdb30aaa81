// The telnet protocol of the channel port, without sockets.
#include <catch2/catch.hpp>

#include "common/backlog.hpp"
#include "port/telnet_codec.hpp"

using namespace std::string_literals;

namespace {

std::span<const std::byte> bytes(const std::string &text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

struct Fixture {
  channels::TelnetCodec codec;
  channels::Received plain;
  std::string wire;

  Fixture() {
    codec.start(wire);
    wire.clear();
  }
  // What the guest gets for what the client sends.
  std::string received(const std::string &text) {
    plain = {};
    good = codec.decode(bytes(text), plain, wire);
    return plain.bytes;
  }
  std::string sent(const std::string &text) {
    wire.clear();
    codec.encode(bytes(text), wire);
    return wire;
  }
  bool good = true;
};

}  // namespace

TEST_CASE_METHOD(Fixture, "telnet: ends of lines, wherever a packet ends") {
  CHECK(received("a\r\nb\r\0c\nd\re"s) == "a\rb\rc\nd\re");
  CHECK(received("x\r") == "x\r");
  CHECK(received("\0y\r"s) == "y\r");
  CHECK(received("\nz") == "z");
  CHECK(received("\0"s) == "\0"s);
  CHECK(received("\xff\xfb\0\r\0\r\n"s) == "\r\0\r\n"s);  // binary
  CHECK(received("\xff\xfc\0\r\0"s) == "\r");
}

TEST_CASE_METHOD(Fixture,
                 "telnet: a carriage return goes out as RFC 854 says, to who speaks telnet") {
  CHECK(sent("a\rb\xff") == "a\rb\xff\xff");  // perhaps nc
  received("\xff\xfd\x03");
  CHECK(sent("a\r\nb\rc") == "a\r\nb\r\0c"s);
  CHECK(sent("d\r") == "d\r");
  CHECK(sent("\ne\r") == "\ne\r");
  CHECK(sent("f") == "\0f"s);
  received("\xff\xfd\0"s);
  CHECK(sent("a\rb\xff") == "a\rb\xff\xff");
}

TEST_CASE_METHOD(Fixture, "telnet: commands are keys") {
  CHECK(received("\xff\xf4\xff\xec\xff\xed\xff\xee\xff\xf7\xff\xf8\xff\xf1\xff\xf9") ==
        "\x03\x04\x1a\x1c\x7f\x15");
  CHECK(wire.empty());
  CHECK(received("\xff\xf6").empty());
  CHECK(wire == "\r\n[here]\r\n");
  CHECK(received("\xff\xff") == "\xff");
}

TEST_CASE_METHOD(Fixture, "telnet: a break is no byte, and has its place among them") {
  CHECK(received("\xff\xf3"
                 "ab\xff\xf3\xff\xf3"
                 "c\xff\xf3") == "abc");
  CHECK(plain.breaks == std::vector<std::size_t>{0, 2, 2, 3});
  wire.clear();
  CHECK(codec.encode_break(wire));
  CHECK(wire == "\xff\xf3");
  codec.start(wire);
  wire.clear();
  CHECK_FALSE(codec.encode_break(wire));  // it may be nc
  CHECK(wire.empty());
}

TEST_CASE_METHOD(Fixture, "telnet: window sizes come whole or not at all") {
  CHECK_FALSE(codec.window());
  for (const char c : "\xff\xfa\x1f\x00\xff\xff\x00\x18\xff\xf0"s) received(std::string(1, c));
  REQUIRE(codec.window());
  CHECK(codec.window()->columns == 255);
  CHECK(codec.window()->rows == 24);
  CHECK(codec.take_window_change());
  CHECK_FALSE(codec.take_window_change());
  received("\xff\xfa\x1f\x01\x02\x03\xff\xf0");
  CHECK_FALSE(codec.take_window_change());
  codec.start(wire);  // the next client's size is its own
  CHECK_FALSE(codec.window());
  CHECK(codec.take_window_change());
}

TEST_CASE_METHOD(Fixture, "telnet: options that were not asked for are refused, once") {
  received("\xff\xfb\x18\xff\xfb\x22\xff\xfd\x05\xff\xfd\x18");
  CHECK(wire == "\xff\xfe\x18\xff\xfe\x22\xff\xfc\x05\xff\xfc\x18");
  wire.clear();
  received("\xff\xfc\x18\xff\xfe\x05");
  CHECK(wire.empty());
  // Agreement with what we asked for is no question.
  received("\xff\xfd\x01\xff\xfd\x03\xff\xfb\x03\xff\xfb\x1f\xff\xfd\0\xff\xfb\0"s);
  CHECK(wire.empty());
  CHECK(good);
  CHECK(received("still there") == "still there");
}

TEST_CASE_METHOD(Fixture, "telnet: a client that compresses without being asked has to go") {
  received("\xff\xfa\x56\xff\xf0\x78\x9c\x4b\x4c\x04\x00");
  CHECK_FALSE(good);
  CHECK(plain.bytes.empty());
}

TEST_CASE_METHOD(Fixture, "telnet: a suboption without end fills no memory and ends nothing") {
  received("\xff\xfa\x1f");
  for (int i = 0; i < 1000; ++i) received(std::string(1000, 'x'));
  CHECK(plain.bytes.size() <= 1000);
  received("\xff\xf0");
  received("after");
  CHECK(plain.bytes == "after");
}

TEST_CASE("backlog: the last bytes, from the beginning of a line") {
  channels::Backlog backlog;
  CHECK(backlog.take().empty());
  backlog.add(bytes("abc"));
  backlog.add(bytes("def"));
  CHECK(backlog.take() == "abcdef");
  CHECK(backlog.take().empty());
  std::string all;
  for (int i = 0; i < 5000; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    backlog.add(bytes(line));
    all += line;
  }
  const std::string kept = backlog.take();
  CHECK(kept.size() > channels::Backlog::kSize - 20);
  CHECK(kept.size() <= channels::Backlog::kSize);
  CHECK(all.compare(all.size() - kept.size(), kept.size(), kept) == 0);
  CHECK(kept.compare(0, 5, "line ") == 0);
  backlog.add(bytes(std::string(100000, 'x')));
  CHECK(backlog.take().size() == channels::Backlog::kSize);
}
