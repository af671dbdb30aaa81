// MachineConfig: the validated description of one guest machine. core/machine/machine_file.hpp
// makes it from a TOML file; core/boot starts what it says. Plain data: copy it, keep it, read it
// from any thread. Whoever holds one may rely on everything that the comments here promise: sizes
// are in range, names are unique, and all host paths are absolute.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/log.hpp"
#include "base/units.hpp"

namespace cowbird {

// The value of a plugin's key, checked against the key's declaration. Sizes are integers in bytes;
// paths are strings, made absolute.
using OptionValue = std::variant<std::string, std::int64_t, bool>;
using OptionMap = std::map<std::string, OptionValue>;

// One [[block]], [[console]] or [[net]]: a plugin and the keys for it. Keys that the file leaves
// out are absent from `options`; the plugin's own default holds for them.
struct DeviceConfig {
  std::string name;    // as written: "ubd0" or "ubda", "con0", "vec0"
  std::uint32_t unit;  // ubd0 and ubda: 0; con3: 3
  std::string plugin;
  OptionMap options;
  std::string where;  // "demo.toml:12:3", for errors that show only when the device is made
};

enum class RootKind : std::uint8_t {
  EmbeddedInitramfs,  // the cpio that the build put into the program
  InitramfsFile,      // `path` is a cpio, plain or gzip
  HostDirectory,      // `path` is a directory of the host
  BlockDevice,        // `path` is the name of a [[block]], `type` its file system
};

struct RootConfig {
  RootKind kind = RootKind::EmbeddedInitramfs;
  std::string path;
  std::string type;                  // "initramfs", "hostfs" or the file system on a block device
  bool read_only = false;            // `ro` stands in the options
  std::vector<std::string> options;  // what is left of the options: "key=value" or "key"
};

// A host directory shown in the guest.
struct MountConfig {
  std::string host;   // absolute
  std::string guest;  // absolute; made when it is not there
  bool read_only = false;
};

struct MachineConfig {
  std::string name;  // empty: random_machine_name() gives one when the machine starts
  std::uint64_t memory = 128 * kMiB;  // a multiple of the page size
  std::uint32_t vcpus = 1;
  std::optional<std::string> init;      // absent: the first of /init /sbin/init /bin/sh
  std::vector<std::string> args;        // after init's own name
  LogLevel log_level = LogLevel::Info;  // records of this level and more severe go to the console
  RootConfig root;
  std::vector<DeviceConfig> blocks;      // by unit
  std::vector<DeviceConfig> consoles;    // by unit; never empty, has con0
  std::vector<DeviceConfig> nets;        // in file order
  std::vector<MountConfig> mounts;       // in file order
  std::vector<std::string> plugin_path;  // searched before the built-in folders
};

inline constexpr std::uint64_t kMinMemory = 16 * kMiB;
inline constexpr std::uint64_t kMaxMemory = 1024 * kGiB;
inline constexpr std::uint32_t kMaxVcpus = 64;
inline constexpr std::uint32_t kMaxBlockUnits = 26;  // ubda to ubdz
inline constexpr std::uint32_t kMaxConsoles = 64;

// "cowbird-7f3a91", for machines without a name.
std::string random_machine_name();

}  // namespace cowbird
