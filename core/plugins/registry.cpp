// The search path, the list of plugins, and the loaded ones.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <set>
#include <tuple>

#include "base/lock.hpp"
#include "base/own_program.hpp"
#include "plugins/descriptor.hpp"
#include "plugins/loaded_plugin.hpp"
#include "plugins/near_match.hpp"
#include "plugins/plugin_registry.hpp"

namespace cowbird {
namespace fs = std::filesystem;

struct PluginRegistry::Impl {
  // Protects both maps; host file access happens under it.
  Mutex lock{LockRank::PluginHost, "plugin registry"};
  std::map<std::string, std::unique_ptr<PluginInfo>> examined GUARDED_BY(lock);  // by file
  std::map<std::string, std::shared_ptr<plugins::LoadedPlugin>> loaded GUARDED_BY(lock);

  std::shared_ptr<plugins::LoadedPlugin> load(const PluginInfo &plugin, PluginError &error) {
    MutexLock guard(lock);
    auto &slot = loaded[plugin.file.string()];
    if (!slot) slot = plugins::load_library(plugin, error);
    if (slot) error = {};
    return slot;
  }
  const PluginInfo *examine(const fs::path &file, PluginError &error) {
    MutexLock guard(lock);
    auto &slot = examined[file.string()];
    if (!slot) {
      if (auto info = examine_plugin(file, error)) {
        slot = std::make_unique<PluginInfo>(std::move(*info));
      }
    }
    if (slot) error = {};
    return slot.get();
  }
};

namespace {

bool present(const fs::path &file) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(file, ignored));
}

// The directories in which the plugins of this kind are looked for, in order.
std::vector<fs::path> folders_for(const std::vector<fs::path> &search_path, PluginKind kind) {
  std::vector<fs::path> folders;
  folders.reserve(search_path.size() * 2);
  const char *own = plugins::rules_of(static_cast<std::uint32_t>(kind))->folder;
  for (const fs::path &directory : search_path) {
    folders.push_back(directory);
    folders.push_back(directory / own);
  }
  return folders;
}

std::string searched_text(const std::vector<fs::path> &search_path) {
  if (search_path.empty()) return "No directory was searched.";
  std::vector<std::string> texts;
  texts.reserve(search_path.size());
  std::error_code ignored;
  for (const fs::path &directory : search_path) {
    texts.push_back(directory.string() +
                    (fs::is_directory(directory, ignored) ? "" : " (does not exist)"));
  }
  return fmt::format("Searched: {}.", fmt::join(texts, ", "));
}

std::string_view with_article(PluginKind kind) {
  switch (kind) {
    case PluginKind::Transport:
      return "a transport";
    case PluginKind::Block:
      return "a block backend";
    case PluginKind::Channel:
      return "a channel";
  }
  return "of no known kind";
}

PluginError wrong_kind(const PluginInfo &found, PluginKind wanted) {
  return {PluginFault::WrongKind,
          fmt::format("The plugin \"{}\" ({}) is {}, but {} is needed here.", found.name,
                      found.file.string(), with_article(found.kind), with_article(wanted))};
}

void append_unique(std::vector<fs::path> &paths, fs::path path) {
  if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(std::move(path));
}

}  // namespace

PluginRegistry::PluginRegistry(std::vector<fs::path> search_path)
    : search_path_(std::move(search_path)), impl_(std::make_unique<Impl>()) {}
PluginRegistry::~PluginRegistry() = default;

std::vector<fs::path> PluginRegistry::default_search_path(const std::vector<fs::path> &configured) {
  std::vector<fs::path> paths;
  for (const fs::path &path : configured) append_unique(paths, path);
  if (const char *variable = std::getenv("COWBIRD_PLUGIN_PATH")) {
    std::string_view rest(variable);
    while (!rest.empty()) {
      const std::size_t colon = std::min(rest.find(':'), rest.size());
      if (colon > 0) append_unique(paths, fs::path(rest.substr(0, colon)));
      rest.remove_prefix(std::min(colon + 1, rest.size()));
    }
  }
  const fs::path program = own_program_path();
  if (!program.empty()) {
    append_unique(paths, program.parent_path() / "plugins");
    append_unique(paths, program.parent_path().parent_path() / COWBIRD_LIBDIR / "cowbird/plugins");
  }
  append_unique(paths, COWBIRD_PLUGIN_DIR);
  return paths;
}

const PluginInfo *PluginRegistry::find(PluginKind kind, std::string_view name, PluginError &error) {
  if (name.find('/') != std::string_view::npos) {
    const PluginInfo *info = impl_->examine(fs::path(name), error);
    if (info && info->kind != kind) error = wrong_kind(*info, kind);
    return info && info->kind == kind ? info : nullptr;
  }
  PluginError other;
  for (const fs::path &folder : folders_for(search_path_, kind)) {
    const fs::path file = folder / (std::string(name) + ".so");
    if (!present(file)) continue;
    const PluginInfo *info = impl_->examine(file, error);
    if (!info) return nullptr;  // found, but broken: going on would hide it
    if (info->kind == kind) return info;
    if (other.fault == PluginFault::None) other = wrong_kind(*info, kind);
  }
  std::vector<std::string> known;
  for (const Listed &listed : list()) {
    if (!listed.info) continue;
    if (listed.info->kind == kind) known.push_back(listed.info->name);
    if (listed.info->name == name && other.fault == PluginFault::None) {
      other = wrong_kind(*listed.info, kind);
    }
  }
  if (other.fault != PluginFault::None) {
    error = std::move(other);
    return nullptr;
  }
  error = {
      PluginFault::NotFound,
      fmt::format("There is no {} plugin \"{}\".{} {} Install it there, or name its directory in "
                  "[plugins] path or in COWBIRD_PLUGIN_PATH.",
                  plugin_kind_name(kind), name, plugins::did_you_mean(name, known),
                  searched_text(search_path_))};
  return nullptr;
}

std::vector<PluginRegistry::Listed> PluginRegistry::list() const {
  std::vector<Listed> out;
  std::set<std::pair<PluginKind, std::string>> seen;
  std::vector<fs::path> folders;
  for (const fs::path &directory : search_path_) {
    folders.push_back(directory);
    for (const plugins::KindRules &rules : plugins::all_kinds()) {
      folders.push_back(directory / rules.folder);
    }
  }
  for (const fs::path &folder : folders) {
    std::error_code failed;
    std::vector<fs::path> files;
    for (fs::directory_iterator it(folder, failed), end; !failed && it != end;
         it.increment(failed)) {
      if (it->path().extension() == ".so") files.push_back(it->path());
    }
    std::sort(files.begin(), files.end());
    for (const fs::path &file : files) {
      Listed listed{file, std::nullopt, {}, false};
      listed.info = examine_plugin(file, listed.error);
      if (listed.info) {
        listed.shadowed = !seen.emplace(listed.info->kind, listed.info->name).second;
      }
      out.push_back(std::move(listed));
    }
  }
  const auto order = [](const Listed &l) {
    return std::tuple(!l.info, l.info ? l.info->kind : PluginKind::Transport,
                      l.info ? l.info->name : l.file.string(), l.shadowed);
  };
  std::stable_sort(out.begin(), out.end(),
                   [&](const Listed &a, const Listed &b) { return order(a) < order(b); });
  return out;
}

bool PluginRegistry::load(const PluginInfo &plugin, PluginError &error) {
  return impl_->load(plugin, error) != nullptr;
}

namespace {

// The ABI promises plugins that writing to a pipe or socket whose reader has gone is an error code.
void ignore_sigpipe() {
  static const bool done = [] {
    struct sigaction old;
    if (sigaction(SIGPIPE, nullptr, &old) == 0 && old.sa_handler == SIG_DFL) {
      signal(SIGPIPE, SIG_IGN);
    }
    return true;
  }();
  static_cast<void>(done);
}

// What `make` makes of the plugin, which must be of that kind.
template <typename Loader, typename Make>
auto create_device(Loader &impl, const PluginInfo &plugin, PluginKind kind, PluginError &error,
                   Make make) -> decltype(make(impl.load(plugin, error))) {
  if (plugin.kind != kind) {
    error = wrong_kind(plugin, kind);
    return nullptr;
  }
  auto loaded = impl.load(plugin, error);
  if (!loaded) return nullptr;
  ignore_sigpipe();
  return make(std::move(loaded));
}

}  // namespace

std::unique_ptr<Channel> PluginRegistry::create_channel(const PluginInfo &plugin,
                                                        std::string device_name,
                                                        const PluginConfig &config,
                                                        HostEvents &events, PluginError &error) {
  return create_device(*impl_, plugin, PluginKind::Channel, error, [&](auto loaded) {
    return plugins::make_channel(std::move(loaded), plugin, std::move(device_name), config, events,
                                 error);
  });
}

std::unique_ptr<BlockBackend> PluginRegistry::create_block(const PluginInfo &plugin,
                                                           std::string device_name,
                                                           const PluginConfig &config,
                                                           HostEvents &events, PluginError &error) {
  return create_device(*impl_, plugin, PluginKind::Block, error, [&](auto loaded) {
    return plugins::make_block(std::move(loaded), plugin, std::move(device_name), config, events,
                               error);
  });
}

}  // namespace cowbird
