// The part of MachineReader that reads devices: [[block]], [[console]], [[serial]], [[net]].
#include <fmt/format.h>

#include <algorithm>

#include "machine/device_names.hpp"
#include "machine/machine_reader.hpp"

namespace cowbird {

namespace {

constexpr std::size_t kMaxInterfaceName = 15;  // IFNAMSIZ - 1

bool is_interface_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxInterfaceName && name != "." && name != ".." &&
         std::ranges::all_of(name,
                             [](char c) { return c > ' ' && c < 0x7f && c != '/' && c != ':'; });
}

// The table behind the key `output_channel`.
constexpr KeyDoc kOutputKeys[] = {{"plugin", "text", "", ""}};
constexpr SectionDoc kOutputChannel{"output_channel", false, true, "", kOutputKeys};

std::vector<std::string> key_names(const SectionReader &section, const PluginInfo &plugin) {
  std::vector<std::string> names = section.own_keys();
  for (const auto &key : plugin.keys) names.push_back(key.name);
  return names;
}

std::string_view expected_value(KeyType type) {
  switch (type) {
    case KeyType::Bool:
      return "true or false";
    case KeyType::Int:
      return "an integer";
    case KeyType::Size:
      return "a size, such as \"128M\" or an integer in bytes";
    default:
      return "a string";
  }
}

}  // namespace

void MachineReader::read_block(SectionReader &section) {
  DeviceConfig device;
  device.where = problems_.where(section.table().source());
  if (auto name = section.required_text("name")) {
    if (const auto unit = block_unit(*name)) {
      claim(fmt::format("block {}", *unit), *name, *section.node("name"));
      device.unit = *unit;
    } else {
      section.problem("name", fmt::format("\"{}\" is no name for a block device: ubd0, "
                                          "ubd1 and so on (also ubda to ubdz) are.",
                                          *name));
    }
    device.name = std::move(*name);
  }
  auto setting = read_plugin(section, PluginKind::Block);
  if (!setting) return;
  static_cast<PluginSetting &>(device) = std::move(*setting);
  config_.blocks.push_back(std::move(device));
}

void MachineReader::read_line(SectionReader &section, std::vector<LineConfig> &lines) {
  const bool serial = &lines == &config_.serials;
  LineConfig line;
  line.where = problems_.where(section.table().source());
  if (auto name = section.required_text("name")) {
    if (const auto unit = serial ? serial_unit(*name) : console_unit(*name)) {
      claim("line " + *name, *name, *section.node("name"));
      line.unit = *unit;
    } else {
      section.problem("name", fmt::format("\"{}\" is no name for a {}: {} are.", *name,
                                          serial ? "serial line" : "console",
                                          serial ? "ssl0, ssl1 and so on, or ssl* for all others"
                                                 : "con0, con1 and so on, or con* for all others"));
    }
    line.name = std::move(*name);
  }
  auto setting = read_channels(section);
  if (!setting) return;
  static_cast<LineSetting &>(line) = std::move(*setting);
  lines.push_back(std::move(line));
}

std::optional<LineSetting> MachineReader::read_channels(SectionReader &section) {
  LineSetting line;
  auto input = read_plugin(section, PluginKind::Channel);
  if (const auto *node = section.node("output_channel")) {
    const auto *table = node->as_table();
    if (!table) {
      section.wrong_type("output_channel", "a table such as { plugin = \"xterm\" }");
      return std::nullopt;
    }
    SectionReader output_section(problems_, kOutputChannel, *table);
    line.output = read_plugin(output_section, PluginKind::Channel);
    if (!line.output) return std::nullopt;
  }
  if (!input) return std::nullopt;
  line.input = std::move(*input);
  return line;
}

std::optional<PluginSetting> MachineReader::read_plugin(SectionReader &section, PluginKind kind) {
  PluginSetting setting;
  const bool none = kind == PluginKind::Channel && section.node("plugin") &&
                    section.text("plugin") == std::string(kNoChannel);
  if (none) {
    setting.plugin = kNoChannel;
    PluginInfo nothing;
    nothing.name = kNoChannel;
    nothing.kind = kind;
    if (!read_options(section, nothing, setting)) return std::nullopt;
    return setting;
  }
  const auto *plugin = find_plugin(section, kind, setting.plugin);
  if (!plugin || !read_options(section, *plugin, setting)) return std::nullopt;
  return setting;
}

std::optional<LineSetting> MachineReader::read_line_setting(const toml::table &table) {
  SectionReader section(problems_, *find_section("console"), table);
  if (section.node("name")) section.problem("name", "The name stands before the '=' already.");
  auto setting = read_channels(section);
  return problems_.any() ? std::nullopt : std::move(setting);
}

std::optional<PluginSetting> MachineReader::read_block_setting(const toml::table &table) {
  SectionReader section(problems_, *find_section("block"), table);
  if (section.node("name")) section.problem("name", "The name stands before the '=' already.");
  auto setting = read_plugin(section, PluginKind::Block);
  return problems_.any() ? std::nullopt : std::move(setting);
}

void MachineReader::read_net(SectionReader &section) {
  if (const auto name = section.required_text("name")) {
    if (is_interface_name(*name)) {
      claim("net " + *name, *name, *section.node("name"));
    } else {
      section.problem("name", fmt::format("\"{}\" is no name for an interface: it must be 1 to {} "
                                          "characters without spaces, '/' and ':'.",
                                          *name, kMaxInterfaceName));
    }
  }
  std::string plugin_name;
  const auto *plugin = find_plugin(section, PluginKind::Transport, plugin_name);
  if (!plugin) return;
  PluginSetting setting;
  read_options(section, *plugin, setting);
  section.problem("plugin", "This version has no network: it can use no transport plugin.");
}

const PluginInfo *MachineReader::find_plugin(SectionReader &section, PluginKind kind,
                                             std::string &name) {
  auto written = section.required_text("plugin");
  if (!written) return nullptr;
  name = written->find('/') == std::string::npos ? *written
                                                 : resolve(*section.node("plugin"), *written);
  PluginError error;
  const auto *plugin = plugins_.find(kind, name, error);
  if (plugin && plugins_.load(*plugin, error)) return plugin;
  section.problem("plugin", error.message);
  return nullptr;
}

bool MachineReader::read_options(SectionReader &section, const PluginInfo &plugin,
                                 PluginSetting &setting) {
  bool good = true;
  ConfigTable &values = setting.options;
  for (const auto &[key, node] : section.table()) {
    const auto name = key.str();
    if (section.is_own_key(name)) continue;
    const auto *schema = plugin.find_key(name);
    std::optional<ConfigValue> value;
    if (schema) {
      value = read_option(section, *schema);
    } else {
      problems_.at(key.source(), fmt::format("Plugin \"{}\" has no key \"{}\"{}", plugin.name, name,
                                             name_hint(name, key_names(section, plugin))));
    }
    if (value) {
      values.emplace(name, std::move(*value));
    } else {
      good = false;
    }
  }
  // Relative paths have been resolved, each against its own base, so there is no base left.
  auto config =
      validate_config(plugin, values, {}, [&](std::string_view key, std::string_view message) {
        good = false;
        // A key that is in the file but not among the values has been reported above.
        if (section.node(key) && !values.contains(std::string(key))) return;
        section.problem(key, std::string(message));
      });
  if (!good) return false;
  setting.config = std::move(*config);
  return true;
}

std::optional<ConfigValue> MachineReader::read_option(SectionReader &section,
                                                      const KeySchema &key) {
  const auto &node = *section.node(key.name);
  const bool takes_integer = key.type == KeyType::Int || key.type == KeyType::Size;
  const bool takes_text = key.type != KeyType::Int && key.type != KeyType::Bool;
  if (takes_integer && node.is_integer()) return *node.value_exact<std::int64_t>();
  if (key.type == KeyType::Bool && node.is_boolean()) return *node.value_exact<bool>();
  if (takes_text && node.is_string()) {
    auto text = section.text(key.name);
    if (!text) return std::nullopt;
    return key.type == KeyType::Path ? resolve(node, *text) : *text;
  }
  section.wrong_type(key.name, expected_value(key.type));
  return std::nullopt;
}

void MachineReader::add_default_console() {
  constexpr std::string_view kWhere = "the default console con0";
  PluginError error;
  // The caller's terminal, unless gdb talks through it.
  const bool has_terminal = config_.debug.gdb != "stdio";
  const char *const name = has_terminal ? "fd" : "null";
  const auto *plugin = plugins_.find(PluginKind::Channel, name, error);
  if (!plugin || !plugins_.load(*plugin, error)) {
    return problems_.at_file(fmt::format("{}: {}", kWhere, error.message));
  }
  ConfigTable values;
  if (has_terminal) values = {{"input", std::int64_t{0}}, {"output", std::int64_t{1}}};
  auto config = validate_config(*plugin, values, {}, [&](std::string_view, std::string_view text) {
    problems_.at_file(fmt::format("{}: {}", kWhere, text));
  });
  if (!config) return;
  LineConfig line;
  line.input = {name, values, std::move(*config)};
  line.name = "con0";
  line.where = kWhere;
  config_.consoles.push_back(std::move(line));
}

}  // namespace cowbird
