#include "machine/machine_reader.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>
#include <system_error>

#include "machine/device_names.hpp"

namespace cowbird {

namespace {

constexpr std::int64_t kMaxWatchdogSeconds = 86400;
constexpr std::size_t kMaxArguments = 256;
constexpr std::size_t kMaxPluginFolders = 64;
constexpr std::size_t kMaxMounts = 64;
constexpr std::size_t kMaxNameLength = 63;  // of UML's umid
std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const auto &section : machine_file_schema()) names.emplace_back(section.name);
  return names;
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.';
}

// A name that is a host name, a folder name and a word for people at once.
bool is_machine_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameLength && name[0] != '-' && name[0] != '.' &&
         std::ranges::all_of(name, is_name_character);
}

bool is_port(std::string_view text) {
  unsigned port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port <= 65535;
}

std::string_view hint_of_top_level(std::string_view key) {
  for (const auto &section : machine_file_schema()) {
    if (section.find(key)) return section.name;
  }
  return {};
}

}  // namespace

MachineConfig MachineReader::read(const toml::table &root) {
  check_top_level(root);
  for_each_table(root, "plugins", [this](SectionReader &s) { read_plugin_path(s); });
  plugins_.use_path(config_.plugin_path);
  for_each_table(root, "machine", [this](SectionReader &s) { read_machine(s); });
  for_each_table(root, "root", [this](SectionReader &s) { read_root(s); });
  for_each_table(root, "mount", [this](SectionReader &s) { read_mount(s); });
  for_each_table(root, "debug", [this](SectionReader &s) { read_debug(s); });
  read_devices(root);
  if (config_.debug.gdb == "stdio") check_stdio_is_free();
  return std::move(config_);
}

void MachineReader::check_top_level(const toml::table &root) {
  for (const auto &[key, value] : root) {
    const auto name = key.str();
    if (find_section(name)) continue;
    if (const auto home = hint_of_top_level(name); !home.empty() && !value.is_table()) {
      problems_.at(key.source(), fmt::format("\"{}\" stands outside of a table; it belongs in {}.",
                                             name, find_section(home)->title()));
      continue;
    }
    problems_.at(key.source(), fmt::format("There is no table \"{}\" in a machine file{}", name,
                                           name_hint(name, section_names())));
  }
}

std::vector<const toml::table *> MachineReader::tables(const toml::table &root,
                                                       std::string_view name) {
  std::vector<const toml::table *> found;
  const auto *node = root.get(name);
  if (!node) return found;
  const auto &section = *find_section(name);
  if (!section.is_array) {
    if (const auto *table = node->as_table()) {
      found.push_back(table);
    } else {
      problems_.at(node->source(), fmt::format("\"{}\" must be a table, {}, not {}.", name,
                                               section.title(), toml_type_name(*node)));
    }
    return found;
  }
  const auto *array = node->as_array();
  if (!array) {
    problems_.at(node->source(), fmt::format("\"{}\" must be an array of tables, not {}. Write {}.",
                                             name, toml_type_name(*node), section.title()));
    return found;
  }
  for (const auto &element : *array) {
    if (const auto *table = element.as_table()) {
      found.push_back(table);
    } else {
      problems_.at(element.source(), fmt::format("\"{}\" must hold tables only, not {}.", name,
                                                 toml_type_name(element)));
    }
  }
  return found;
}

template <typename Function>
void MachineReader::for_each_table(const toml::table &root, std::string_view name, Function read) {
  for (const auto *table : tables(root, name)) {
    SectionReader section(problems_, *find_section(name), *table);
    read(section);
  }
}

void MachineReader::read_devices(const toml::table &root) {
  for_each_table(root, "block", [this](SectionReader &s) { read_block(s); });
  for_each_table(root, "console", [this](SectionReader &s) { read_line(s, config_.consoles); });
  for_each_table(root, "serial", [this](SectionReader &s) { read_line(s, config_.serials); });
  for_each_table(root, "net", [this](SectionReader &s) { read_net(s); });
  const auto by_unit = [](const auto &a, const auto &b) { return a.unit < b.unit; };
  std::ranges::sort(config_.blocks, by_unit);
  std::ranges::sort(config_.consoles, by_unit);
  std::ranges::sort(config_.serials, by_unit);
  if (!root.contains("console")) add_default_console();
}

void MachineReader::read_machine(SectionReader &section) {
  if (auto name = section.text("name")) {
    if (!is_machine_name(*name)) {
      section.problem("name", fmt::format("\"{}\" is no name for a machine: it must be 1 to {} "
                                          "letters, digits, '-', '_' and '.', and begin with a "
                                          "letter, a digit or '_'.",
                                          *name, kMaxNameLength));
    }
    config_.name = std::move(*name);
  }
  if (const auto directory = section.text("directory")) {
    if (directory->empty()) {
      section.problem("directory", "\"directory\" is empty, but must be a path on the host.");
    }
    config_.directory = resolve(*section.node("directory"), *directory);
  }
  if (const auto notify = section.text("notify")) {
    if (notify->empty()) {
      section.problem("notify", "\"notify\" is empty, but must be the path of a socket.");
    }
    config_.notify = resolve(*section.node("notify"), *notify);
  }
  if (const auto seconds = section.integer("watchdog", 1, kMaxWatchdogSeconds)) {
    config_.watchdog_seconds = static_cast<std::uint32_t>(*seconds);
  }
  if (const auto memory = section.size("memory", kMinMemory, kMaxMemory)) {
    if (!page_aligned(*memory)) {
      section.problem("memory", fmt::format("\"memory\" is {} bytes, but must be a multiple of {}.",
                                            *memory, kPageSize));
    }
    config_.memory = *memory;
  }
  if (const auto vcpus = section.integer("vcpus", 1, kMaxVcpus)) {
    config_.vcpus = static_cast<std::uint32_t>(*vcpus);
  }
  if (auto init = section.text("init")) {
    if (!init->starts_with('/')) {
      section.problem("init", fmt::format("\"init\" is \"{}\", but must be an absolute path in the "
                                          "guest, such as \"/sbin/init\".",
                                          *init));
    }
    config_.init = std::move(*init);
  }
  for (auto &item : section.texts("args", kMaxArguments)) {
    config_.args.push_back(std::move(item.text));
  }
  read_env(section);
  for (auto &item : section.texts("cmdline", kMaxArguments)) {
    config_.cmdline.push_back(std::move(item.text));
  }
  read_log_level(section);
  read_log_to(section);
  read_tty_log(section);
  config_.strace = section.boolean("strace").value_or(false);
}

void MachineReader::read_env(SectionReader &section) {
  for (auto &item : section.texts("env", kMaxArguments)) {
    const auto equals = item.text.find('=');
    if (equals == 0 || equals == std::string::npos) {
      problems_.at(item.node->source(),
                   fmt::format("\"{}\" is no variable: write \"NAME=value\".", item.text));
      continue;
    }
    config_.env.push_back(std::move(item.text));
  }
}

void MachineReader::read_log_to(SectionReader &section) {
  const auto target = section.text("log_to");
  if (!target) return;
  config_.log_to_stderr = target == "stderr";
  if (target != "stderr" && target != "console") {
    section.problem("log_to", fmt::format("\"log_to\" is \"{}\", but must be \"console\" or "
                                          "\"stderr\".",
                                          *target));
  }
}

void MachineReader::read_log_level(SectionReader &section) {
  const auto quiet = section.boolean("quiet");
  if (quiet.value_or(false)) config_.log_level = LogLevel::Err;
  const auto level = section.text("log_level");
  if (!level) return;
  const auto found = std::ranges::find(kLogLevelNames, *level);
  if (found == std::end(kLogLevelNames)) {
    section.problem(
        "log_level",
        fmt::format("There is no log level \"{}\"{}", *level,
                    name_hint(*level, {std::begin(kLogLevelNames), std::end(kLogLevelNames)})));
    return;
  }
  if (quiet.value_or(false)) {
    section.problem("quiet",
                    "\"quiet\" and \"log_level\" contradict each other. Keep one of them.");
    return;
  }
  config_.log_level = static_cast<LogLevel>(found - std::begin(kLogLevelNames));
}

void MachineReader::read_tty_log(SectionReader &section) {
  if (const auto directory = section.text("tty_log_dir")) {
    const auto &node = *section.node("tty_log_dir");
    config_.tty_log_dir = resolve(node, *directory);
    check_directory(node, config_.tty_log_dir);
  }
  const auto fd = section.integer("tty_log_fd", 0, std::numeric_limits<int>::max());
  if (!fd) return;
  config_.tty_log_fd = static_cast<int>(*fd);
  if (!config_.tty_log_dir.empty()) {
    section.problem("tty_log_fd",
                    "\"tty_log_fd\" and \"tty_log_dir\" contradict each other. Keep one of them.");
  }
}

void MachineReader::read_root(SectionReader &section) {
  for (const auto &option : section.texts("options", kMaxArguments)) {
    if (option.text == "ro" || option.text == "rw") {
      config_.root.read_only = option.text == "ro";
    } else {
      problems_.at(option.node->source(),
                   fmt::format("There is no root option \"{}\"{}", option.text,
                               name_hint(option.text, {"ro", "rw"})));
    }
  }
  auto type = section.text("type");
  if (type && *type != "hostfs" && *type != "initramfs") {
    section.problem("type", fmt::format("This version has no root file system \"{}\"{}", *type,
                                        name_hint(*type, {"hostfs", "initramfs"})));
    type.reset();
  }
  const auto source = section.text("source");
  if (!source) {
    if (type == "hostfs") {
      section.problem("type", "A root of type \"hostfs\" needs the key \"source\", a directory.");
    }
    return;
  }
  read_root_source(section, *source, type);
}

void MachineReader::read_root_source(SectionReader &section, const std::string &source,
                                     const std::optional<std::string> &type) {
  auto &root = config_.root;
  const bool is_block_name = block_unit(source).has_value();
  root.path = resolve(*section.node("source"), source);
  struct stat status {};
  if (::stat(root.path.c_str(), &status) != 0) {
    const int error = errno;
    section.problem(
        "source",
        is_block_name
            ? fmt::format("This version cannot mount the block device \"{}\" as root; a "
                          "root is a directory of the host or an initramfs.",
                          source)
            : fmt::format("The root \"{}\" cannot be used: {}.", root.path, std::strerror(error)));
    return;
  }
  if (S_ISDIR(status.st_mode)) {
    root.kind = RootKind::HostDirectory;
    if (type == "initramfs") {
      section.problem("type", fmt::format("\"{}\" is a directory, and so no initramfs.", source));
    }
    return;
  }
  root.kind = RootKind::InitramfsFile;
  if (!S_ISREG(status.st_mode)) {
    section.problem("source",
                    fmt::format("The root \"{}\" is neither a directory nor a file.", root.path));
  } else if (type == "hostfs") {
    section.problem("type", fmt::format("\"{}\" is a file; \"hostfs\" needs a directory.", source));
  } else if (::access(root.path.c_str(), R_OK) != 0) {
    section.problem("source", fmt::format("The root \"{}\" cannot be read: {}.", root.path,
                                          std::strerror(errno)));
  }
}

void MachineReader::read_mount(SectionReader &section) {
  MountConfig mount;
  if (auto host = section.required_text("host")) {
    const auto &node = *section.node("host");
    mount.host = resolve(node, *host);
    check_directory(node, mount.host);
  }
  if (const auto guest = section.required_text("guest")) {
    mount.guest = std::filesystem::path(*guest).lexically_normal().string();
    while (mount.guest.size() > 1 && mount.guest.ends_with('/')) mount.guest.pop_back();
    if (!guest->starts_with('/') || mount.guest == "/") {
      section.problem("guest", fmt::format("\"{}\" is no place for a mount: it must be an absolute "
                                           "path in the guest, and not \"/\" itself ([root] is for "
                                           "that).",
                                           *guest));
    } else {
      claim("mount " + mount.guest, mount.guest, *section.node("guest"));
    }
  }
  mount.read_only = section.boolean("ro").value_or(false);
  if (config_.mounts.size() == kMaxMounts) {
    problems_.at(section.table().source(),
                 fmt::format("There are more than {} mounts.", kMaxMounts));
  }
  if (config_.mounts.size() <= kMaxMounts) config_.mounts.push_back(std::move(mount));
}

void MachineReader::read_gdb_address(SectionReader &section, const std::string &address) {
  constexpr std::string_view kUnix = "unix:", kTcp = "tcp:";
  constexpr std::size_t kLongestSocket = 107;  // unix(7)
  const bool tcp = address.starts_with(kTcp) && is_port(address.substr(address.rfind(':') + 1));
  if (address == "stdio" || tcp) {
    config_.debug.gdb = address;
  } else if (address.starts_with(kUnix) && address.size() > kUnix.size()) {
    const std::string path = resolve(*section.node("gdb"), address.substr(kUnix.size()));
    if (path.size() > kLongestSocket) {
      section.problem(
          "gdb", fmt::format("The path \"{}\" is too long for a socket: at most {} bytes.", path,
                             kLongestSocket));
    }
    config_.debug.gdb = fmt::format("{}{}", kUnix, path);
  } else {
    section.problem("gdb", fmt::format("\"{}\" is no address for a gdb server: write "
                                       "\"tcp:127.0.0.1:1234\", \"unix:PATH\" or \"stdio\".",
                                       address));
  }
}

void MachineReader::read_debug(SectionReader &section) {
  DebugConfig &debug = config_.debug;
  const auto address = section.text("gdb");
  if (address) read_gdb_address(section, *address);
  debug.wait = section.boolean("wait").value_or(false);
  if (debug.wait && !address) {
    section.problem("wait",
                    "There is nothing to wait for: \"wait\" needs the key \"gdb\", the "
                    "address of a gdb server.");
  }
  if (const auto on_panic = section.text("on_panic")) {
    if (*on_panic != "exit" && *on_panic != "wait") {
      section.problem("on_panic", fmt::format("\"on_panic\" cannot be \"{}\"{}", *on_panic,
                                              name_hint(*on_panic, {"exit", "wait"})));
    }
    if (*on_panic == "wait") debug.on_panic = OnPanic::Wait;
  }
  if (const auto core = section.text("core")) {
    debug.core = resolve(*section.node("core"), *core);
    check_directory(*section.node("core"), debug.core);
  }
  debug.core_memory = section.boolean("core_memory").value_or(false);
  if (debug.core_memory && debug.core.empty()) {
    section.problem("core_memory",
                    "There is no core file to put memory into: \"core_memory\" needs "
                    "the key \"core\", a directory.");
  }
}

// gdb talks to the server on the descriptors that a console would have.
void MachineReader::check_stdio_is_free() {
  for (const auto &console : config_.consoles) {
    if (console.input.plugin != "fd") continue;
    problems_.at_file(
        fmt::format("{}: the console {} is on descriptors of this process, which a "
                    "gdb server on \"stdio\" needs; put it elsewhere (plugin \"pts\").",
                    console.where, console.name));
  }
}

void MachineReader::read_plugin_path(SectionReader &section) {
  for (const auto &item : section.texts("path", kMaxPluginFolders)) {
    auto folder = resolve(*item.node, item.text);
    if (check_directory(*item.node, folder)) config_.plugin_path.emplace_back(std::move(folder));
  }
}

bool MachineReader::claim(const std::string &identity, const std::string &shown,
                          const toml::node &node) {
  const auto [entry, first] = claimed_.emplace(identity, problems_.where(node.source()));
  if (!first) {
    problems_.at(node.source(), fmt::format("The name \"{}\" is used twice; the other is at {}.",
                                            shown, entry->second));
  }
  return first;
}

std::string MachineReader::resolve(const toml::node &node, const std::string &path) const {
  if (path.empty()) return path;  // stays what no file is called
  std::error_code error;
  auto base = directory_;
  if (problems_.from_option(node.source())) base = std::filesystem::current_path(error);
  return (base / path).lexically_normal().string();
}

bool MachineReader::check_directory(const toml::node &node, const std::string &path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    problems_.at(node.source(), fmt::format("The directory \"{}\" cannot be used: {}.", path,
                                            std::strerror(errno)));
    return false;
  }
  if (!S_ISDIR(status.st_mode)) {
    problems_.at(node.source(), fmt::format("\"{}\" is no directory.", path));
    return false;
  }
  return true;
}

}  // namespace cowbird
