// Loading: Boost.DLL, and the rewording of what the dynamic linker says.
#define BOOST_DLL_USE_STD_FS 1
#include <cxxabi.h>
#include <fmt/format.h>

#include <algorithm>
#include <boost/dll/shared_library.hpp>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <system_error>

#include "plugins/descriptor.hpp"
#include "plugins/loaded_plugin.hpp"

namespace cowbird::plugins {
namespace {

struct BoostPlugin final : LoadedPlugin {
  boost::dll::shared_library library;
};

// Boost puts the dynamic linker's sentence into what(): "... (dlerror system message: SENTENCE):
// ...".
std::string linker_sentence(std::string_view what) {
  constexpr std::string_view kBefore = "dlerror system message: ";
  const std::size_t start = what.find(kBefore);
  if (start == std::string_view::npos) return std::string(what);
  what.remove_prefix(start + kBefore.size());
  return std::string(what.substr(0, what.rfind("):")));
}

std::string demangled(const std::string &symbol) {
  int status = 0;
  char *plain = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  if (status != 0 || !plain) return symbol;
  std::string out = fmt::format("{} ({})", plain, symbol);
  free(plain);
  return out;
}

PluginError explain_failure(const PluginInfo &plugin, const std::string &sentence) {
  constexpr std::string_view kUndefined = "undefined symbol: ";
  const std::size_t at = sentence.find(kUndefined);
  if (at != std::string::npos) {
    std::string symbol = sentence.substr(at + kUndefined.size());
    symbol.resize(std::min(symbol.size(), symbol.find_first_of(",) \n")));
    return {
        PluginFault::UnresolvedSymbol,
        fmt::format("The plugin {} cannot be loaded: it uses the symbol {}, which neither it nor "
                    "a library that it is linked with defines. Link it with that library (and "
                    "with -Wl,-z,defs, which finds this at build time).",
                    plugin.file.string(), demangled(symbol))};
  }
  return {PluginFault::LoadFailed,
          fmt::format("The plugin {} cannot be loaded: {}.", plugin.file.string(), sentence)};
}

// The file may have been replaced since it was examined: what matters is looked at again, in
// memory.
bool same_in_memory(const PluginInfo &plugin, const cowbird_plugin &descriptor) {
  if (descriptor.magic != COWBIRD_PLUGIN_MAGIC || descriptor.abi_version != plugin.abi_version ||
      descriptor.struct_size != plugin.struct_size ||
      descriptor.kind != static_cast<std::uint32_t>(plugin.kind) || !descriptor.ops ||
      descriptor.key_count != plugin.keys.size() || plugin.name != descriptor.name) {
    return false;
  }
  const KindRules &rules = *rules_of(descriptor.kind);
  const auto *header = static_cast<const cowbird_ops_header *>(descriptor.ops);
  if (header->kind != descriptor.kind || header->struct_size < rules.min_ops_size) return false;
  return std::all_of(rules.required.begin(), rules.required.end(), [&](const RequiredFunction &f) {
    void *function;
    memcpy(&function, static_cast<const char *>(descriptor.ops) + f.offset, sizeof function);
    return function != nullptr;
  });
}

}  // namespace

std::shared_ptr<LoadedPlugin> load_library(const PluginInfo &plugin, PluginError &error) {
  auto loaded = std::make_shared<BoostPlugin>();
  const cowbird_plugin *descriptor = nullptr;
  try {
    namespace dll = boost::dll;
    loaded->library.load(std::filesystem::absolute(plugin.file),
                         dll::load_mode::rtld_now | dll::load_mode::rtld_local);
    descriptor = &loaded->library.get<const cowbird_plugin>(COWBIRD_PLUGIN_SYMBOL);
  } catch (const std::exception &failure) {
    error = explain_failure(plugin, linker_sentence(failure.what()));
    return nullptr;
  }
  if (!same_in_memory(plugin, *descriptor)) {
    error = {PluginFault::BadDescriptor,
             fmt::format("The plugin {} is not what it was when it was examined: its descriptor "
                         "changed. Start again once the file is complete; a descriptor must be "
                         "initialised at compile time.",
                         plugin.file.string())};
    return nullptr;
  }
  const auto *header = static_cast<const cowbird_ops_header *>(descriptor->ops);
  const KindRules &rules = *rules_of(descriptor->kind);
  loaded->ops.resize((rules.full_ops_size + sizeof(std::max_align_t) - 1) /
                     sizeof(std::max_align_t));
  memset(loaded->ops.data(), 0, rules.full_ops_size);
  memcpy(loaded->ops.data(), descriptor->ops, std::min(header->struct_size, rules.full_ops_size));
  error = {};
  return loaded;
}

}  // namespace cowbird::plugins
