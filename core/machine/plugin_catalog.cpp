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

std::vector<std::string> RegistryCatalog::names(PluginKind kind) {
  std::vector<std::string> names;
  for (const auto &listed : registry_->list()) {
    if (listed.info && listed.info->kind == kind) names.push_back(listed.info->name);
  }
  return names;
}

}  // namespace cowbird
