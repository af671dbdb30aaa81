// What the loader knows about the plugin ABI's descriptor and function tables beyond their
// declarations: the oldest sizes, the required functions, the limits. Used by core/plugins only.
#pragma once

#include <cowbird/plugin.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "plugins/plugin_registry.hpp"

namespace cowbird::plugins {

// Sizes of the oldest structures that are accepted: they end where the headers say "The oldest
// plugins end here".
inline constexpr std::uint32_t kMinDescriptorSize = offsetof(cowbird_plugin, description);
inline constexpr std::uint32_t kMinKeySize = sizeof(cowbird_key);
inline constexpr std::uint32_t kMaxStructSize = 4096;
inline constexpr std::uint32_t kMaxKeys = 256;

struct RequiredFunction {
  const char *name;
  std::size_t offset;
};
struct KindRules {
  PluginKind kind;
  const char *folder;           // subfolder of a search directory
  const char *table_name;       // for messages
  std::uint32_t min_ops_size;   // where the oldest plugins' table ends
  std::uint32_t full_ops_size;  // as this host knows it
  std::span<const RequiredFunction> required;
};
// nullptr for a number that is no kind.
const KindRules *rules_of(std::uint32_t kind);
std::span<const KindRules> all_kinds();

}  // namespace cowbird::plugins
