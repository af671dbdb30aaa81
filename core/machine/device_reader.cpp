// The part of MachineReader that reads devices: [[block]], [[console]], [[net]].
#include <fmt/format.h>

#include <algorithm>

#include "machine/device_names.hpp"
#include "machine/machine_reader.hpp"

namespace cowbird {

namespace {

constexpr std::size_t kMaxInterfaceName = 15;  // IFNAMSIZ - 1

bool is_own_key(std::string_view key) { return key == "name" || key == "plugin"; }

bool is_interface_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxInterfaceName && name != "." && name != ".." &&
         std::ranges::all_of(name,
                             [](char c) { return c > ' ' && c < 0x7f && c != '/' && c != ':'; });
}

std::vector<std::string> key_names(const PluginInfo &plugin) {
  std::vector<std::string> names{"name", "plugin"};
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

void MachineReader::read_device(SectionReader &section, PluginKind kind,
                                std::vector<DeviceConfig> &devices) {
  DeviceConfig device;
  device.where = problems_.where(section.table().source());
  if (auto name = section.required_text("name")) {
    const auto unit = kind == PluginKind::Block ? block_unit(*name) : console_unit(*name);
    if (unit) {
      claim(fmt::format("{} {}", plugin_kind_name(kind), *unit), *name, *section.node("name"));
      device.unit = *unit;
    } else {
      section.problem("name",
                      fmt::format("\"{}\" is no name for a {}: {} are.", *name,
                                  kind == PluginKind::Block ? "block device" : "console",
                                  kind == PluginKind::Block ? "ubd0 to ubd25 (also ubda to ubdz)"
                                                            : "con0 to con63"));
    }
    device.name = std::move(*name);
  }
  const auto *plugin = find_plugin(section, kind, device.plugin);
  if (!plugin) return;
  if (auto config = read_options(section, *plugin)) {
    device.config = std::move(*config);
    devices.push_back(std::move(device));
  }
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
  read_options(section, *plugin);
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

std::optional<PluginConfig> MachineReader::read_options(SectionReader &section,
                                                        const PluginInfo &plugin) {
  bool good = true;
  ConfigTable values;
  for (const auto &[key, node] : section.table()) {
    const auto name = key.str();
    if (is_own_key(name)) continue;
    const auto *schema = plugin.find_key(name);
    std::optional<ConfigValue> value;
    if (schema) {
      value = read_option(section, *schema);
    } else {
      problems_.at(key.source(), fmt::format("Plugin \"{}\" has no key \"{}\"{}", plugin.name, name,
                                             name_hint(name, key_names(plugin))));
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
  return good ? std::move(config) : std::nullopt;
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
  const auto *plugin = plugins_.find(PluginKind::Channel, "fd", error);
  if (!plugin || !plugins_.load(*plugin, error)) {
    return problems_.at_file(fmt::format("{}: {}", kWhere, error.message));
  }
  const ConfigTable values{{"input", std::int64_t{0}}, {"output", std::int64_t{1}}};
  auto config = validate_config(*plugin, values, {}, [&](std::string_view, std::string_view text) {
    problems_.at_file(fmt::format("{}: {}", kWhere, text));
  });
  if (!config) return;
  config_.consoles.push_back({"con0", 0, "fd", std::move(*config), std::string(kWhere)});
}

}  // namespace cowbird
