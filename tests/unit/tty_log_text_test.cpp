// The JSON of terminal logs.
#include "tty/tty_log_text.hpp"

#include <catch2/catch.hpp>

using namespace cowbird;

namespace {

std::string in_pieces(std::initializer_list<std::string_view> pieces) {
  JsonBytes bytes;
  std::string out;
  for (const auto piece : pieces) bytes.append(out, std::as_bytes(std::span(piece)));
  bytes.finish(out);
  return out;
}

}  // namespace

TEST_CASE("terminal log: text is JSON text") {
  CHECK(in_pieces({"a\"b\\c\r\n\t\x1b[0m\x7f"}) == R"(a\"b\\c\r\n\u0009\u001b[0m\u007f)");
  CHECK(json_quoted("tty1") == "\"tty1\"");
}

TEST_CASE("terminal log: characters may come in pieces") {
  CHECK(in_pieces({"\xc3", "\xa4"}) == "\xc3\xa4");
  CHECK(in_pieces({"\xf0\x9f", "\x98", "\x80!"}) == "\xf0\x9f\x98\x80!");
}

TEST_CASE("terminal log: bytes that are no characters are kept") {
  CHECK(in_pieces({"\xff\xc0x"}) == R"(\udcff\udcc0x)");
  CHECK(in_pieces({"\xc3", "x"}) == R"(\udcc3x)");
  CHECK(in_pieces({"\xe2\x82"}) == R"(\udce2\udc82)");
  CHECK(in_pieces({"\xed\xa0\x80"}) == R"(\udced\udca0\udc80)");            // a surrogate
  CHECK(in_pieces({"\xf4\x90\x80\x80"}) == R"(\udcf4\udc90\udc80\udc80)");  // too large
  CHECK(in_pieces({"\xe0\x80\x80"}) == R"(\udce0\udc80\udc80)");            // a long form
}

TEST_CASE("terminal log: events") {
  CHECK(log_event(1'500'000'000, 'o', "x", "") == "[1.500000, \"o\", \"x\"]\n");
  CHECK(log_event(2'000'001'000, 'i', "x", "tty1") == "[2.000001, \"i\", \"x\", \"tty1\"]\n");
  CHECK(log_header("tty1", 80, 24, 7'900'000'000) ==
        "{\"version\": 2, \"width\": 80, \"height\": 24, \"timestamp\": 7, \"title\": "
        "\"tty1\"}\n");
}
