// Network interfaces in UML's syntax, both ways: `vec0:transport=tap,ifname=tap0,depth=128` (vector
// transports) and `eth0=tuntap,tap0,fe:fd:0:0:0:1` (the older ones, whose parameters stand in a
// fixed order). The machine file's [[net]] tables have the same facts. Nothing is opened or looked
// up. For the sources of core/machine and tests.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plugins/plugin_registry.hpp"

namespace cowbird {

// A [[net]] table without its name.
struct NetSetting {
  std::string plugin;
  std::vector<std::pair<std::string, ConfigValue>> options;  // in the order of the text
};

// What follows "vec0:" or "eth0=". nullopt: `error` is a sentence or more.
std::optional<NetSetting> parse_vector_net(std::string_view text, std::string &error);
std::optional<NetSetting> parse_legacy_net(std::string_view text, std::string &error);

// The whole word for an interface: by its name, "vec0:..." or "eth0=...". nullopt: `error` says
// what has no words there.
std::optional<std::string> net_word(const std::string &name, const NetSetting &net,
                                    std::string &error);

}  // namespace cowbird
