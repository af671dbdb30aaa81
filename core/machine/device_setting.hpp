// The setting of one device as a person writes it, the same text at boot (UML command lines) and at
// run time (the management console's `config`), into a plugin and its options. Two forms:
//
//   UML's:   pts   port:9000   fd:0,fd:1   pts,xterm   none        lines (con, ssl)
//            /srv/disk.img     disk.cow,base.img   disk.cow:base.img   block devices (ubd)
//   TOML's:  { plugin = "port", port = 9000 }: the keys of the device's table in a machine file,
//            without `name`
//
// In UML's form a channel is its plugin's name and, behind a colon, one argument: the value of the
// plugin's first key (of its keys `input` and `output` for `fd`). The word `pty` is `pts` where no
// plugin has that name, and `none` is no plugin at all.
//
// Any one thread at a time. Files of the host are read (plugins, the first bytes of disk images);
// under the big kernel lock too, as they are few and small.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "machine/machine_config.hpp"
#include "machine/plugin_catalog.hpp"

namespace cowbird {

// What UML's syntax says once for all lines: `xterm=`, the emulator of the xterm channels. The one
// that all of these lines have of their own, which they have then as `xterm`; "" when none has one,
// or they differ.
std::string shared_xterm(const std::vector<const LineSetting *> &lines);

// A console or serial line. Relative paths are put behind `base` unless it is empty. nullopt: what
// is wrong is in `error`, one or more full sentences. Plugins are loaded, so that a broken one is
// found here. `xterm`: see shared_xterm().
std::optional<LineSetting> parse_line_setting(std::string_view text,
                                              const std::filesystem::path &base,
                                              PluginCatalog &plugins, std::string &error,
                                              std::string_view xterm = {});

// A block device. `flags` are those that UML has between the unit and '=': r read-only, s every
// write is durable when it is done, d the file is data even if it looks like a COW file, c other
// programs may write to it (no lock), t discards reach the host's file (the default). Only r goes
// together with the TOML form.
std::optional<PluginSetting> parse_block_setting(std::string_view text, std::string_view flags,
                                                 const std::filesystem::path &base,
                                                 PluginCatalog &plugins, std::string &error);

// The other way, for answers and conversions: UML's form where it says everything that is not a
// default, else TOML's.
std::string line_setting_text(const LineSetting &setting, PluginCatalog &plugins,
                              std::string_view xterm = {});
// As UML answers, without the flags: those are block_setting_flags()'s ("rs").
std::string block_setting_text(const PluginSetting &setting, PluginCatalog &plugins);
std::string block_setting_flags(const PluginSetting &setting);
// The TOML form always: "{ plugin = \"port\", port = 9000 }".
std::string line_setting_toml(const LineSetting &setting);
std::string plugin_setting_toml(const PluginSetting &setting);

}  // namespace cowbird
