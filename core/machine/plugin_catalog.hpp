// PluginCatalog: what the loader of machine files asks about plugins. The program uses
// RegistryCatalog, over the real PluginRegistry; tests and the fuzz target bring their own.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "plugins/plugin_registry.hpp"

namespace cowbird {

class PluginCatalog {
 public:
  virtual ~PluginCatalog() = default;
  // [plugins] path of the file, absolute; called once, before all others.
  virtual void use_path(const std::vector<std::filesystem::path> &configured) = 0;
  // As PluginRegistry::find(); the result lives as long as the catalog.
  virtual const PluginInfo *find(PluginKind kind, std::string_view name, PluginError &error) = 0;
  // As PluginRegistry::load().
  virtual bool load(const PluginInfo &plugin, PluginError &error) = 0;
};

class RegistryCatalog final : public PluginCatalog {
 public:
  void use_path(const std::vector<std::filesystem::path> &configured) override;
  const PluginInfo *find(PluginKind kind, std::string_view name, PluginError &error) override;
  bool load(const PluginInfo &plugin, PluginError &error) override;

 private:
  std::unique_ptr<PluginRegistry> registry_;
};

// Over the registry of a running kernel, whose path is settled.
class SharedCatalog final : public PluginCatalog {
 public:
  explicit SharedCatalog(PluginRegistry &registry) : registry_(registry) {}
  void use_path(const std::vector<std::filesystem::path> &) override {}
  const PluginInfo *find(PluginKind kind, std::string_view name, PluginError &error) override {
    return registry_.find(kind, name, error);
  }
  bool load(const PluginInfo &plugin, PluginError &error) override {
    return registry_.load(plugin, error);
  }

 private:
  PluginRegistry &registry_;
};

}  // namespace cowbird
