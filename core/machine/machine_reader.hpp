// MachineReader: from a parsed machine file to a MachineConfig; everything that is wrong goes into
// the Problems. For the sources of core/machine.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "machine/machine_config.hpp"
#include "machine/plugin_catalog.hpp"
#include "machine/problems.hpp"
#include "machine/schema.hpp"
#include "machine/section_reader.hpp"
#include "machine/toml.hpp"

namespace cowbird {

class MachineReader {
 public:
  // `directory`: what relative paths in the file are relative to; absolute.
  MachineReader(Problems &problems, std::filesystem::path directory, PluginCatalog &plugins)
      : problems_(problems), directory_(std::move(directory)), plugins_(plugins) {}

  // Complete only when no problem was reported.
  MachineConfig read(const toml::table &root);

  // One device's table without its name, as it is given at run time; nullopt when a problem was
  // reported.
  std::optional<LineSetting> read_line_setting(const toml::table &table);
  std::optional<PluginSetting> read_block_setting(const toml::table &table);

 private:
  void check_top_level(const toml::table &root);
  // The tables of a section that are tables; what is not is reported.
  std::vector<const toml::table *> tables(const toml::table &root, std::string_view section);
  // Calls read(SectionReader &) for each table of a section.
  template <typename Function>
  void for_each_table(const toml::table &root, std::string_view section, Function read);

  void read_machine(SectionReader &section);
  void read_log_level(SectionReader &section);
  void read_env(SectionReader &section);
  void read_log_to(SectionReader &section);
  void read_tty_log(SectionReader &section);
  void read_root(SectionReader &section);
  void read_root_source(SectionReader &section, const std::string &source,
                        const std::optional<std::string> &type);
  void read_mount(SectionReader &section);
  void read_debug(SectionReader &section);
  void read_gdb_address(SectionReader &section, const std::string &address);
  void check_stdio_is_free();
  void read_plugin_path(SectionReader &section);

  void read_devices(const toml::table &root);
  void read_block(SectionReader &section);
  void read_line(SectionReader &section, std::vector<LineConfig> &lines);
  std::optional<LineSetting> read_channels(SectionReader &section);
  // The keys `plugin` and the plugin's own; the section's other keys are left out.
  std::optional<PluginSetting> read_plugin(SectionReader &section, PluginKind kind);
  void read_net(SectionReader &section);
  void add_default_console();
  const PluginInfo *find_plugin(SectionReader &section, PluginKind kind, std::string &name);
  bool read_options(SectionReader &section, const PluginInfo &plugin, PluginSetting &setting);
  std::optional<ConfigValue> read_option(SectionReader &section, const KeySchema &key);
  // True the first time; else reports that the name is used twice.
  bool claim(const std::string &identity, const std::string &shown, const toml::node &node);

  // An absolute path for what a value means.
  std::string resolve(const toml::node &node, const std::string &path) const;
  bool check_directory(const toml::node &node, const std::string &path);

  Problems &problems_;
  std::filesystem::path directory_;
  PluginCatalog &plugins_;
  MachineConfig config_;
  std::map<std::string, std::string> claimed_;  // identity -> where it was used first
};

}  // namespace cowbird
