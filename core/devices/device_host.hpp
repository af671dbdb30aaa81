// What the drivers of devices make them of. For devices/ and boot/.
#pragma once

#include <filesystem>
#include <string>

#include "plugins/host_events.hpp"
#include "plugins/plugin_registry.hpp"

namespace cowbird {

// Both outlive the drivers.
struct DeviceHost {
  PluginRegistry &plugins;
  HostEvents &events;
  std::filesystem::path directory;  // what relative names of files at run time are relative to
  std::string xterm{};  // what `xterm` is, see shared_xterm() of machine/device_setting.hpp
};

// The refusal of every driver for what the guest uses; management tools know these words.
inline constexpr std::string_view kDeviceIsOpen = "Device is currently open";

}  // namespace cowbird
