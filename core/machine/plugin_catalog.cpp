#include "machine/plugin_catalog.hpp"

namespace cowbird {

void RegistryCatalog::use_path(const std::vector<std::filesystem::path> &configured) {
  registry_ = std::make_unique<PluginRegistry>(PluginRegistry::default_search_path(configured));
}

const PluginInfo *RegistryCatalog::find(PluginKind kind, std::string_view name,
                                        PluginError &error) {
  return registry_->find(kind, name, error);
}

bool RegistryCatalog::load(const PluginInfo &plugin, PluginError &error) {
  return registry_->load(plugin, error);
}

}  // namespace cowbird
