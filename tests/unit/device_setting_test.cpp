// Settings of devices in UML's syntax and as inline tables.
#include "machine/device_setting.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

#include "support/fake_catalog.hpp"

using namespace cowbird;
using Catch::Matchers::Contains;

namespace {

test::FakeCatalog &catalog() {
  static test::FakeCatalog instance;
  return instance;
}

LineSetting line(std::string_view text) {
  std::string error;
  auto setting = parse_line_setting(text, "/base", catalog(), error);
  INFO(text << ": " << error);
  REQUIRE(setting);
  return *setting;
}
std::string line_error(std::string_view text) {
  std::string error;
  INFO(text);
  REQUIRE_FALSE(parse_line_setting(text, "/base", catalog(), error));
  REQUIRE_FALSE(error.empty());
  return error;
}
PluginSetting block(std::string_view text, std::string_view flags = "") {
  std::string error;
  auto setting = parse_block_setting(text, flags, "/base", catalog(), error);
  INFO(text << ": " << error);
  REQUIRE(setting);
  return *setting;
}
std::string block_error(std::string_view text, std::string_view flags = "") {
  std::string error;
  INFO(text);
  REQUIRE_FALSE(parse_block_setting(text, flags, "/base", catalog(), error));
  REQUIRE_FALSE(error.empty());
  return error;
}
std::int64_t number(const PluginSetting &setting, const char *key) {
  return std::get<std::int64_t>(setting.config.values.at(key));
}
std::string text(const PluginSetting &setting, const char *key) {
  return std::get<std::string>(setting.config.values.at(key));
}

}  // namespace

TEST_CASE("a channel is its plugin's name and the first key's value") {
  CHECK(line("pts").input.plugin == "pts");
  CHECK_FALSE(line("pts").output);
  CHECK(number(line("port:9000").input, "port") == 9000);
  CHECK(text(line("tty:/dev/tty6").input, "path") == "/dev/tty6");
  CHECK(text(line("tty:a/b:c").input, "path") == "/base/a/b:c");
  CHECK(line("pty").input.plugin == "pts");
}

TEST_CASE("descriptors: one channel for both directions, or two") {
  const auto both = line("fd:0,fd:1");
  CHECK(number(both.input, "input") == 0);
  CHECK(number(both.input, "output") == 1);
  CHECK_FALSE(both.output);
  CHECK(number(line("fd:3").input, "output") == 3);
  const auto out = line("null,fd:2");
  CHECK(out.input.plugin == "null");
  REQUIRE(out.output);
  CHECK(number(*out.output, "input") == -1);
  CHECK(number(*out.output, "output") == 2);
}

TEST_CASE("two channels are two objects, also of one type") {
  const auto pair = line("pts,port:7");
  CHECK(pair.input.plugin == "pts");
  REQUIRE(pair.output);
  CHECK(number(*pair.output, "port") == 7);
  CHECK(line("pts,pts").output);
  CHECK(line("none").none());
  CHECK(line("none,none").none());
  CHECK_FALSE(line("pts,none").none());
}

TEST_CASE("an inline table has the keys of the machine file") {
  const auto port = line("{ plugin = \"port\", port = 9000 }");
  CHECK(number(port.input, "port") == 9000);
  const auto pair = line("{plugin='pts', output_channel={plugin='tty', path='x'}}");
  REQUIRE(pair.output);
  CHECK(text(*pair.output, "path") == "/base/x");
  CHECK(line("{plugin='none'}").none());
  CHECK(text(block("{plugin='file', path='d.img'}"), "path") == "/base/d.img");
}

TEST_CASE("what is wrong with a line is said") {
  CHECK_THAT(line_error("ptx"), Contains("There is no channel plugin \"ptx\"."));
  CHECK_THAT(line_error(""), Contains("name of a channel is missing"));
  CHECK_THAT(line_error("pts,"), Contains("name of a channel is missing"));
  CHECK_THAT(line_error("pts,pts,pts"), Contains("more than two channels"));
  CHECK_THAT(line_error("fd"), Contains("\"fd:0\""));
  CHECK_THAT(line_error("fd:"), Contains("\"fd:0\""));
  CHECK_THAT(line_error("fd:-1"), Contains("\"fd:0\""));
  CHECK_THAT(line_error("fd:99999"), Contains("out of range"));
  CHECK_THAT(line_error("fd:0,fd:x"), Contains("\"fd:0\""));
  CHECK_THAT(line_error("port"), Contains("needs the key \"port\""));
  CHECK_THAT(line_error("port:"), Contains("argument behind \"port:\" is missing"));
  CHECK_THAT(line_error("port:x"), Contains("\"x\" is not an integer"));
  CHECK_THAT(line_error("null:1"), Contains("takes no argument"));
  CHECK_THAT(line_error("none:1"), Contains("takes no argument"));
  CHECK_THAT(line_error("pty:/dev/ptyp0"), Contains("no BSD pseudoterminals"));
  CHECK_THAT(line_error("./x.so"), Contains("{ plugin = \"./x.so\" }"));
  CHECK_THAT(line_error("broken"), Contains("needs the symbol"));
  CHECK_THAT(line_error("{"), Contains("cannot be read"));
  CHECK_THAT(line_error("{}"), Contains("needs the key \"plugin\""));
  CHECK_THAT(line_error("{plugin='pts'} # x\ny=1"), Contains("not one table"));
  CHECK_THAT(line_error("{name='con1', plugin='pts'}"), Contains("before the '='"));
  CHECK_THAT(line_error("{plugin='port', prot=1}"), Contains("did you mean \"port\"?"));
  CHECK_THAT(line_error("{plugin='pts', output_channel='x'}"), Contains("must be a table"));
  CHECK_THAT(line_error("{plugin='none', x=1}"), Contains("has no key \"x\""));
}

TEST_CASE("block devices: files, flags, pairs") {
  CHECK(block("/a.img").plugin == "file");
  CHECK(text(block("a.img"), "path") == "/base/a.img");
  const auto flagged = block("a.img", "rsct");
  CHECK(std::get<bool>(flagged.config.values.at("readonly")));
  CHECK(std::get<bool>(flagged.config.values.at("sync")));
  CHECK_FALSE(std::get<bool>(flagged.config.values.at("lock")));
  CHECK_FALSE(std::get<bool>(flagged.config.values.at("discard")));
  CHECK(block_setting_flags(flagged) == "rsct");
  for (const char *one : {"", "r", "s", "c", "t"}) {
    CAPTURE(one);
    const auto disk = block("a.img", one);
    const auto is = [&](const char *key) { return std::get<bool>(disk.config.values.at(key)); };
    CHECK(is("readonly") == (std::string(one) == "r"));
    CHECK(is("sync") == (std::string(one) == "s"));
    CHECK(is("lock") == (std::string(one) != "c"));
    CHECK(is("discard") == (std::string(one) != "t"));
    CHECK(block_setting_flags(disk) == one);
    // The table says the same, and back.
    CHECK(block_setting_flags(block(plugin_setting_toml(disk).c_str())) == one);
  }
  CHECK(block_setting_flags(block("a.img", "d")).empty());
  CHECK(std::get<bool>(block("{plugin='file', path='x'}", "r").config.values.at("readonly")));
  CHECK_THAT(block_error("{plugin='file', path='x'}", "s"), Contains("UML's syntax"));
  CHECK_THAT(block_error("a.img", "x"), Contains("no flag \"x\""));
  CHECK_THAT(block_error("a\377"), Contains("not valid UTF-8"));
  CHECK_THAT(line_error("tty:/a\377"), Contains("not valid UTF-8"));
  CHECK_THAT(block_error(""), Contains("name of a file is missing"));
  CHECK_THAT(block_error("a,b"), Contains("no block backend plugin \"cow\""));
  CHECK_THAT(block_error("a:b"), Contains("no block backend plugin \"cow\""));
  CHECK_THAT(block_error("a,"), Contains("backing file"));
  CHECK_THAT(block_error("a,b", "d"), Contains("contradicts"));
  CHECK_THAT(block_error("a,,serial"), Contains("serial number"));
  CHECK_THAT(block_error("a,b,serial"), Contains("serial number"));
}

TEST_CASE("a file that looks like a COW file is one, unless it is said to be data") {
  char name[] = "/tmp/cowbird-setting-XXXXXX";
  const int fd = mkstemp(name);
  REQUIRE(fd >= 0);
  REQUIRE(write(fd, "MOOO....", 8) == 8);
  close(fd);
  CHECK_THAT(block_error(name), Contains("no block backend plugin \"cow\""));
  CHECK(block(name, "d").plugin == "file");
  unlink(name);
}

TEST_CASE("settings go back to text") {
  const auto again = [](const char *setting) {
    return line_setting_text(line(setting), catalog());
  };
  for (const char *same : {"pts", "port:9000", "fd:0,fd:1", "fd:3", "null,fd:2", "pts,pts", "none",
                           "pts,none", "tty:/dev/pts/7"}) {
    CHECK(again(same) == same);
  }
  CHECK(again("{plugin='port', port=9000}") == "port:9000");
  CHECK(again("{plugin='port', port=9000, host='localhost'}") == "port:9000");
  const char *table = "{ plugin = \"port\", host = \"::\", port = 9000 }";
  CHECK(again(table) == table);
  CHECK(again("{plugin='pts',output_channel={plugin='port',port=1,host='::'}}") ==
        "{ plugin = \"pts\", output_channel = { plugin = \"port\", host = \"::\", port = 1 } }");
  CHECK(again("{plugin='tty', path='/a,b'}") == "{ plugin = \"tty\", path = \"/a,b\" }");
  CHECK(line_setting_toml(line("fd:0,fd:1")) == "{ plugin = \"fd\", input = 0, output = 1 }");

  const auto disk = [](const char *setting) {
    return block_setting_text(block(setting), catalog());
  };
  CHECK(disk("a.img") == "/base/a.img");
  CHECK(disk("{plugin='file', path=\"/a\\nb\"}") == "{ plugin = \"file\", path = \"/a\\u000ab\" }");
  CHECK(disk("{plugin='file', path='/a:b'}") == "{ plugin = \"file\", path = \"/a:b\" }");
}
