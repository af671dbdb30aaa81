#include "cli/commands.hpp"

#include <fmt/format.h>
#include <fmt/ostream.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string_view>

#include "cli/command_line.hpp"
#include "cli/console_client.hpp"
#include "cli/convert.hpp"
#include "cli/daemon.hpp"
#include "cli/gdb_client.hpp"
#include "cli/list_guests.hpp"
#include "cli/mconsole_command.hpp"
#include "instance/instance.hpp"
#include "machine/describe.hpp"
#include "machine/machine_file.hpp"
#include "plugins/near_match.hpp"

namespace cowbird::cli {

namespace {

// A `run` guest's environment, before --env.
constexpr std::string_view kDefaultPath =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

class Commands {
 public:
  explicit Commands(const Environment &environment) : env_(environment) {}

  int operator()(const PrintText &print) {
    env_.out << print.text;
    return kExitOk;
  }
  int operator()(const WrongUsage &wrong) { return usage_error(wrong.message); }
  int operator()(const BootArguments &arguments);
  int operator()(const RunArguments &arguments);
  int operator()(const CheckArguments &arguments);
  int operator()(const ConvertArguments &arguments) { return convert(arguments, env_); }
  int operator()(const ListArguments &arguments) { return list_guests(arguments, env_); }
  int operator()(const ConsoleArguments &arguments);
  int operator()(GdbArguments arguments);
  int operator()(GdbServerArguments arguments);
  int operator()(const PluginListArguments &arguments);
  int operator()(const PluginShowArguments &arguments);
  int operator()(const MconsoleArguments &arguments) {
    return run_mconsole(arguments, env_.out, env_.err);
  }

 private:
  int usage_error(const std::string &message) {
    env_.err << message << '\n';
    return kExitUsage;
  }
  void print_error(const std::string &where, const std::string &message) {
    const char *red = env_.colour ? "\033[1;31m" : "";
    const char *plain = env_.colour ? "\033[0m" : "";
    fmt::print(env_.err, "{}: {}error:{} {}\n", where, red, plain, message);
  }
  void print_errors(const std::vector<ConfigError> &errors) {
    for (const auto &error : errors) print_error(error.where, error.message);
  }
  int boot(const BootRequest &request);

  const Environment &env_;
};

std::vector<SetOption> set_options(const std::vector<std::string> &sets) {
  std::vector<SetOption> options;
  options.reserve(sets.size());
  for (const auto &set : sets) options.push_back(SetOption::from_argument(set));
  return options;
}

int Commands::boot(const BootRequest &request) {
  std::string error;
  const int status = env_.boot(request, error);
  if (!error.empty()) print_error("cowbird", error);
  return status;
}

int Commands::operator()(const BootArguments &arguments) {
  const auto options = set_options(arguments.sets);
  auto loaded = arguments.uml ? load_uml(*arguments.uml, options, env_.plugins)
                              : load_machine_file(arguments.file, options, env_.plugins);
  if (!loaded.config) {
    print_errors(loaded.errors);
    env_.err << "Nothing was started.\n";
    return kExitHostError;
  }
  BootRequest request;
  request.config = std::move(*loaded.config);
  std::error_code ignored;
  if (!arguments.uml) {
    request.file = std::filesystem::absolute(arguments.file, ignored).lexically_normal();
  }
  auto &args = request.config.args;
  args.insert(args.end(), arguments.init_args.begin(), arguments.init_args.end());
  if (arguments.daemon) {
    detach_consoles(request.config);
    const auto status = become_daemon(arguments.log, env_.out, env_.err, request.up);
    if (status) return *status;
  }
  return boot(request);
}

// HOST:GUEST[:ro|:rw] as options of the mount with this index; empty when it is written wrongly.
std::vector<SetOption> mount_options(const std::string &mount, std::size_t index) {
  const auto first = mount.find(':');
  if (first == 0 || first == std::string::npos) return {};
  const auto second = mount.find(':', first + 1);
  const auto access = second == std::string::npos ? "rw" : mount.substr(second + 1);
  if (access != "ro" && access != "rw") return {};
  const auto origin = "--mount " + mount;
  const auto key = fmt::format("mount.{}.", index);
  const auto guest =
      mount.substr(first + 1, second == std::string::npos ? second : second - first - 1);
  return {SetOption::from_text(origin, key + "host", mount.substr(0, first)),
          SetOption::from_text(origin, key + "guest", guest),
          {origin, key + (access == "ro" ? "ro=true" : "ro=false"), false}};
}

std::string variable(const char *name, std::string_view fallback) {
  const char *value = std::getenv(name);
  return fmt::format("{}={}", name, value ? value : fallback);
}

// NAME=VALUE as it stands; NAME alone means the caller's value, if it has one.
std::vector<std::string> guest_environment(const std::vector<std::string> &wanted) {
  std::vector<std::string> env{std::string(kDefaultPath), "HOME=/root", variable("TERM", "linux")};
  for (const auto &item : wanted) {
    const auto equals = item.find('=');
    const auto name = item.substr(0, equals);
    std::erase_if(env, [&](const auto &e) { return e.starts_with(name + "="); });
    if (equals != std::string::npos) {
      env.push_back(item);
    } else if (const char *value = std::getenv(name.c_str())) {
      env.push_back(name + "=" + value);
    }
  }
  return env;
}

bool sets_log_level(const std::vector<std::string> &sets) {
  return std::ranges::any_of(sets, [](const auto &set) {
    return set.starts_with("machine.log_level") || set.starts_with("machine.quiet");
  });
}

int Commands::operator()(const RunArguments &arguments) {
  if (!arguments.workdir.starts_with('/')) {
    return usage_error(
        fmt::format("--workdir \"{}\" must be an absolute path in the guest.", arguments.workdir));
  }
  for (const auto &item : arguments.env) {
    if (item.empty() || item[0] == '=')
      return usage_error(fmt::format("--env \"{}\" has no name.", item));
  }
  std::vector<SetOption> options;
  if (!arguments.root.empty()) {
    options.push_back(
        SetOption::from_text("--root " + arguments.root, "root.source", arguments.root));
  }
  if (arguments.read_only) options.push_back({"--read-only", "root.options=[\"ro\"]", false});
  if (!arguments.memory.empty()) {
    options.push_back(
        {"--memory " + arguments.memory, "machine.memory=" + arguments.memory, false});
  }
  if (!arguments.vcpus.empty()) {
    options.push_back({"--vcpus " + arguments.vcpus, "machine.vcpus=" + arguments.vcpus, false});
  }
  if (arguments.strace) options.push_back({"--strace", "machine.strace=true", false});
  for (std::size_t i = 0; i < arguments.mounts.size(); ++i) {
    const auto mount = mount_options(arguments.mounts[i], i);
    if (mount.empty()) {
      return usage_error(
          fmt::format("--mount \"{}\" is not HOST:GUEST or HOST:GUEST:ro.", arguments.mounts[i]));
    }
    options.insert(options.end(), mount.begin(), mount.end());
  }
  const auto sets = set_options(arguments.sets);
  options.insert(options.end(), sets.begin(), sets.end());

  auto loaded =
      parse_machine("", "cowbird run", std::filesystem::current_path(), options, env_.plugins);
  if (!loaded.config) {
    print_errors(loaded.errors);
    return kExitHostError;
  }
  // The output is the program's; the kernel speaks up only when something is wrong.
  if (!sets_log_level(arguments.sets)) {
    loaded.config->log_level = loaded.config->strace ? LogLevel::Info : LogLevel::Err;
  }
  return boot({std::move(*loaded.config),
               RunCommand{arguments.command, guest_environment(arguments.env), arguments.workdir},
               {},
               {}});
}

int Commands::operator()(const CheckArguments &arguments) {
  const auto loaded = load_machine_file(arguments.file, set_options(arguments.sets), env_.plugins);
  if (!loaded.config) {
    print_errors(loaded.errors);
    fmt::print(env_.err, "{}: {} error{}.\n", arguments.file, loaded.errors.size(),
               loaded.errors.size() == 1 ? "" : "s");
    return kExitHostError;
  }
  env_.out << describe_machine(*loaded.config);
  return kExitOk;
}

int Commands::operator()(const ConsoleArguments &arguments) {
  const auto escape = EscapeKey::parse(arguments.escape);
  if (!escape) {
    return usage_error(
        fmt::format("--escape \"{}\" is no key. Write one such as ctrl-], ^a or ~, or none.",
                    arguments.escape));
  }
  std::string error;
  const auto root = instance_root(arguments.directory, error);
  const auto guest = root ? find_instance(*root, arguments.guest, error) : std::nullopt;
  if (!guest) {
    print_error("cowbird", error);
    return kExitHostError;
  }
  return attach_console(
      {guest->name, guest->directory, arguments.device, arguments.read_only, *escape}, env_.err);
}

int Commands::operator()(GdbArguments arguments) {
  std::string error;
  if (!arguments.core.empty() && arguments.program.empty()) {
    arguments.program = env_.core_program(arguments.core);
  }
  const int status = start_gdb(arguments, error);
  print_error("cowbird", error);
  return status;
}

int Commands::operator()(GdbServerArguments arguments) {
  std::string error;
  if (!arguments.guest.empty()) {
    const auto root = instance_root(arguments.directory, error);
    const auto guest = root ? find_instance(*root, arguments.guest, error) : std::nullopt;
    if (!guest) {
      print_error("cowbird", error);
      return kExitHostError;
    }
    arguments.pid = guest->pid;
  }
  const int status = env_.gdbserver(arguments, error);
  if (!error.empty()) print_error("cowbird", error);
  return status;
}

std::vector<std::filesystem::path> search_path(const std::vector<std::string> &first) {
  std::vector<std::filesystem::path> configured;
  configured.reserve(first.size());
  for (const auto &folder : first) configured.push_back(std::filesystem::absolute(folder));
  return PluginRegistry::default_search_path(configured);
}

int Commands::operator()(const PluginListArguments &arguments) {
  const PluginRegistry registry(search_path(arguments.path));
  const auto found = registry.list();
  if (arguments.names_only) {
    for (const auto &listed : found) {
      if (listed.info && !listed.shadowed) env_.out << listed.info->name << '\n';
    }
    return kExitOk;
  }
  for (const auto &listed : found) {
    if (!listed.info) continue;
    fmt::print(
        env_.out, "{:<14} {:<12} {}{}\n", plugin_kind_name(listed.info->kind), listed.info->name,
        listed.info->description,
        listed.shadowed ? fmt::format(" (hidden by another; {})", listed.file.string()) : "");
  }
  for (const auto &listed : found) {
    if (!listed.info) print_error(listed.file.string(), listed.error.message);
  }
  if (found.empty()) {
    env_.err << "There are no plugins in:\n";
    for (const auto &folder : registry.search_path()) env_.err << "  " << folder.string() << '\n';
  }
  return kExitOk;
}

// A plugin that is of no kind at all.
std::string no_such_plugin(const PluginRegistry &registry, const std::string &name) {
  std::vector<std::string> names;
  for (const auto &listed : registry.list()) {
    if (listed.info) names.push_back(listed.info->name);
  }
  const auto near = plugins::near_match(name, names);
  auto message = near.empty()
                     ? fmt::format("There is no plugin \"{}\".", name)
                     : fmt::format("There is no plugin \"{}\"; did you mean \"{}\"?", name, near);
  message += " Searched:";
  for (const auto &folder : registry.search_path()) message += " " + folder.string();
  return message + ".";
}

int Commands::operator()(const PluginShowArguments &arguments) {
  PluginRegistry registry(search_path(arguments.path));
  PluginError error;
  bool shown = false;
  for (const auto kind : {PluginKind::Channel, PluginKind::Block, PluginKind::Transport}) {
    PluginError found;
    if (const auto *plugin = registry.find(kind, arguments.name, found)) {
      env_.out << (shown ? "\n" : "") << format_plugin_info(*plugin);
      shown = true;
    } else if (found.fault != PluginFault::NotFound && found.fault != PluginFault::WrongKind) {
      error = std::move(found);  // it is there, but broken
    }
  }
  if (shown) return kExitOk;
  if (error.fault == PluginFault::None) error.message = no_such_plugin(registry, arguments.name);
  print_error("cowbird", error.message);
  return kExitHostError;
}

}  // namespace

int run_command_line(const std::vector<std::string> &arguments, const Environment &environment) {
  return std::visit(Commands(environment), parse_command_line(arguments));
}

}  // namespace cowbird::cli
