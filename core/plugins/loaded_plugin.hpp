// LoadedPlugin: a library that the dynamic linker has loaded and whose descriptor has been checked
// again in memory. Used by core/plugins only.
#pragma once

#include <cowbird/plugin.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "plugins/plugin_registry.hpp"

namespace cowbird::plugins {

struct LoadedPlugin {
  virtual ~LoadedPlugin() = default;
  // A copy of the plugin's table, of the size that this host knows; what the plugin does not have
  // is null. At least as large as the table of the plugin's kind.
  std::vector<std::max_align_t> ops;
  template <typename Ops>
  const Ops &table() const {
    return *reinterpret_cast<const Ops *>(ops.data());
  }
};

// nullptr and the reason when it cannot be loaded.
std::shared_ptr<LoadedPlugin> load_library(const PluginInfo &plugin, PluginError &error);

std::unique_ptr<Channel> make_channel(std::shared_ptr<LoadedPlugin> loaded,
                                      const PluginInfo &plugin, std::string device_name,
                                      const PluginConfig &config, HostEvents &events,
                                      PluginError &error);
std::unique_ptr<BlockBackend> make_block(std::shared_ptr<LoadedPlugin> loaded,
                                         const PluginInfo &plugin, std::string device_name,
                                         const PluginConfig &config, HostEvents &events,
                                         PluginError &error);

}  // namespace cowbird::plugins
