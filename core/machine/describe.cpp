#include "machine/describe.hpp"

#include <fmt/format.h>

#include <string_view>

#include "machine/size.hpp"

namespace cowbird {

namespace {

std::string line(std::string_view what, std::string_view value) {
  return fmt::format("{:<10} {}\n", what, value);
}

std::string describe_root(const RootConfig &root) {
  const char *access = root.read_only ? "read-only" : "read-write";
  switch (root.kind) {
    case RootKind::EmbeddedInitramfs:
      return fmt::format("the embedded initramfs, {}", access);
    case RootKind::InitramfsFile:
      return fmt::format("initramfs {}, {}", root.path, access);
    case RootKind::HostDirectory:
      return fmt::format("host directory {}, {}", root.path, access);
  }
  return {};
}

std::string describe_init(const MachineConfig &config) {
  std::string text = config.init ? *config.init + ", else " : std::string();
  text += "the first of /init, /sbin/init and /bin/sh";
  if (!config.args.empty()) text += fmt::format(", with arguments {}", fmt::join(config.args, " "));
  return text;
}

std::string describe_device(const PluginSetting &device) {
  std::string text = device.plugin;
  if (!device.config.values.empty()) text += ":";
  for (const auto &[key, value] : device.config.values) {
    text += fmt::format(" {}=", key);
    std::visit([&](const auto &v) { text += fmt::format("{}", v); }, value);
  }
  return text;
}

std::string describe_line(const LineSetting &setting) {
  auto text = describe_device(setting.input);
  if (setting.output) text += ", output to " + describe_device(*setting.output);
  return text;
}

}  // namespace

std::string describe_machine(const MachineConfig &config) {
  auto text = line("name", config.name.empty() ? "(random)" : config.name);
  if (!config.directory.empty()) text += line("directory", config.directory);
  if (!config.notify.empty()) text += line("notify", config.notify);
  text += line("memory", format_size(config.memory));
  text += line("vcpus", std::to_string(config.vcpus));
  text += line("root", describe_root(config.root));
  text += line("init", describe_init(config));
  text += line("log level", kLogLevelNames[static_cast<std::size_t>(config.log_level)]);
  if (!config.env.empty()) text += line("env", fmt::format("{}", fmt::join(config.env, " ")));
  if (!config.cmdline.empty()) {
    text += line("cmdline", fmt::format("{}", fmt::join(config.cmdline, " ")));
  }
  if (config.log_to_stderr) text += line("log", "to standard error");
  if (!config.tty_log_dir.empty()) text += line("tty log", config.tty_log_dir);
  if (config.tty_log_fd >= 0) {
    text += line("tty log", fmt::format("descriptor {}", config.tty_log_fd));
  }
  if (config.strace) text += line("strace", "on");
  for (const auto &device : config.blocks) text += line(device.name, describe_device(device));
  for (const auto &device : config.consoles) text += line(device.name, describe_line(device));
  for (const auto &device : config.serials) text += line(device.name, describe_line(device));
  for (const auto &mount : config.mounts) {
    text += line("mount", fmt::format("{} on {}, {}", mount.host, mount.guest,
                                      mount.read_only ? "read-only" : "read-write"));
  }
  const DebugConfig &debug = config.debug;
  if (!debug.gdb.empty()) {
    text += line("gdb", debug.gdb + (debug.wait ? ", waits for it" : ""));
  }
  if (debug.on_panic == OnPanic::Wait) text += line("on panic", "the guest stands still for gdb");
  if (!debug.core.empty()) {
    text += line("core", debug.core + (debug.core_memory ? ", with the memory of programs" : ""));
  }
  for (const auto &folder : config.plugin_path) text += line("plugins", folder.string());
  return text;
}

}  // namespace cowbird
