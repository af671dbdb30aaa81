// Breaks that arrive on a serial port of the host: their marks, and the modes that make them.
#include <pty.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>

#include "common/descriptor.hpp"
#include "common/marked_breaks.hpp"
#include "common/terminal.hpp"

using namespace channels;
using namespace std::string_literals;

namespace {

Received decoded(const std::string &text, std::size_t piece = 1000) {
  MarkedBreaks marks;
  Received plain;
  std::string wire;
  marks.start(wire);
  const auto bytes = std::as_bytes(std::span(text));
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    REQUIRE(marks.decode(bytes.subspan(at, std::min(piece, bytes.size() - at)), plain, wire));
  }
  CHECK(wire.empty());
  return plain;
}

}  // namespace

TEST_CASE("marked breaks: each has its place among the bytes, wherever a piece ends") {
  const std::string text = "a\377\0\0bc\377\377\0\377\0\0\377\0\0d"s;
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    const Received plain = decoded(text, piece);
    CHECK(plain.bytes == "abc\377\0d"s);
    CHECK(plain.breaks == std::vector<std::size_t>{1, 5, 5});
  }
}

TEST_CASE("marked breaks: zeros, doubled marks and what is no mark stay bytes") {
  CHECK(decoded("\0\0\0"s).bytes == "\0\0\0"s);
  CHECK(decoded("\377\377\377\377"s).bytes == "\377\377"s);
  CHECK(decoded("\377\377\0\0"s).bytes == "\377\0\0"s);
  CHECK(decoded("\377\377\0\0"s).breaks.empty());
  CHECK(decoded("\377x\377\0y"s).bytes == "\377xy"s);  // foreign modes; a wrong parity
}

TEST_CASE("marked breaks: a new peer owes nothing to the one before") {
  MarkedBreaks marks;
  Received plain;
  std::string wire;
  marks.start(wire);
  CHECK(marks.decode(std::as_bytes(std::span("\377\0", 2)), plain, wire));
  marks.start(wire);
  CHECK(marks.decode(std::as_bytes(std::span("\0z", 2)), plain, wire));
  CHECK(plain.bytes == "\0z"s);
  CHECK(plain.breaks.empty());
  marks.encode(std::as_bytes(std::span("\377\0q", 3)), wire);
  CHECK(wire == "\377\0q"s);
}

TEST_CASE("marked breaks: the host's line discipline marks as we read it") {
  int ends[2];
  REQUIRE(openpty(&ends[0], &ends[1], nullptr, nullptr, nullptr) == 0);
  const Descriptor master(ends[0]), slave(ends[1]);
  Terminal terminal;
  terminal.open(slave.get(), Terminal::Breaks::Marked);
  REQUIRE(terminal.set_raw(true) == 0);
  std::string sent;
  for (int round = 0; round < 3; ++round) {
    for (int byte = 0; byte < 256; ++byte) sent += static_cast<char>(byte);
  }
  REQUIRE(write(master.get(), sent.data(), sent.size()) == static_cast<ssize_t>(sent.size()));
  // A pseudoterminal has no breaks; the bytes are what can be shown here.
  std::string raw;
  while (raw.size() < sent.size() + 3) {
    char piece[4096];
    const ssize_t n = read(slave.get(), piece, sizeof piece);
    REQUIRE(n > 0);
    raw.append(piece, static_cast<std::size_t>(n));
  }
  CHECK(decoded(raw).bytes == sent);
  CHECK(decoded(raw).breaks.empty());
  terminal.close();
  termios after;
  REQUIRE(tcgetattr(slave.get(), &after) == 0);
  CHECK((after.c_iflag & PARMRK) == 0);
}
