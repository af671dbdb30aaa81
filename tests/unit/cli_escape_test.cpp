#include <catch2/catch.hpp>
#include <string>

#include "cli/escape_key.hpp"

using namespace cowbird::cli;

namespace {

// What goes to the guest; '!' for leaving, '?' for help.
std::string typed(std::string_view key, std::string_view text) {
  EscapeFilter filter(*EscapeKey::parse(key));
  std::string out;
  // Byte by byte: a person types so, and a key may come alone.
  for (const char c : text) {
    const auto byte = static_cast<std::byte>(c);
    auto rest = std::span(&byte, 1);
    std::vector<std::byte> passed;
    const auto action = filter.filter(rest, passed);
    for (const std::byte b : passed) out += static_cast<char>(b);
    if (action == EscapeAction::Detach) out += '!';
    if (action == EscapeAction::Help) out += '?';
  }
  return out;
}

}  // namespace

TEST_CASE("escape keys are written in the usual ways") {
  for (const char *text : {"^]", "ctrl-]", "C-]"}) {
    const auto key = EscapeKey::parse(text);
    REQUIRE(key);
    CHECK(key->key == std::byte{0x1d});
    CHECK(key->name() == "ctrl-]");
  }
  CHECK(EscapeKey::parse("ctrl-a")->key == std::byte{1});
  CHECK(EscapeKey::parse("^A")->name() == "ctrl-a");
  CHECK(EscapeKey::parse("~")->key == std::byte{'~'});
  CHECK(EscapeKey::parse("none")->key == std::nullopt);
  for (const char *text : {"", "ctrl-", "ctrl-ab", "control-a", "^1", " ", "\x01"}) {
    CHECK_FALSE(EscapeKey::parse(text));
  }
}

TEST_CASE("the escape key leaves, explains, and types itself") {
  CHECK(typed("^]", "abc") == "abc");
  CHECK(typed("^]",
              "a\x1d"
              "d") == "a!");
  CHECK(typed("^]", "a\x1d.") == "a!");
  CHECK(typed("^]", "\x1d?x") == "?x");
  CHECK(typed("^]", "\x1d\x1dz") == "\x1dz");
  CHECK(typed("^]", "\x1dxd") == "\x1dxd");
  CHECK(typed("none",
              "\x1d"
              "d") ==
        "\x1d"
        "d");
}
