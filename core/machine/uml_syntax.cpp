#include "machine/uml_syntax.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <map>
#include <optional>

#include "machine/device_names.hpp"
#include "machine/device_setting.hpp"
#include "machine/section_reader.hpp"
#include "machine/size.hpp"
#include "machine/toml_text.hpp"
#include "machine/uml_net.hpp"
#include "machine/uml_rules.hpp"

namespace cowbird {

namespace {

constexpr std::uint32_t kUbdMajor = 98;
constexpr std::uint32_t kMinorsOfDisk = 16;
constexpr std::array<char, 4> kCowMagic = {'M', 'O', 'O', 'O'};

class RealHost final : public UmlHost {
 public:
  FileKind kind_of(const std::string &path) const override {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) return FileKind::Directory;
    if (!std::filesystem::exists(path, ignored)) return FileKind::Absent;
    if (!std::filesystem::is_regular_file(path, ignored)) return FileKind::Other;
    std::array<char, kCowMagic.size()> start{};
    std::ifstream in(path, std::ios::binary);
    const bool cow = in.read(start.data(), start.size()) && start == kCowMagic;
    return cow ? FileKind::CowFile : FileKind::Other;
  }
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A word NAME or NAME=VALUE.
struct Option {
  const UmlWord *word;
  std::string_view name;
  std::optional<std::string_view> value;
};

Option split_option(const UmlWord &word) {
  const std::string_view text = word.text;
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) return {&word, text, std::nullopt};
  return {&word, text.substr(0, equals), text.substr(equals + 1)};
}

// What follows the prefix of a device's name and is one of its units: "0", "12", and nothing for
// all of them. Other names, such as `console`, only begin alike.
std::optional<std::string_view> line_unit_of(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  if (!std::ranges::all_of(name, is_digit)) return std::nullopt;
  return name;
}

// "ubd0rs": unit "0", flags "rs".
struct BlockName {
  std::string unit;
  std::string flags;
};
std::optional<BlockName> parse_block_name(std::string_view name) {
  if (!name.starts_with("ubd")) return std::nullopt;
  name.remove_prefix(3);
  std::size_t digits = 0;
  while (digits < name.size() && is_digit(name[digits])) ++digits;
  const std::size_t length = digits > 0 ? digits : 1;
  if (name.empty() || (digits == 0 && (name[0] < 'a' || name[0] > 'z'))) return std::nullopt;
  return BlockName{std::string(name.substr(0, length)), std::string(name.substr(length))};
}

// Linux's memparse(): a number in any of C's bases and a unit.
std::optional<std::uint64_t> parse_memory(std::string_view text) {
  if (!text.starts_with("0x") && !text.starts_with("0X")) return parse_size(text);
  text.remove_prefix(2);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return parse_size(std::to_string(value) + std::string(text));
}

std::string missing_key(const UmlRule &rule) {
  return fmt::format("This version has nothing that {}= could mean: no key \"{}\" in [{}].",
                     rule.name, rule.key, rule.section);
}

class UmlReader {
 public:
  UmlReader(PluginCatalog &plugins, const UmlHost &host) : plugins_(plugins), host_(host) {}

  UmlMachine read(std::span<const UmlWord> words);

 private:
  struct Disk {
    std::string path;
    std::string where;
    bool read_only = false;
    bool is_directory = false;
  };
  struct Given {
    std::string value;
    std::string where;
  };

  void refuse(const UmlWord &word, std::string why) {
    machine_.errors.push_back({word.where, std::move(why)});
  }
  void refuse_at(const std::string &where, std::string why) {
    machine_.errors.push_back({where, std::move(why)});
  }
  // A setting that takes the place of an earlier one of the same key, as later words do in Linux.
  void set(const std::string &where, const std::string &key, const std::string &toml) {
    const auto earlier = std::ranges::find_if(
        machine_.settings, [&](const SetOption &s) { return s.assignment.starts_with(key + "="); });
    SetOption setting{where, key + "=" + toml, false};
    if (earlier != machine_.settings.end()) {
      *earlier = std::move(setting);
    } else {
      machine_.settings.push_back(std::move(setting));
    }
  }
  void set_text(const std::string &where, const std::string &key, std::string_view text) {
    set(where, key, quote_toml(text));
  }

  void read_word(const UmlWord &word);
  bool read_device(const Option &option);
  bool read_simple(const Option &option);
  void apply(const UmlRule &rule, const Option &option);
  void read_block(const Option &option, const BlockName &name);
  void add_disk(const Option &option, const BlockName &name, std::string_view path,
                std::string_view backing);
  void read_line(const Option &option, std::string_view section, std::string_view unit);
  void read_net(const UmlWord &word, std::string_view name, std::optional<NetSetting> net,
                const std::string &error);
  void read_memory(const Option &option);
  void read_log_level(const Option &option);
  void read_mconsole(const Option &option);
  void read_stderr(const Option &option);
  void read_console(const Option &option);

  void finish_disks();
  void finish_xterm();
  void finish_root();
  void root_on_hostfs();
  void root_on_disk();
  std::optional<std::string> disk_of_root();
  void set_root_options();
  void finish_lists();

  PluginCatalog &plugins_;
  const UmlHost &host_;
  UmlMachine machine_;
  std::map<std::uint32_t, Disk> disks_;
  std::map<std::string, std::size_t> indices_;  // "console con0" -> index in its array
  std::map<std::string, std::size_t> counts_;   // "console" -> length of its array
  std::map<std::string, std::string> claimed_;  // disks and interfaces -> where
  std::map<std::string, LineSetting> lines_;    // "console.0" -> its channels
  std::map<std::string, Given> given_;          // what [root] is made of, and xterm
  std::vector<Given> args_, env_, shown_;
};

UmlMachine UmlReader::read(std::span<const UmlWord> words) {
  plugins_.use_path({});
  // A whole line of a script begins with the program.
  if (!words.empty() && is_uml_program(words.front().text)) words = words.subspan(1);
  while (!words.empty() && words.front().text != "--") {
    read_word(words.front());
    words = words.subspan(1);
  }
  if (!words.empty()) words = words.subspan(1);
  for (const auto &word : words) args_.push_back({word.text, word.where});
  finish_disks();
  finish_xterm();
  finish_root();
  finish_lists();
  return std::move(machine_);
}

void UmlReader::read_word(const UmlWord &word) {
  if (word.text.empty()) return;
  if (word.text.find('\0') != std::string::npos) return refuse(word, "There is a NUL byte in it.");
  if (word.text.starts_with('[')) {
    return refuse(word, "This is the beginning of a table of a machine file, not a word of UML's.");
  }
  const auto option = split_option(word);
  if (read_device(option) || read_simple(option)) return;
  const auto class_of = classify_uml_word(word.text);
  if (class_of == UmlWordClass::Redirection) {
    return refuse(word, "Redirections are the shell's; write them outside of the UML line.");
  }
  auto &list = class_of == UmlWordClass::ModuleParameter ? shown_
               : class_of == UmlWordClass::Environment   ? env_
                                                         : args_;
  list.push_back({word.text, word.where});
}

// --- devices

bool UmlReader::read_device(const Option &option) {
  const auto &[word, name, value] = option;
  const std::string_view text = word->text;
  const auto colon = text.find(':');
  if (const auto vec = text.substr(0, colon);
      colon != std::string_view::npos && vec.size() > 3 && line_unit_of(vec, "vec")) {
    std::string error;
    auto net = parse_vector_net(text.substr(colon + 1), error);
    read_net(*word, vec, std::move(net), error);
    return true;
  }
  if (!value) return false;
  if (const auto unit = line_unit_of(name, "con")) {
    read_line(option, "console", *unit);
    return true;
  }
  if (const auto unit = line_unit_of(name, "ssl")) {
    read_line(option, "serial", *unit);
    return true;
  }
  if (name.size() > 3 && line_unit_of(name, "eth")) {
    std::string error;
    auto net = parse_legacy_net(*value, error);
    read_net(*word, name, std::move(net), error);
    return true;
  }
  if (name.size() > 3 && line_unit_of(name, "vec")) {
    refuse(*word, fmt::format("A vector interface is written with a colon: {}:{}.", name, *value));
    return true;
  }
  if (const auto block = parse_block_name(name)) {
    read_block(option, *block);
    return true;
  }
  if (name.starts_with("udb")) {
    refuse(*word, fmt::format("\"{}\" is misspelt; write ubd{}=.", name, name.substr(3)));
    return true;
  }
  return false;
}

void UmlReader::read_net(const UmlWord &word, std::string_view name, std::optional<NetSetting> net,
                         const std::string &error) {
  if (!net) return refuse(word, error);
  const auto [entry, first] = claimed_.emplace(fmt::format("net {}", name), word.where);
  if (!first) {
    return refuse(word, fmt::format("The interface {} is given twice; the other is {}.", name,
                                    entry->second));
  }
  const auto path = fmt::format("net.{}", counts_["net"]++);
  set_text(word.where, path + ".name", name);
  set_text(word.where, path + ".plugin", net->plugin);
  for (const auto &[key, option] : net->options) {
    set(word.where, fmt::format("{}.{}", path, key), toml_value(option));
  }
}

void UmlReader::read_line(const Option &option, std::string_view section, std::string_view unit) {
  const auto &[word, prefix, value] = option;
  if (value->starts_with('/')) {
    return refuse(*word,
                  fmt::format("A terminal of the host is written {}=tty:{}.", prefix, *value));
  }
  std::string error;
  const auto setting = parse_line_setting(*value, {}, plugins_, error);
  if (!setting) return refuse(*word, error);
  const auto device = section == "console" ? "con" : "ssl";
  const auto name = fmt::format("{}{}", device, unit.empty() ? "*" : unit);
  const auto [entry, added] = indices_.emplace(name, counts_[std::string(section)]);
  if (added) ++counts_[std::string(section)];
  const auto path = fmt::format("{}.{}", section, entry->second);
  // Whole, so that nothing of an earlier setting stays.
  auto table = line_setting_toml(*setting);
  table.insert(1, fmt::format(" name = {},", quote_toml(name)));
  set(word->where, path, table);
  lines_[path] = *setting;
}

void UmlReader::read_block(const Option &option, const BlockName &name) {
  const auto &[word, text, value] = option;
  for (const char flag : name.flags) {
    if (std::string_view("rsdct").find(flag) != std::string_view::npos) continue;
    return refuse(
        *word, fmt::format("There is no flag \"{}\" for a disk; r (read-only), s (synchronous), d "
                           "(data, never a COW file), c (shared, no lock) and t (no discard) are.",
                           flag));
  }
  auto separator = value->find(',');
  if (separator == std::string_view::npos) separator = value->find(':');
  const auto path = value->substr(0, separator);
  if (path.empty()) return refuse(*word, fmt::format("The file is missing: {}=FILE.", text));
  if (separator == std::string_view::npos) return add_disk(option, name, path, {});
  const auto backing = value->substr(separator + 1);
  if (backing.find(',') != std::string_view::npos) {
    return refuse(*word,
                  "There are at most two files. UML's third one is a serial number, which "
                  "disks do not have here.");
  }
  if (backing.empty()) {
    return refuse(*word, fmt::format("The backing file behind \"{}\" is missing.",
                                     value->substr(0, separator + 1)));
  }
  if (name.flags.find('d') != std::string::npos) {
    return refuse(*word, "The flag d (data, never a COW file) contradicts a second file.");
  }
  add_disk(option, name, path, backing);
}

void UmlReader::add_disk(const Option &option, const BlockName &name, std::string_view path,
                         std::string_view backing) {
  const auto &where = option.word->where;
  const auto has = [&](char flag) { return name.flags.find(flag) != std::string::npos; };
  const auto device = "ubd" + name.unit;
  const auto unit = block_unit(device);
  if (!unit) {
    return refuse(*option.word, fmt::format("There is no disk {}; there are ubd0, ubd1 and so on, "
                                            "the first 26 also as ubda to ubdz.",
                                            device));
  }
  const auto [entry, first] = claimed_.emplace(fmt::format("ubd {}", *unit), where);
  if (!first) {
    return refuse(*option.word, fmt::format("The disk {} is given twice; the other is {}.", device,
                                            entry->second));
  }
  const auto kind = backing.empty() ? host_.kind_of(std::string(path)) : UmlHost::FileKind::CowFile;
  disks_[*unit] = {std::string(path), where, has('r'), kind == UmlHost::FileKind::Directory};
  if (kind == UmlHost::FileKind::Directory) return;
  const bool cow = kind == UmlHost::FileKind::CowFile && !has('d');
  const auto block = fmt::format("block.{}", counts_["block"]++);
  set_text(where, block + ".name", device);
  set_text(where, block + ".plugin", cow ? "cow" : "file");
  set_text(where, block + ".path", path);
  if (!backing.empty()) set_text(where, block + ".backing", backing);
  if (has('r')) set(where, block + ".readonly", "true");
  if (has('s')) set(where, block + ".sync", "true");
  if (has('c')) set(where, block + ".lock", "false");
  if (has('t')) set(where, block + ".discard", "false");
}

void UmlReader::finish_disks() {
  for (const auto &[unit, disk] : disks_) {
    if (!disk.is_directory) continue;
    // A directory in the place of the boot disk is UML's older way to say a root on hostfs.
    const auto root = given_.find("root");
    const bool is_boot_disk =
        unit == 0 && !given_.contains("initrd") && !given_.contains("rootfstype");
    if (is_boot_disk && (root == given_.end() || disk_of_root() == "ubd0")) continue;
    refuse_at(disk.where, fmt::format("\"{}\" is a directory, and so no disk.", disk.path));
  }
}

// --- single words

bool UmlReader::read_simple(const Option &option) {
  const auto *rule = find_uml_rule(option.name, option.value.has_value());
  if (!rule) return false;
  if (option.value && option.value->empty() && rule->takes != UmlTakes::Anything) {
    refuse(*option.word, fmt::format("The value behind \"{}=\" is missing.", option.name));
  } else {
    apply(*rule, option);
  }
  return true;
}

void UmlReader::apply(const UmlRule &rule, const Option &option) {
  const auto &[word, name, value] = option;
  switch (rule.action) {
    case UmlAction::Refuse:
      return refuse(*word, std::string(rule.text));
    case UmlAction::NeedsValue:
      return refuse(*word, fmt::format("\"{}\" needs a value: {}.", name, rule.text));
    case UmlAction::Text:
      if (!find_section(rule.section)->find(rule.key)) return refuse(*word, missing_key(rule));
      return set_text(word->where, fmt::format("{}.{}", rule.section, rule.key), *value);
    case UmlAction::Number: {
      std::uint32_t number = 0;
      const auto *end = value->data() + value->size();
      const auto [stop, error] = std::from_chars(value->data(), end, number);
      if (error != std::errc{} || stop != end) {
        return refuse(*word,
                      fmt::format("\"{}\" is no number; write it such as {}.", *value, rule.text));
      }
      if (!find_section(rule.section)->find(rule.key)) return refuse(*word, missing_key(rule));
      return set(word->where, fmt::format("{}.{}", rule.section, rule.key), std::to_string(number));
    }
    case UmlAction::Keep:
      given_[std::string(rule.key)] = {std::string(value.value_or(name)), word->where};
      return;
    case UmlAction::Memory:
      return read_memory(option);
    case UmlAction::LogLevel:
      return read_log_level(option);
    case UmlAction::Mconsole:
      return read_mconsole(option);
    case UmlAction::Stderr:
      return read_stderr(option);
    case UmlAction::Console:
      return read_console(option);
  }
}

void UmlReader::read_memory(const Option &option) {
  const auto bytes = parse_memory(*option.value);
  if (!bytes) {
    return refuse(*option.word,
                  fmt::format("\"{}\" is no size; write it such as mem=128M.", *option.value));
  }
  // UML rounds up to whole pages.
  set_text(option.word->where, "machine.memory",
           format_size((*bytes + kPageSize - 1) / kPageSize * kPageSize));
}

// Linux shows messages below the number; our levels are the last ones shown.
void UmlReader::read_log_level(const Option &option) {
  int level = option.name == "debug" ? 8 : 4;  // quiet: errors and worse
  if (option.value) {
    const auto *end = option.value->data() + option.value->size();
    const auto [stop, error] = std::from_chars(option.value->data(), end, level);
    if (error != std::errc{} || stop != end || level < 0 || level > 15) {
      return refuse(*option.word, fmt::format("\"{}\" is no log level; write a number from 0 to 8.",
                                              *option.value));
    }
  }
  const auto shown = static_cast<std::size_t>(std::clamp(level - 1, 0, 7));
  set_text(option.word->where, "machine.log_level", kLogLevelNames[shown]);
}

void UmlReader::read_mconsole(const Option &option) {
  constexpr std::string_view kNotify = "notify:";
  if (!option.value->starts_with(kNotify) || option.value->size() == kNotify.size()) {
    return refuse(*option.word,
                  "Write it mconsole=notify:SOCKET, with a datagram socket that is there already.");
  }
  set_text(option.word->where, "machine.notify", option.value->substr(kNotify.size()));
}

void UmlReader::read_stderr(const Option &option) {
  if (option.value != "0" && option.value != "1") {
    return refuse(*option.word,
                  "Write stderr=1 for the kernel log on standard error, stderr=0 for the console.");
  }
  set_text(option.word->where, "machine.log_to", option.value == "1" ? "stderr" : "console");
}

void UmlReader::read_console(const Option &option) {
  // /dev/console is con0, which Linux calls tty0.
  const auto name = option.value->substr(0, option.value->find(','));
  if (name == "tty0" || name == "tty") return;
  refuse(
      *option.word,
      "/dev/console is always con0. Leave console= out, or say which channel con0 has: con0=pts.");
}

// `xterm=EMULATOR,TITLE,EXEC` is about all xterm channels.
void UmlReader::finish_xterm() {
  const auto given = given_.find("xterm");
  if (given == given_.end()) return;
  const auto &[value, where] = given->second;
  PluginError error;
  const auto *plugin = plugins_.find(PluginKind::Channel, "xterm", error);
  if (!plugin) return refuse_at(where, error.message);
  if (plugin->keys.empty()) {
    return refuse_at(where, "The channel xterm has no key for what xterm= means.");
  }
  const auto key = "." + plugin->keys.front().name;
  bool used = false;
  for (const auto &[path, line] : lines_) {
    if (line.input.plugin == "xterm") {
      set_text(where, path + key, value);
      used = true;
    }
    if (line.output && line.output->plugin == "xterm") {
      set_text(where, fmt::format("{}.output_channel{}", path, key), value);
      used = true;
    }
  }
  if (!used)
    refuse_at(where,
              "No console or serial line is an xterm; write one such as con1=xterm, or leave "
              "xterm= out.");
}

// --- the root file system

void UmlReader::finish_root() {
  const auto has = [&](const char *key) { return given_.contains(key); };
  if (has("initrd")) {
    for (const char *other : {"root", "rootfstype", "rootflags"}) {
      if (!has(other)) continue;
      refuse_at(given_[other].where,
                fmt::format(
                    "The initrd is the root here, and init stays on it; leave out initrd= or {}=.",
                    other));
    }
    set_text(given_["initrd"].where, "root.source", given_["initrd"].value);
    set_text(given_["initrd"].where, "root.type", "initramfs");
  } else if (has("rootfstype") && given_["rootfstype"].value == "hostfs") {
    root_on_hostfs();
  } else {
    root_on_disk();
  }
  if (has("hostfs") && !(has("rootfstype") && given_["rootfstype"].value == "hostfs")) {
    refuse_at(given_["hostfs"].where,
              "Guests cannot mount hostfs themselves: the host's side says what they see. Write a "
              "[[mount]] table in a machine file, or rootfstype=hostfs for the root.");
  }
  set_root_options();
}

void UmlReader::root_on_hostfs() {
  const auto root = given_.find("root");
  if (root != given_.end()) {
    const auto &name = root->second.value;
    if (name != "/dev/root" && name != "none" && name != "hostfs" && name != "0:0") {
      refuse_at(
          root->second.where,
          fmt::format(
              "A root of type hostfs is no device; write root=/dev/root or leave out root={}.",
              name));
    }
  }
  const auto flags = given_.find("rootflags");
  const auto &type = given_["rootfstype"];
  std::string directory = flags == given_.end() ? "/" : flags->second.value;
  std::string where = flags == given_.end() ? type.where : flags->second.where;
  if (!directory.starts_with('/')) {
    return refuse_at(
        where,
        fmt::format("\"{}\" is no directory of the host: write rootflags=/DIRECTORY.", directory));
  }
  if (const auto jail = given_.find("hostfs"); jail != given_.end()) {
    const auto comma = jail->second.value.find(',');
    if (comma != std::string::npos) {
      return refuse_at(jail->second.where,
                       fmt::format("hostfs has no mode \"{}\" here. A read-only root is `ro`.",
                                   jail->second.value.substr(comma + 1)));
    }
    auto prefix = jail->second.value;
    while (prefix.ends_with('/')) prefix.pop_back();
    directory = directory == "/" && !prefix.empty() ? prefix : prefix + directory;
    where = jail->second.where;
  }
  set_text(where, "root.source", directory);
  set_text(type.where, "root.type", "hostfs");
}

// The disk that root= names, as "ubd3"; an empty text after a refusal, nullopt without root=.
std::optional<std::string> UmlReader::disk_of_root() {
  const auto given = given_.find("root");
  if (given == given_.end()) return std::nullopt;
  return uml_root_disk(given->second.value).value_or("");
}

void UmlReader::root_on_disk() {
  const auto root = given_.find("root");
  const auto type = given_.find("rootfstype");
  std::uint32_t unit = 0;
  std::string where;
  if (root != given_.end()) {
    where = root->second.where;
    const auto disk = uml_root_disk(root->second.value);
    if (!disk) return refuse_at(where, explain_uml_root(root->second.value));
    unit = block_unit(*disk).value_or(0);
  } else if (type != given_.end()) {
    where = type->second.where;  // UML's default is 98:0
  } else if (disks_.contains(0) && disks_[0].is_directory) {
    where = disks_[0].where;
  } else {
    if (const auto flags = given_.find("rootflags"); flags != given_.end()) {
      refuse_at(flags->second.where, "rootflags= needs root= or rootfstype=.");
    }
    return;
  }
  const auto disk = disks_.find(unit);
  if (disk == disks_.end()) {
    return refuse_at(where,
                     fmt::format("The root is to be ubd{}, but there is no ubd{}=.", unit, unit));
  }
  if (disk->second.is_directory) {
    set_text(disk->second.where, "root.source", disk->second.path);
    set_text(disk->second.where, "root.type", "hostfs");
    if (disk->second.read_only && !given_.contains("access"))
      given_["access"] = {"ro", disk->second.where};
    return;
  }
  set_text(where, "root.source", fmt::format("ubd{}", unit));
  if (type != given_.end()) set_text(type->second.where, "root.type", type->second.value);
}

void UmlReader::set_root_options() {
  std::vector<std::string> options;
  std::string where;
  const auto flags = given_.find("rootflags");
  const auto type = given_.find("rootfstype");
  const bool hostfs = type != given_.end() && type->second.value == "hostfs";
  if (flags != given_.end() && !hostfs) {
    where = flags->second.where;
    std::string_view text = flags->second.value;
    for (;;) {
      const auto comma = text.find(',');
      if (comma != 0) options.emplace_back(text.substr(0, comma));
      if (comma == std::string_view::npos) break;
      text.remove_prefix(comma + 1);
    }
  }
  if (const auto access = given_.find("access"); access != given_.end()) {
    options.insert(options.begin(), access->second.value);
    where = access->second.where;
  }
  if (!options.empty()) set(where, "root.options", toml_array(options));
}

// --- what goes to init

void UmlReader::finish_lists() {
  const auto put = [&](const char *key, const std::vector<Given> &list) {
    if (list.empty()) return;
    std::vector<std::string> texts;
    texts.reserve(list.size());
    for (const auto &item : list) texts.push_back(item.value);
    set(list.front().where, key, toml_array(texts));
  };
  put("machine.args", args_);
  put("machine.env", env_);
  put("machine.cmdline", shown_);
}

}  // namespace

const UmlHost &real_uml_host() {
  static const RealHost host;
  return host;
}

UmlMachine read_uml(std::span<const UmlWord> words, PluginCatalog &plugins, const UmlHost &host) {
  return UmlReader(plugins, host).read(words);
}

std::optional<std::string> uml_root_disk(std::string_view text) {
  if (text.starts_with("/dev/")) text.remove_prefix(5);
  if (text.starts_with("ubd/")) return uml_root_disk(fmt::format("ubd{}", text.substr(4)));
  if (const auto unit = block_unit(text)) return fmt::format("ubd{}", *unit);
  const auto colon = text.find(':');
  if (colon == std::string_view::npos || text.substr(0, colon) != std::to_string(kUbdMajor)) {
    return std::nullopt;
  }
  std::uint32_t minor = 0;
  const auto *end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, minor);
  if (error != std::errc{} || stop != end || minor % kMinorsOfDisk != 0) return std::nullopt;
  if (minor / kMinorsOfDisk >= kMaxBlockUnits) return std::nullopt;
  return fmt::format("ubd{}", minor / kMinorsOfDisk);
}

std::string explain_uml_root(std::string_view text) {
  const auto name = text.starts_with("/dev/") ? text.substr(5) : text;
  const bool numbered = text.starts_with(fmt::format("{}:", kUbdMajor));
  if (numbered ||
      (name.starts_with("ubd") && name.size() > 4 && is_digit(name.back()) && !is_digit(name[3]))) {
    return fmt::format(
        "\"{}\" is a partition, and this version has none; a root is a whole disk such as "
        "/dev/ubda.",
        text);
  }
  if (name == "root" || name == "none" || name == "hostfs") {
    return fmt::format(
        "root={} needs rootfstype=hostfs, and rootflags=/DIRECTORY for a directory of the host.",
        text);
  }
  return fmt::format(
      "\"{}\" is no disk of this machine; a root is /dev/ubda, rootfstype=hostfs or initrd=FILE.",
      text);
}

bool is_uml_program(const std::string &word) {
  const auto name = std::filesystem::path(word).filename();
  return name == "linux" || name == "linux.uml";
}

bool is_uml_environment(const std::string &word) {
  const UmlWord given{word, "the word"};
  const auto option = split_option(given);
  return !is_uml_own_word(word) && option.value &&
         classify_uml_word(word) == UmlWordClass::Environment;
}

bool is_uml_module_parameter(const std::string &word) {
  return !is_uml_own_word(word) && classify_uml_word(word) == UmlWordClass::ModuleParameter;
}

bool is_uml_own_word(const std::string &text) {
  const UmlWord word{text, ""};
  const auto option = split_option(word);
  if (find_uml_rule(option.name, option.value.has_value())) return true;
  const auto vec = option.name.substr(0, option.name.find(':'));
  for (const std::string_view prefix : {"con", "ssl"}) {
    if (option.value && line_unit_of(option.name, prefix)) return true;
  }
  for (const std::string_view prefix : {"eth", "vec"}) {
    if (option.value && vec.size() > 3 && line_unit_of(vec, prefix)) return true;
  }
  return option.value && (parse_block_name(option.name) || option.name.starts_with("udb"));
}

}  // namespace cowbird
