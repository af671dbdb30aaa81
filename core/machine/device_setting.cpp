#include "machine/device_setting.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "machine/machine_reader.hpp"
#include "machine/toml_text.hpp"
#include "plugins/near_match.hpp"

namespace cowbird {

namespace {

constexpr const char *kXterm = "xterm";
constexpr const char *kXtermKey = "command";
constexpr std::string_view kFd = "fd";  // the one channel with two arguments in UML's syntax

// What cannot stand in a machine file is no setting either.
bool is_text(std::string_view text, std::string &error) {
  if (parse_toml("text = " + quote_toml(text), "the setting").table) return true;
  error = "The setting is not valid UTF-8 text.";
  return false;
}

// --- TOML's form

// The table that `text` is; reports what it is instead.
std::optional<toml::table> parse_inline_table(std::string_view text, Problems &problems) {
  auto parsed = parse_toml(fmt::format("setting = {}", text), "the setting");
  if (!parsed.table) {
    problems.at_file(fmt::format("The table {} cannot be read: {}.", text, parsed.error));
    return std::nullopt;
  }
  const auto *table = parsed.table->get_as<toml::table>("setting");
  if (!table || parsed.table->size() != 1) {
    problems.at_file(fmt::format("{} is not one table in braces.", text));
    return std::nullopt;
  }
  return *table;
}

template <typename Read>
auto parse_toml_form(std::string_view text, const std::filesystem::path &base,
                     PluginCatalog &plugins, std::string &error, Read read)
    -> decltype(read(std::declval<MachineReader &>(), std::declval<toml::table &>())) {
  Problems problems("the setting", {});
  MachineReader reader(problems, base, plugins);
  decltype(read(reader, std::declval<toml::table &>())) setting;
  if (const auto table = parse_inline_table(text, problems)) setting = read(reader, *table);
  if (!problems.any()) return setting;
  std::vector<std::string> messages;
  for (auto &problem : problems.take()) messages.push_back(std::move(problem.message));
  error = fmt::format("{}", fmt::join(messages, " "));
  return std::nullopt;
}

// --- UML's form

// Finds, loads and checks; `setting` has the plugin and the options.
bool complete(PluginSetting &setting, PluginKind kind, const std::filesystem::path &base,
              PluginCatalog &plugins, std::string &error) {
  PluginError why;
  const auto *plugin = plugins.find(kind, setting.plugin, why);
  if (!plugin || !plugins.load(*plugin, why)) {
    error = why.message;
    return false;
  }
  std::vector<std::string> messages;
  auto config = validate_config(
      *plugin, setting.options, base,
      [&](std::string_view, std::string_view message) { messages.emplace_back(message); });
  if (!config) {
    error = fmt::format("{}", fmt::join(messages, " "));
    return false;
  }
  // In the words of the checked configuration, so that paths are absolute here too.
  for (auto &[key, value] : setting.options) value = config->values.at(key);
  setting.config = std::move(*config);
  return true;
}

// "type" or "type:argument".
struct Side {
  std::string_view type;
  std::optional<std::string_view> argument;
};

Side split_side(std::string_view text) {
  const auto colon = text.find(':');
  if (colon == std::string_view::npos) return {text, std::nullopt};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

bool is_descriptor(const Side &side, std::string &error) {
  const auto digits = side.argument.value_or("");
  if (!digits.empty() && digits.size() <= 9 &&
      std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; })) {
    return true;
  }
  error = fmt::format(
      "\"fd\" needs the number of a descriptor that the program was started with: \"fd:0\".");
  return false;
}

enum class Direction { Both, Input, Output };

bool read_descriptor(const Side &side, Direction direction, PluginSetting &setting,
                     std::string &error) {
  if (!is_descriptor(side, error)) return false;
  setting.options["input"] = direction == Direction::Output ? "-1" : std::string(*side.argument);
  setting.options["output"] = direction == Direction::Input ? "-1" : std::string(*side.argument);
  return true;
}

// BSD pseudoterminals have gone from Linux; their name still stands in many command lines.
bool read_pty(const Side &side, PluginCatalog &plugins, PluginSetting &setting,
              std::string &error) {
  PluginError ignored;
  if (side.type != "pty" || plugins.find(PluginKind::Channel, "pty", ignored)) return true;
  if (side.argument) {
    error = fmt::format(
        "There are no BSD pseudoterminals such as \"{}\" any more. Write \"pts\" and ask which "
        "one it got.",
        *side.argument);
    return false;
  }
  setting.plugin = "pts";
  return true;
}

// The rest of a side that is neither `none` nor `fd`: the argument is the plugin's first key.
bool read_argument(const Side &side, PluginCatalog &plugins, std::string_view xterm,
                   PluginSetting &setting, std::string &error) {
  PluginError why;
  const auto *plugin = plugins.find(PluginKind::Channel, setting.plugin, why);
  if (!plugin) {
    error = why.message;
    return false;
  }
  if (!side.argument) {
    if (setting.plugin == kXterm && !xterm.empty()) setting.options[kXtermKey] = std::string(xterm);
    return true;
  }
  if (plugin->keys.empty()) {
    error = fmt::format("The channel \"{}\" takes no argument, but \"{}\" follows.", setting.plugin,
                        *side.argument);
    return false;
  }
  if (side.argument->empty()) {
    error = fmt::format("The argument behind \"{}:\" is missing.", side.type);
    return false;
  }
  setting.options[plugin->keys.front().name] = std::string(*side.argument);
  return true;
}

std::optional<PluginSetting> read_side(const Side &side, Direction direction,
                                       const std::filesystem::path &base, PluginCatalog &plugins,
                                       std::string_view xterm, std::string &error) {
  PluginSetting setting;
  setting.plugin = side.type;
  if (side.type.empty()) {
    error = "The name of a channel is missing, such as \"pts\" or \"none\".";
    return std::nullopt;
  }
  if (side.type == kNoChannel) {
    if (!side.argument) return setting;
    error = "The channel \"none\" takes no argument.";
    return std::nullopt;
  }
  // A path is no name: it could not be told from an argument's beginning.
  if (side.type.find('/') != std::string_view::npos) {
    error = fmt::format("\"{}\" is no name of a channel. Write {{ plugin = \"{}\" }}.", side.type,
                        side.type);
    return std::nullopt;
  }
  const bool read = side.type == kFd ? read_descriptor(side, direction, setting, error)
                                     : read_pty(side, plugins, setting, error) &&
                                           read_argument(side, plugins, xterm, setting, error);
  if (!read || !complete(setting, PluginKind::Channel, base, plugins, error)) return std::nullopt;
  return setting;
}

// fd:0,fd:1 is one channel: a terminal has its input and its output on two descriptors.
std::optional<LineSetting> read_descriptors(const Side &input, const Side &output,
                                            const std::filesystem::path &base,
                                            PluginCatalog &plugins, std::string &error) {
  if (!is_descriptor(input, error) || !is_descriptor(output, error)) return std::nullopt;
  LineSetting line;
  line.input.plugin = kFd;
  line.input.options["input"] = std::string(*input.argument);
  line.input.options["output"] = std::string(*output.argument);
  if (!complete(line.input, PluginKind::Channel, base, plugins, error)) return std::nullopt;
  return line;
}

// --- block devices

constexpr std::array<unsigned char, 4> kCowMagic = {'M', 'O', 'O', 'O'};  // big-endian, version 3

bool looks_like_cow(const std::filesystem::path &file) {
  std::array<char, kCowMagic.size()> start{};
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(file, ignored)) return false;
  std::ifstream in(file, std::ios::binary);
  return in.read(start.data(), start.size()) &&
         std::ranges::equal(start, kCowMagic, [](char a, unsigned char b) {
           return static_cast<unsigned char>(a) == b;
         });
}

struct BlockFlags {
  bool read_only = false, sync = false, data = false, shared = false, no_discard = false;
};

bool read_flags(std::string_view text, BlockFlags &flags, std::string &error) {
  for (const char c : text) {
    bool *const flag = c == 'r'   ? &flags.read_only
                       : c == 's' ? &flags.sync
                       : c == 'd' ? &flags.data
                       : c == 'c' ? &flags.shared
                       : c == 't' ? &flags.no_discard
                                  : nullptr;
    if (!flag) {
      error = fmt::format(
          "There is no flag \"{}\" for a block device; r (read-only), s (synchronous), d (data, no "
          "COW file), c (shared, no lock) and t (no discard) are.",
          c);
      return false;
    }
    *flag = true;
  }
  return true;
}

// The plugin must have the key: an option that nobody obeys is refused.
bool set_flag(const PluginInfo &plugin, PluginSetting &setting, std::string_view key, bool value,
              char flag, std::string &error) {
  if (!plugin.find_key(key)) {
    error = fmt::format("The block backend \"{}\" has no key \"{}\", which the flag \"{}\" means.",
                        plugin.name, key, flag);
    return false;
  }
  setting.options[std::string(key)] = value;
  return true;
}

bool apply_flags(const BlockFlags &flags, PluginCatalog &plugins, PluginSetting &setting,
                 std::string &error) {
  PluginError why;
  const auto *plugin = plugins.find(PluginKind::Block, setting.plugin, why);
  if (!plugin) {
    error = why.message;
    return false;
  }
  if (flags.read_only && !set_flag(*plugin, setting, "readonly", true, 'r', error)) return false;
  if (flags.sync && !set_flag(*plugin, setting, "sync", true, 's', error)) return false;
  if (flags.shared && !set_flag(*plugin, setting, "lock", false, 'c', error)) return false;
  return !flags.no_discard || set_flag(*plugin, setting, "discard", false, 't', error);
}

std::optional<PluginSetting> read_block(std::string_view text, const BlockFlags &flags,
                                        const std::filesystem::path &base, PluginCatalog &plugins,
                                        std::string &error) {
  auto separator = text.find(',');
  if (separator == std::string_view::npos) separator = text.find(':');
  const std::string_view first = text.substr(0, separator);
  PluginSetting setting;
  if (first.empty()) {
    error = "The name of a file is missing.";
    return std::nullopt;
  }
  setting.options["path"] = std::string(first);
  if (separator != std::string_view::npos) {
    if (flags.data) {
      error = "The flag \"d\" (data, no COW file) contradicts a second file.";
      return std::nullopt;
    }
    const std::string_view second = text.substr(separator + 1);
    if (second.find(',') != std::string_view::npos) {
      error = fmt::format(
          "\"{}\" has more than two files. UML's third one is a serial number, which disks do not "
          "have here.",
          text);
      return std::nullopt;
    }
    if (second.empty()) {
      error = fmt::format("The name of the backing file behind \"{}\" is missing.",
                          text.substr(0, separator + 1));
      return std::nullopt;
    }
    setting.plugin = "cow";
    setting.options["backing"] = std::string(second);
  } else {
    setting.plugin = !flags.data && looks_like_cow(base / std::string(first)) ? "cow" : "file";
  }
  if (!apply_flags(flags, plugins, setting, error) ||
      !complete(setting, PluginKind::Block, base, plugins, error)) {
    return std::nullopt;
  }
  return setting;
}

// --- the other way

std::string toml_pairs(const PluginSetting &setting) {
  std::string out = fmt::format("plugin = {}", quote_toml(setting.plugin));
  for (const auto &[key, value] : setting.options) {
    out += fmt::format(", {} = {}", key, toml_value(value));
  }
  return out;
}

std::string plain_text(const ConfigValue &value) {
  std::string out;
  std::visit([&](const auto &v) { out = fmt::format("{}", v); }, value);
  return out;
}

// A setting in UML's form is one line.
bool has_control_character(std::string_view text) {
  return std::ranges::any_of(
      text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; });
}

// Whether the option says what would be without it.
bool is_default(const PluginInfo &plugin, const std::string &key, const ConfigValue &value) {
  const auto *schema = plugin.find_key(key);
  if (!schema || !schema->default_text) return false;
  const auto plain = validate_config(plugin, {{key, *schema->default_text}}, {},
                                     [](std::string_view, std::string_view) {});
  return plain ? plain->values.at(key) == value : *schema->default_text == plain_text(value);
}

// The descriptors of `fd`, -1 for none; nullopt when there is more to say.
std::optional<std::array<std::int64_t, 2>> descriptors(const PluginSetting &setting) {
  std::array<std::int64_t, 2> fds{};
  const std::array<const char *, 2> keys{"input", "output"};
  for (std::size_t i = 0; i < 2; ++i) {
    const auto found = setting.config.values.find(keys[i]);
    if (found == setting.config.values.end()) return std::nullopt;
    const auto *number = std::get_if<std::int64_t>(&found->second);
    if (!number) return std::nullopt;
    fds[i] = *number;
  }
  if (setting.config.values.size() != 2) return std::nullopt;
  return fds;
}

std::string descriptor_text(std::int64_t fd) {
  return fd < 0 ? std::string("null") : fmt::format("fd:{}", fd);
}

// UML's form of one side, when it has one.
std::optional<std::string> side_text(const PluginSetting &setting, Direction direction,
                                     PluginCatalog &plugins, std::string_view xterm) {
  if (setting.plugin == kNoChannel) return std::string(kNoChannel);
  if (setting.plugin == kFd) {
    const auto fds = descriptors(setting);
    if (!fds) return std::nullopt;
    if (direction == Direction::Input) return descriptor_text((*fds)[0]);
    if (direction == Direction::Output) return descriptor_text((*fds)[1]);
    if ((*fds)[0] == (*fds)[1]) return descriptor_text((*fds)[0]);
    return descriptor_text((*fds)[0]) + "," + descriptor_text((*fds)[1]);
  }
  PluginError ignored;
  const auto *plugin = plugins.find(PluginKind::Channel, setting.plugin, ignored);
  if (!plugin || setting.plugin.find('/') != std::string::npos) return std::nullopt;
  std::string argument;
  const bool common = setting.plugin == kXterm && !xterm.empty();
  if (common) {
    const auto own = setting.options.find(kXtermKey);
    if (own == setting.options.end() || plain_text(own->second) != xterm) return std::nullopt;
  }
  for (const auto &[key, value] : setting.options) {
    if (common && key == kXtermKey) continue;
    if (is_default(*plugin, key, value)) continue;
    if (key != plugin->keys.front().name) return std::nullopt;
    argument = plain_text(value);
    if (argument.find(',') != std::string::npos || has_control_character(argument)) {
      return std::nullopt;
    }
  }
  return argument.empty() ? setting.plugin : setting.plugin + ":" + argument;
}

}  // namespace

std::string shared_xterm(const std::vector<const LineSetting *> &lines) {
  std::optional<std::string> shared;
  const auto look = [&](const PluginSetting &setting) {
    if (setting.plugin != kXterm) return true;
    const auto own = setting.options.find(kXtermKey);
    const std::string command = own == setting.options.end() ? "" : plain_text(own->second);
    if (!shared) shared = command;
    return *shared == command;
  };
  for (const LineSetting *line : lines) {
    if (!look(line->input) || (line->output && !look(*line->output))) return "";
  }
  return shared && !has_control_character(*shared) ? *shared : "";
}

std::optional<LineSetting> parse_line_setting(std::string_view text,
                                              const std::filesystem::path &base,
                                              PluginCatalog &plugins, std::string &error,
                                              std::string_view xterm) {
  if (!is_text(text, error)) return std::nullopt;
  if (text.starts_with('{')) {
    return parse_toml_form(text, base, plugins, error,
                           [](MachineReader &reader, const toml::table &table) {
                             return reader.read_line_setting(table);
                           });
  }
  const auto comma = text.find(',');
  if (comma == std::string_view::npos) {
    auto both = read_side(split_side(text), Direction::Both, base, plugins, xterm, error);
    if (!both) return std::nullopt;
    return LineSetting{std::move(*both), std::nullopt};
  }
  if (text.find(',', comma + 1) != std::string_view::npos) {
    error =
        fmt::format("\"{}\" has more than two channels: one is for input, one for output.", text);
    return std::nullopt;
  }
  const Side in = split_side(text.substr(0, comma));
  const Side out = split_side(text.substr(comma + 1));
  if (in.type == kFd && out.type == kFd) return read_descriptors(in, out, base, plugins, error);
  auto input = read_side(in, Direction::Input, base, plugins, xterm, error);
  if (!input) return std::nullopt;
  auto output = read_side(out, Direction::Output, base, plugins, xterm, error);
  if (!output) return std::nullopt;
  return LineSetting{std::move(*input), std::move(output)};
}

std::optional<PluginSetting> parse_block_setting(std::string_view text, std::string_view flags,
                                                 const std::filesystem::path &base,
                                                 PluginCatalog &plugins, std::string &error) {
  BlockFlags parsed;
  if (!is_text(text, error) || !read_flags(flags, parsed, error)) return std::nullopt;
  if (!text.starts_with('{')) return read_block(text, parsed, base, plugins, error);
  if (parsed.sync || parsed.data || parsed.shared || parsed.no_discard) {
    error = "The flags s, d, c and t belong to UML's syntax; in a table the plugin's keys say it.";
    return std::nullopt;
  }
  auto setting = parse_toml_form(text, base, plugins, error,
                                 [](MachineReader &reader, const toml::table &table) {
                                   return reader.read_block_setting(table);
                                 });
  if (!setting) return std::nullopt;
  BlockFlags only_read;
  only_read.read_only = parsed.read_only;
  PluginError ignored;
  const auto *plugin = plugins.find(PluginKind::Block, setting->plugin, ignored);
  if (parsed.read_only && (!plugin || !set_flag(*plugin, *setting, "readonly", true, 'r', error) ||
                           !complete(*setting, PluginKind::Block, base, plugins, error))) {
    return std::nullopt;
  }
  return setting;
}

std::string plugin_setting_toml(const PluginSetting &setting) {
  return fmt::format("{{ {} }}", toml_pairs(setting));
}

std::string line_setting_toml(const LineSetting &setting) {
  if (!setting.output) return plugin_setting_toml(setting.input);
  return fmt::format("{{ {}, output_channel = {} }}", toml_pairs(setting.input),
                     plugin_setting_toml(*setting.output));
}

std::string line_setting_text(const LineSetting &setting, PluginCatalog &plugins,
                              std::string_view xterm) {
  if (setting.none()) return std::string(kNoChannel);
  const auto input =
      side_text(setting.input, setting.output ? Direction::Input : Direction::Both, plugins, xterm);
  if (!setting.output) return input ? *input : line_setting_toml(setting);
  const auto output = side_text(*setting.output, Direction::Output, plugins, xterm);
  if (!input || !output) return line_setting_toml(setting);
  return *input + "," + *output;
}

std::string block_setting_flags(const PluginSetting &setting) {
  const auto is = [&](const char *key, bool value) {
    const auto found = setting.options.find(key);
    return found != setting.options.end() && found->second == ConfigValue(value);
  };
  std::string flags;
  if (is("readonly", true)) flags += 'r';
  if (is("sync", true)) flags += 's';
  if (is("lock", false)) flags += 'c';
  if (is("discard", false)) flags += 't';
  return flags;
}

std::string block_setting_text(const PluginSetting &setting, PluginCatalog &plugins) {
  PluginError ignored;
  const auto *plugin = plugins.find(PluginKind::Block, setting.plugin, ignored);
  const bool cow = setting.plugin == "cow";
  if (!plugin || (setting.plugin != "file" && !cow)) return plugin_setting_toml(setting);
  std::string path, backing;
  for (const auto &[key, value] : setting.options) {
    if (key == "path") {
      path = plain_text(value);
    } else if (cow && key == "backing") {
      backing = plain_text(value);
    } else if (key != "readonly" && key != "sync" && key != "lock" && key != "discard" &&
               !is_default(*plugin, key, value)) {
      return plugin_setting_toml(setting);
    }
  }
  // A separator in a name would be read as one.
  if ((path + backing).find_first_of(",:") != std::string::npos ||
      has_control_character(path + backing)) {
    return plugin_setting_toml(setting);
  }
  return backing.empty() ? path : path + "," + backing;
}

}  // namespace cowbird
