// MachineConfig: the validated description of one guest machine. core/machine/machine_file.hpp
// makes it from a TOML file; core/boot starts what it says. Plain data: copy it, keep it, read it
// from any thread. Whoever holds one may rely on everything that the comments here promise: sizes
// are in range, names are unique, and all host paths are absolute.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.hpp"
#include "base/units.hpp"
#include "plugins/plugin_registry.hpp"

namespace cowbird {

// A plugin, which was found and can be loaded, and its configuration.
// PluginRegistry::find() with the same search path gives the plugin again.
struct PluginSetting {
  std::string plugin;   // a name, or the absolute path of the plugin's file
  ConfigTable options;  // as given; paths are absolute
  PluginConfig config;  // checked and complete
};

// The host side of a console or serial line. The plugin kNoChannel is none: a line that has it on
// both sides does not exist for the guest (ENODEV); on one side, nothing is read, or all output is
// dropped.
inline constexpr std::string_view kNoChannel = "none";
struct LineSetting {
  PluginSetting input;
  std::optional<PluginSetting> output;  // absent: `input` is for both directions

  bool none() const {
    return input.plugin == kNoChannel && (!output || output->plugin == kNoChannel);
  }
};

// One [[block]].
struct DeviceConfig : PluginSetting {
  std::string name;        // as written: "ubd0" or "ubda"
  std::uint32_t unit = 0;  // ubd0 and ubda: 0
  std::string where;       // "demo.toml:12:3", for errors that show only when the device is made
};

// One [[console]] or [[serial]].
struct LineConfig : LineSetting {
  std::string name;        // "con0", "ssl3", "con*"
  std::uint32_t unit = 0;  // con3: 3; kEveryLine: the setting of all lines that have none
  std::string where;
};
inline constexpr std::uint32_t kEveryLine = ~0u;

enum class RootKind : std::uint8_t {
  EmbeddedInitramfs,  // the cpio that the build put into the program
  InitramfsFile,      // `path` is a cpio archive, plain or gzip
  HostDirectory,      // `path` is a directory of the host
};

struct RootConfig {
  RootKind kind = RootKind::EmbeddedInitramfs;
  std::string path;  // absolute
  bool read_only = false;
};

// A host directory shown in the guest.
struct MountConfig {
  std::string host;   // absolute
  std::string guest;  // absolute; made when it is not there
  bool read_only = false;
};

// [debug]: what kernel developers want.
enum class OnPanic : std::uint8_t { Exit, Wait };
struct DebugConfig {
  std::string gdb;    // "tcp:HOST:PORT", "unix:/PATH" or "stdio"; empty: no gdb server is started
  bool wait = false;  // for gdb, before the first kernel thread runs
  OnPanic on_panic = OnPanic::Exit;
  std::string core;          // directory for core files after a panic, absolute; empty: none
  bool core_memory = false;  // they hold the memory of the guest's programs too
};

struct MachineConfig {
  std::string name;       // empty: random_machine_name() gives one when the machine starts
  std::string directory;  // where its run-time directory is made; empty: see instance/instance.hpp
  std::string notify;     // a socket of the host that is told of events; empty: none
  std::uint32_t watchdog_seconds = 60;  // of /dev/watchdog, 1 to 86400
  std::uint64_t memory = 128 * kMiB;    // a multiple of the page size
  std::uint32_t vcpus = 1;
  std::optional<std::string> init;      // absent: the first of /init /sbin/init /bin/sh
  std::vector<std::string> args;        // after init's own name
  LogLevel log_level = LogLevel::Info;  // records of this level and more severe go to the console
  std::vector<std::string> env;         // "NAME=value" for init, over the kernel's own
  std::vector<std::string> cmdline;     // further words of /proc/cmdline
  bool log_to_stderr = false;           // the kernel log goes there instead of the console
  bool strace = false;  // every system call goes to the kernel log, in the manner of strace(1)
  // All that goes over terminals is logged there (tty/tty_log.hpp); at most one of them.
  std::string tty_log_dir;  // absolute; empty: no
  int tty_log_fd = -1;      // a descriptor that the program was started with; -1: no
  RootConfig root;
  std::vector<DeviceConfig> blocks;  // by unit
  // By unit, kEveryLine last. The console of the kernel, /dev/console, is con0, or the first one.
  std::vector<LineConfig> consoles;
  std::vector<LineConfig> serials;
  std::vector<MountConfig> mounts;  // in file order
  DebugConfig debug;
  std::vector<std::filesystem::path> plugin_path;  // for PluginRegistry::default_search_path()
};

inline constexpr std::uint64_t kMinMemory = 16 * kMiB;
inline constexpr std::uint64_t kMaxMemory = 1024 * kGiB;
inline constexpr std::uint32_t kMaxVcpus = 64;
inline constexpr std::uint32_t kMaxBlockUnits = 65536;  // 16 minor numbers each
inline constexpr std::uint32_t kMaxLines = 1u << 20;  // con0 ..., ssl0 ...: the minor numbers' end
// By LogLevel.
inline constexpr std::string_view kLogLevelNames[] = {"emerg",   "alert",  "crit", "err",
                                                      "warning", "notice", "info", "debug"};

// "cowbird-7f3a91", for machines without a name.
std::string random_machine_name();

}  // namespace cowbird
