// A PluginCatalog of invented plugins, for tests and the fuzz target of machine files: channels
// "fd", "null", "pts", "port", "tty", block backend "file", transport "wire", and the channel
// "broken", which is found but cannot be loaded.
#pragma once

#include <fmt/format.h>

#include <list>

#include "machine/plugin_catalog.hpp"

namespace cowbird::test {

class FakeCatalog final : public PluginCatalog {
 public:
  FakeCatalog() {
    auto &fd = add(PluginKind::Channel, "fd");
    fd.keys.push_back(integer_key("input", 0));
    fd.keys.push_back(integer_key("output", 1));
    auto &file = add(PluginKind::Block, "file");
    file.keys.push_back(required_key("path", KeyType::Path));
    file.keys.push_back(key("readonly", KeyType::Bool, "false"));
    file.keys.push_back(key("cache", KeyType::Size, "1M"));
    file.keys.push_back(key("sync", KeyType::Bool, "false"));
    file.keys.push_back(key("lock", KeyType::Bool, "true"));
    file.keys.push_back(key("discard", KeyType::Bool, "true"));
    add(PluginKind::Channel, "null");
    add(PluginKind::Channel, "pts");
    auto &port = add(PluginKind::Channel, "port");
    port.keys.push_back(required_key("port", KeyType::Int));
    port.keys.push_back(key("host", KeyType::String, "localhost"));
    add(PluginKind::Channel, "tty").keys.push_back(required_key("path", KeyType::Path));
    add(PluginKind::Transport, "wire");
    add(PluginKind::Channel, "broken");
  }

  void use_path(const std::vector<std::filesystem::path> &configured) override {
    path = configured;
  }
  const PluginInfo *find(PluginKind kind, std::string_view name, PluginError &error) override {
    for (const auto &plugin : plugins_) {
      if (plugin.kind == kind && plugin.name == name) return &plugin;
    }
    error = {PluginFault::NotFound,
             fmt::format("There is no {} plugin \"{}\".", plugin_kind_name(kind), name)};
    return nullptr;
  }
  bool load(const PluginInfo &plugin, PluginError &error) override {
    if (plugin.name != "broken") return true;
    error = {PluginFault::UnresolvedSymbol, "The plugin \"broken\" needs the symbol \"x\"."};
    return false;
  }

  std::vector<std::filesystem::path> path;

 private:
  static KeySchema key(std::string name, KeyType type, std::string default_text) {
    return {.name = std::move(name),
            .type = type,
            .default_text = std::move(default_text),
            .choices = {},
            .help = {}};
  }
  static KeySchema required_key(std::string name, KeyType type) {
    return {.name = std::move(name),
            .type = type,
            .required = true,
            .default_text = {},
            .choices = {},
            .help = {}};
  }
  static KeySchema integer_key(std::string name, int default_value) {
    auto schema = key(std::move(name), KeyType::Int, std::to_string(default_value));
    schema.has_range = true;
    schema.min = -1;
    schema.max = 1023;
    return schema;
  }
  PluginInfo &add(PluginKind kind, std::string name) {
    auto &plugin = plugins_.emplace_back();
    plugin.kind = kind;
    plugin.name = std::move(name);
    return plugin;
  }

  std::list<PluginInfo> plugins_;
};

}  // namespace cowbird::test
