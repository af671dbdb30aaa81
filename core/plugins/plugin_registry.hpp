// PluginRegistry: finds, examines, loads and holds plugins, checks device configurations against
// their key schemas, and makes the devices. Used by machine/ (schemas, checking), cli/ (`cowbird
// plugin list` and `show`) and boot/ (devices).
//
// Plugins are examined by reading their file: none of their code runs until a device is created or
// load() is called. A plugin of kind K and name NAME is the first NAME.so on the search path that
// is of this kind; each directory is searched itself and in its subfolder for the kind (channels,
// blockdev, transports). A name with a '/' is the path of the file.
//
// Any host thread may examine, before or after the kernel runs; create_* are called with the big
// kernel lock held (or before any other kernel thread exists). Libraries stay loaded until the
// registry and all devices made by it are gone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "plugins/block_backend.hpp"
#include "plugins/channel.hpp"
#include "plugins/host_events.hpp"

namespace cowbird {

enum class PluginKind : std::uint32_t { Transport = 100, Block = 200, Channel = 300 };
// "channel", "block backend", "transport".
std::string_view plugin_kind_name(PluginKind kind);

// Why a plugin, or a device of it, cannot be had. `message` is one or more full sentences that name
// the file, what is wrong and what to do; print it as it is.
enum class PluginFault : std::uint8_t {
  None,
  NotFound,
  Unreadable,         // the file cannot be opened or read
  NotElf,             // not an ELF file
  Truncated,          // an ELF file that ends too early or contradicts itself
  WrongArchitecture,  // for another machine or word size
  NotShared,          // an ELF file that is no shared object
  NoDescriptor,       // a shared object that is no plugin
  BadDescriptor,      // magic, sizes, strings, key schema
  OtherAbi,
  WrongKind,
  UnresolvedSymbol,
  LoadFailed,  // other failures of the dynamic linker (a missing library)
  BadConfig,
  CreateFailed,  // the plugin refused to make the device
};

struct PluginError {
  PluginFault fault = PluginFault::None;
  std::string message;
};

enum class KeyType : std::uint32_t { String = 1, Bool, Int, Size, Enum, Path, Mac, Address };
// "string", "boolean", "integer", "size", "one of", "path", "MAC address", "address".
std::string_view key_type_name(KeyType type);

// A value as it stands in a machine file, and a device's table (machine/'s OptionMap is the same).
using ConfigValue = std::variant<std::string, std::int64_t, bool>;
using ConfigTable = std::map<std::string, ConfigValue>;

struct KeySchema {
  std::string name;
  KeyType type = KeyType::String;
  bool required = false;
  std::optional<std::string> default_text;  // as the plugin wrote it
  bool has_range = false;
  std::int64_t min = 0;
  std::int64_t max = 0;
  std::vector<std::string> choices;
  std::string help;
};

// What a plugin's file says about it.
struct PluginInfo {
  std::filesystem::path file;
  PluginKind kind = PluginKind::Channel;
  std::string name;
  std::string version;
  std::string description;
  std::string license;
  std::string url;
  std::uint32_t abi_version = 0;
  std::uint32_t struct_size = 0;
  std::uint64_t capabilities = 0;
  std::vector<KeySchema> keys;  // in the plugin's order

  const KeySchema *find_key(std::string_view key_name) const;
};

// A configuration that has been checked: defaults filled in, sizes in bytes, words of Bool and Enum
// normalised. Size and Int are int64, Bool is bool, all others text. `values` passes
// validate_config again unchanged.
struct PluginConfig {
  ConfigTable values;
};

// Called for each problem of a configuration: the key it is about (a required key that is missing
// is named too, and is not in the table) and a sentence.
using ConfigProblem = std::function<void(std::string_view key, std::string_view message)>;

// Checks `table` (without the machine file's own keys "name" and "plugin") against the schema,
// reports every problem, and returns the configuration when there was none. Text is accepted for
// every type (UML syntax has nothing else); an integer for Int and Size; a boolean for Bool.
// Relative paths are put behind `base_directory` unless it is empty.
std::optional<PluginConfig> validate_config(const PluginInfo &plugin, const ConfigTable &table,
                                            const std::filesystem::path &base_directory,
                                            const ConfigProblem &problem);

// The text of `cowbird plugin show`.
std::string format_plugin_info(const PluginInfo &plugin);

// Examines one file without running its code; nullopt and the reason when it is no good plugin.
std::optional<PluginInfo> examine_plugin(const std::filesystem::path &file, PluginError &error);

class PluginRegistry {
 public:
  // The directories to search, in this order: `configured` ([plugins] path of the machine file),
  // the environment variable COWBIRD_PLUGIN_PATH (separated by ':'), "plugins" beside the program,
  // and the installed ones. Directories that do not exist are kept: messages name them.
  static std::vector<std::filesystem::path> default_search_path(
      const std::vector<std::filesystem::path> &configured = {});

  explicit PluginRegistry(std::vector<std::filesystem::path> search_path);
  ~PluginRegistry();
  PluginRegistry(const PluginRegistry &) = delete;
  PluginRegistry &operator=(const PluginRegistry &) = delete;

  const std::vector<std::filesystem::path> &search_path() const { return search_path_; }

  // The plugin; nullptr and the reason otherwise. The result lives as long as the registry.
  const PluginInfo *find(PluginKind kind, std::string_view name, PluginError &error);

  // Every *.so on the search path: a plugin, or what is wrong with it. `shadowed`: find() prefers
  // an earlier one. Sorted by kind and name, broken ones last.
  struct Listed {
    std::filesystem::path file;
    std::optional<PluginInfo> info;
    PluginError error;
    bool shadowed = false;
  };
  std::vector<Listed> list() const;

  // Loads the library (once), which resolves all its symbols; false and the reason. `check` uses it
  // to find what create_* would find.
  bool load(const PluginInfo &plugin, PluginError &error);

  // Makes a device. `device_name` ("con0", "ubd0") prefixes its log lines and messages. `plugin`
  // came from find(), `config` from validate_config() for it. nullptr and the reason otherwise.
  // `events` must outlive the device.
  std::unique_ptr<Channel> create_channel(const PluginInfo &plugin, std::string device_name,
                                          const PluginConfig &config, HostEvents &events,
                                          PluginError &error);
  std::unique_ptr<BlockBackend> create_block(const PluginInfo &plugin, std::string device_name,
                                             const PluginConfig &config, HostEvents &events,
                                             PluginError &error);

 private:
  struct Impl;
  std::vector<std::filesystem::path> search_path_;
  std::unique_ptr<Impl> impl_;
};

// Puts back every host terminal mode that open channels have changed. Async-signal-safe: for crash
// handlers, panic, and exits that do not destroy the devices. May be called more than once. exit(3)
// calls it by itself once a channel has been opened; _exit does not.
void restore_host_terminals();

}  // namespace cowbird
