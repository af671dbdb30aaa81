#include "machine/uml_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "machine/device_names.hpp"
#include "machine/device_setting.hpp"
#include "machine/machine_reader.hpp"
#include "machine/size.hpp"
#include "machine/uml_net.hpp"
#include "machine/uml_rules.hpp"

namespace cowbird {

namespace {

class UmlWriter {
 public:
  UmlWriter(std::string file, std::filesystem::path directory, PluginCatalog &plugins,
            const UmlHost &host)
      : problems_(std::move(file), {}),
        directory_(std::move(directory)),
        plugins_(plugins),
        host_(host) {}

  UmlLine write(std::string_view text, const std::string &file);

 private:
  void refuse(const toml::node &node, std::string why) {
    problems_.at(node.source(), std::move(why));
  }
  void refuse(const toml::key &key, std::string why) { problems_.at(key.source(), std::move(why)); }
  void word(std::string text) { words_.push_back(std::move(text)); }
  std::string absolute(const std::string &path) const {
    return path.empty() ? path : (directory_ / path).lexically_normal().string();
  }
  // The value of a key, or nothing after a report.
  std::optional<std::string> text(const toml::node &node, std::string_view key);
  std::optional<bool> boolean(const toml::node &node, std::string_view key);
  std::vector<std::string> texts(const toml::node &node, std::string_view key);
  // The tables of a section; a wrong kind of section is reported.
  std::vector<const toml::table *> tables(const toml::node &node, std::string_view name);

  void write_section(const toml::key &key, const toml::node &node);
  void write_machine(const toml::table &table);
  void write_machine_key(const toml::key &key, const toml::node &value);
  void write_log_level(const toml::node &value);
  void write_words(std::string_view key, const toml::node &value);
  void write_root(const toml::table &table);
  void write_root_source(const toml::table &table, const std::string &source,
                         const std::string &type);
  void write_block(const toml::table &table);
  void write_line(const toml::table &table, bool serial);
  void finish_lines();
  void write_net(const toml::table &table);
  void write_debug(const toml::table &table);
  void check_values(toml::table &root);

  Problems problems_;
  std::filesystem::path directory_;
  PluginCatalog &plugins_;
  const UmlHost &host_;
  struct Line {
    std::size_t word;  // its place in words_
    std::string name;
    LineSetting setting;
  };

  std::vector<std::string> words_;
  std::vector<Line> lines_;
  std::vector<std::string> args_;
};

UmlLine UmlWriter::write(std::string_view text, const std::string &file) {
  plugins_.use_path({});
  auto parsed = parse_toml(text, file);
  if (!parsed.table) {
    problems_.at(parsed.region, parsed.error + ".");
    return {{}, problems_.take()};
  }
  // In the order of the schema, which is that of a usual UML line.
  for (const auto &section : machine_file_schema()) {
    const auto found = parsed.table->find(section.name);
    if (found != parsed.table->end()) write_section(found->first, found->second);
  }
  for (const auto &[key, node] : *parsed.table) {
    if (!find_section(key.str())) {
      refuse(key, fmt::format("There is no table \"{}\" in a machine file.", key.str()));
    }
  }
  if (!problems_.any()) check_values(*parsed.table);
  finish_lines();
  if (!args_.empty()) {
    word("--");
    words_.insert(words_.end(), args_.begin(), args_.end());
  }
  if (problems_.any()) return {{}, problems_.take()};
  // A word that could be taken for the program is not to be the first.
  if (!words_.empty() && is_uml_program(words_.front())) words_.insert(words_.begin(), "linux");
  return {std::move(words_), {}};
}

std::optional<std::string> UmlWriter::text(const toml::node &node, std::string_view key) {
  auto value = node.value_exact<std::string>();
  if (!value || value->find('\0') != std::string::npos) {
    refuse(node, fmt::format("\"{}\" must be a string without NUL characters.", key));
    return std::nullopt;
  }
  return value;
}

std::optional<bool> UmlWriter::boolean(const toml::node &node, std::string_view key) {
  const auto value = node.value_exact<bool>();
  if (!value) refuse(node, fmt::format("\"{}\" must be true or false.", key));
  return value;
}

std::vector<std::string> UmlWriter::texts(const toml::node &node, std::string_view key) {
  std::vector<std::string> found;
  const auto *array = node.as_array();
  if (!array) {
    refuse(node, fmt::format("\"{}\" must be an array of strings.", key));
    return found;
  }
  for (const auto &element : *array) {
    if (auto value = text(element, key)) found.push_back(std::move(*value));
  }
  return found;
}

std::vector<const toml::table *> UmlWriter::tables(const toml::node &node, std::string_view name) {
  const auto *section = find_section(name);
  std::vector<const toml::table *> found;
  const auto add = [&](const toml::node &element) {
    if (const auto *table = element.as_table()) {
      found.push_back(table);
    } else {
      refuse(element, fmt::format("\"{}\" must be {}.", name, section->title()));
    }
  };
  const auto *array = node.as_array();
  if (section->is_array && array) {
    for (const auto &element : *array) add(element);
  } else if (section->is_array) {
    refuse(node, fmt::format("\"{}\" must be {}.", name, section->title()));
  } else {
    add(node);
  }
  return found;
}

void UmlWriter::write_section(const toml::key &key, const toml::node &node) {
  const auto name = key.str();
  for (const auto *table : tables(node, name)) {
    if (name == "machine") {
      write_machine(*table);
    } else if (name == "root") {
      write_root(*table);
    } else if (name == "block") {
      write_block(*table);
    } else if (name == "console" || name == "serial") {
      write_line(*table, name == "serial");
    } else if (name == "net") {
      write_net(*table);
    } else if (name == "debug") {
      write_debug(*table);
    } else if (name == "mount") {
      refuse(*table, "UML has no word for a mount: there, guests mount hostfs themselves.");
    } else if (!table->empty()) {
      refuse(*table, fmt::format("UML has no word for {}.", find_section(name)->title()));
    }
  }
}

// What a machine file may not say, such as a memory of 0, is no word either. Disks, interfaces, the
// root and the logs of terminals are for the start to look at, which may be on another host.
void UmlWriter::check_values(toml::table &root) {
  for (const char *section : {"block", "net", "root", "mount"}) root.erase(section);
  if (auto *machine = root["machine"].as_table()) {
    machine->erase("tty_log_dir");
    machine->erase("tty_log_fd");
  }
  MachineReader(problems_, directory_, plugins_).read(root);
}

// --- [machine]

void UmlWriter::write_machine(const toml::table &table) {
  for (const auto &key : find_section("machine")->keys) {
    const auto found = table.find(key.name);
    if (found != table.end()) write_machine_key(found->first, found->second);
  }
  for (const auto &[key, value] : table) {
    if (!find_section("machine")->find(key.str())) {
      refuse(key, fmt::format("There is no key \"{}\" in [machine].", key.str()));
    }
  }
}

void UmlWriter::write_machine_key(const toml::key &key, const toml::node &value) {
  const auto name = key.str();
  if (name == "memory") {
    std::optional<std::uint64_t> bytes;
    if (const auto size = value.value_exact<std::string>()) bytes = parse_size(*size);
    if (const auto number = value.value_exact<std::int64_t>(); number && *number >= 0) {
      bytes = static_cast<std::uint64_t>(*number);
    }
    if (!bytes) return refuse(value, "\"memory\" must be a size, such as \"128M\".");
    return word("mem=" + format_size(*bytes));
  }
  if (name == "quiet") {
    if (boolean(value, name).value_or(false)) word("quiet");
    return;
  }
  if (name == "strace") {
    if (boolean(value, name).value_or(false)) refuse(key, "UML has no word for \"strace\".");
    return;
  }
  if (name == "log_level") return write_log_level(value);
  if (name == "log_to") {
    if (text(value, name) == "stderr") word("stderr=1");
    return;
  }
  if (name == "notify") {
    if (const auto path = text(value, name)) word("mconsole=notify:" + absolute(*path));
    return;
  }
  if (name == "args" || name == "env" || name == "cmdline") return write_words(name, value);
  // The rest is one word each, found by the key that the word sets.
  const auto rules = uml_rules();
  const auto rule = std::ranges::find_if(rules, [&](const UmlRule &r) {
    return r.section == "machine" && r.key == name &&
           (r.action == UmlAction::Text || r.action == UmlAction::Number);
  });
  if (rule == rules.end()) return refuse(key, fmt::format("UML has no word for \"{}\".", name));
  if (rule->action == UmlAction::Number) {
    const auto number = value.value_exact<std::int64_t>();
    if (!number) return refuse(value, fmt::format("\"{}\" must be an integer.", name));
    return word(fmt::format("{}={}", rule->name, *number));
  }
  const auto given = text(value, name);
  if (!given) return;
  const bool is_path = name == "directory" || name == "tty_log_dir";
  word(fmt::format("{}={}", rule->name, is_path ? absolute(*given) : *given));
}

void UmlWriter::write_log_level(const toml::node &value) {
  const auto level = text(value, "log_level");
  if (!level) return;
  const auto *found = std::ranges::find(kLogLevelNames, *level);
  if (found == std::end(kLogLevelNames)) {
    return refuse(value, fmt::format("There is no log level \"{}\".", *level));
  }
  word(fmt::format("loglevel={}", found - std::begin(kLogLevelNames) + 1));
}

void UmlWriter::write_words(std::string_view key, const toml::node &value) {
  for (auto &item : texts(value, key)) {
    if (key == "args") {
      args_.push_back(std::move(item));
    } else if (key == "env" ? is_uml_environment(item) : is_uml_module_parameter(item)) {
      word(std::move(item));
    } else {
      refuse(value, fmt::format("\"{}\" would be taken for something else in a UML line.", item));
    }
  }
}

// --- [root]

void UmlWriter::write_root(const toml::table &table) {
  for (const auto &[key, value] : table) {
    if (!find_section("root")->find(key.str())) {
      refuse(key, fmt::format("There is no key \"{}\" in [root].", key.str()));
    }
  }
  std::optional<std::string> source, type;
  if (const auto *node = table.get("source")) source = text(*node, "source");
  if (const auto *node = table.get("type")) type = text(*node, "type");
  if (source) write_root_source(table, *source, type.value_or(""));
  std::vector<std::string> flags;
  if (const auto *node = table.get("options")) {
    for (auto &option : texts(*node, "options")) {
      if (option == "ro" || option == "rw") {
        word(std::move(option));
      } else {
        flags.push_back(std::move(option));
      }
    }
    if (!flags.empty()) word(fmt::format("rootflags={}", fmt::join(flags, ",")));
  }
}

void UmlWriter::write_root_source(const toml::table &table, const std::string &source,
                                  const std::string &type) {
  const auto path = absolute(source);
  const auto kind = host_.kind_of(path);
  const bool directory = type == "hostfs" || (type.empty() && kind == UmlHost::FileKind::Directory);
  if (directory) {
    if (path.find(',') != std::string::npos) {
      return refuse(*table.get("source"),
                    "The directory has a comma, which rootflags= cannot say.");
    }
    word("root=/dev/root");
    word("rootfstype=hostfs");
    return word("rootflags=" + path);
  }
  if (const auto unit = block_unit(source); unit && type != "initramfs") {
    word(fmt::format("root=/dev/ubd{}", static_cast<char>('a' + *unit)));
    if (!type.empty()) word("rootfstype=" + type);
    return;
  }
  if (type.empty() || type == "initramfs") return word("initrd=" + path);
  refuse(*table.get("source"),
         fmt::format("\"{}\" of type \"{}\" is no root that UML has a word for.", source, type));
}

// --- devices

void UmlWriter::write_block(const toml::table &table) {
  std::string name, plugin, path, backing, flags;
  for (const auto &[key, value] : table) {
    const auto k = key.str();
    if (k == "name" || k == "plugin" || k == "path" || k == "backing") {
      const auto given = text(value, k);
      if (!given) return;
      (k == "name" ? name : k == "plugin" ? plugin : k == "path" ? path : backing) = *given;
    } else if (k == "readonly" || k == "sync" || k == "lock" || k == "discard") {
      const auto given = boolean(value, k);
      if (!given) return;
      const bool plain = k == "lock" || k == "discard";
      if (*given == plain) continue;
      flags += k == "readonly" ? 'r' : k == "sync" ? 's' : k == "lock" ? 'c' : 't';
    } else {
      return refuse(key, fmt::format("UML has no word for the key \"{}\" of a disk.", k));
    }
  }
  if (!block_unit(name))
    return refuse(table, fmt::format("\"{}\" is no name of a disk; ubd0 or ubda is.", name));
  if (plugin != "file" && plugin != "cow") {
    return refuse(
        table, fmt::format("UML has no word for the block backend \"{}\", only for file and cow.",
                           plugin));
  }
  if (path.empty()) return refuse(table, "The disk has no path.");
  path = absolute(path);
  if (!backing.empty()) backing = absolute(backing);
  if ((path + backing).find_first_of(",:") != std::string::npos) {
    return refuse(table, "The path has a comma or a colon, which separate two files there.");
  }
  if (plugin == "cow" && backing.empty() && host_.kind_of(path) != UmlHost::FileKind::CowFile) {
    return refuse(
        table,
        fmt::format(
            "\"{}\" is no COW file yet; without \"backing\" UML would take it for plain data.",
            path));
  }
  if (plugin == "file" && host_.kind_of(path) == UmlHost::FileKind::CowFile) flags += 'd';
  std::string ordered;
  for (const char flag : std::string_view("rsdct")) {
    if (flags.find(flag) != std::string::npos) ordered += flag;
  }
  word(fmt::format("{}{}={}{}{}", name, ordered, path, backing.empty() ? "" : ",", backing));
}

void UmlWriter::write_line(const toml::table &table, bool serial) {
  const auto *node = table.get("name");
  const auto name = node ? text(*node, "name") : std::nullopt;
  if (!name || !(serial ? serial_unit(*name) : console_unit(*name))) {
    return refuse(table, serial ? "A [[serial]] needs a name such as ssl0, or ssl*."
                                : "A [[console]] needs a name such as con0, or con*.");
  }
  auto nameless = table;
  nameless.erase("name");
  Problems own("", {});
  auto setting = MachineReader(own, directory_, plugins_).read_line_setting(nameless);
  if (!setting) {
    for (const auto &problem : own.take()) refuse(table, problem.message);
    return;
  }
  lines_.push_back(
      {words_.size(), name->ends_with('*') ? name->substr(0, 3) : *name, std::move(*setting)});
  word("");
}

// Now that all lines are known, and with them what is said once for all.
void UmlWriter::finish_lines() {
  std::vector<const LineSetting *> settings;
  settings.reserve(lines_.size());
  for (const Line &line : lines_) settings.push_back(&line.setting);
  const std::string xterm = shared_xterm(settings);
  for (const Line &line : lines_) {
    words_[line.word] =
        fmt::format("{}={}", line.name, line_setting_text(line.setting, plugins_, xterm));
  }
  if (!xterm.empty()) word("xterm=" + xterm);
}

void UmlWriter::write_net(const toml::table &table) {
  NetSetting net;
  std::string name;
  for (const auto &[key, value] : table) {
    const auto k = std::string(key.str());
    if (k == "name" || k == "plugin") {
      const auto given = text(value, k);
      if (!given) return;
      (k == "name" ? name : net.plugin) = *given;
    } else if (const auto given = value.value_exact<std::string>()) {
      net.options.emplace_back(k, *given);
    } else if (const auto number = value.value_exact<std::int64_t>()) {
      net.options.emplace_back(k, *number);
    } else if (const auto flag = value.value_exact<bool>()) {
      net.options.emplace_back(k, *flag);
    } else {
      return refuse(value, fmt::format("\"{}\" must be a string, an integer, true or false.", k));
    }
  }
  std::string error;
  if (auto text = net_word(name, net, error)) return word(std::move(*text));
  refuse(table, error);
}

void UmlWriter::write_debug(const toml::table &table) {
  for (const auto &[key, value] : table) {
    if (key.str() == "gdb") {
      if (const auto address = text(value, "gdb")) word("gdb=" + *address);
    } else if (key.str() != "wait" || boolean(value, "wait").value_or(false)) {
      refuse(key, fmt::format("UML has no word for \"{}\".", key.str()));
    }
  }
}

}  // namespace

UmlLine write_uml(std::string_view text, const std::string &file,
                  const std::filesystem::path &directory, PluginCatalog &plugins,
                  const UmlHost &host) {
  return UmlWriter(file, directory, plugins, host).write(text, file);
}

}  // namespace cowbird
