// Settings of devices as the management console gets them, "con1=pts,null" or "ubdar=x.img": any
// bytes are a setting or refused with a reason. What is a setting is answered as one line, and what
// is answered, and the table of the machine file, mean the same again. The client's absolute names
// of files are absolute the second time, too.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "machine/device_setting.hpp"
#include "mconsole/client.hpp"
#include "support/fake_catalog.hpp"

using namespace cowbird;

namespace {

constexpr const char *kBase = "/nowhere";

void expect(bool condition) {
  if (!condition) std::abort();
}

void expect_one_line(const std::string &text) {
  expect(!text.empty() && std::ranges::none_of(text, [](char c) {
    return static_cast<unsigned char>(c) < ' ' || c == 0x7f;
  }));
}

void check_line(std::string_view text, PluginCatalog &plugins) {
  std::string error;
  const auto setting = parse_line_setting(text, kBase, plugins, error);
  expect(setting.has_value() == error.empty());
  if (!setting) return;
  const std::string answer = line_setting_text(*setting, plugins);
  const std::string table = line_setting_toml(*setting);
  expect_one_line(answer);
  expect_one_line(table);
  for (const std::string &form : {answer, table}) {
    const auto again = parse_line_setting(form, kBase, plugins, error);
    expect(again.has_value());
    expect(line_setting_text(*again, plugins) == answer);
  }
}

void check_block(std::string_view text, std::string_view flags, PluginCatalog &plugins) {
  std::string error;
  const auto setting = parse_block_setting(text, flags, kBase, plugins, error);
  expect(setting.has_value() == error.empty());
  if (!setting) return;
  const std::string answer = block_setting_text(*setting, plugins);
  const std::string their_flags = block_setting_flags(*setting);
  const std::string table = plugin_setting_toml(*setting);
  expect_one_line(answer);
  expect_one_line(table);
  const auto from_table = parse_block_setting(table, "", kBase, plugins, error);
  expect(from_table && block_setting_flags(*from_table) == their_flags);
  expect(block_setting_text(*from_table, plugins) == answer);
  // A table says it all; a file's name goes with the flags.
  const auto again = parse_block_setting(answer, answer.starts_with('{') ? "" : their_flags, kBase,
                                         plugins, error);
  expect(again && block_setting_flags(*again) == their_flags);
  expect(block_setting_text(*again, plugins) == answer);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char *>(data), size);
  test::FakeCatalog plugins;
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) return 0;
  const std::string_view name = text.substr(0, equals);
  const std::string_view setting = text.substr(equals + 1);
  if (name.starts_with("ubd")) {
    check_block(setting, name.substr(std::min<std::size_t>(4, name.size())), plugins);
  } else {
    check_line(setting, plugins);
  }
  const std::string request = "config " + std::string(text);
  const std::string once = mconsole::with_absolute_names(request, "/srv/g");
  expect(mconsole::with_absolute_names(once, "/other") == once || once.find('\\') != once.npos);
  return 0;
}
