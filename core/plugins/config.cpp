// Device configurations against key schemas: parsing of the values, and the texts about them.
#include "plugins/config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>

#include "plugins/near_match.hpp"

namespace cowbird {
namespace {

using plugins::ParsedValue;

ParsedValue wrong(std::string problem) { return {std::nullopt, std::move(problem)}; }

std::optional<std::uint64_t> parse_unsigned(std::string_view text, int base = 10) {
  std::uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::optional<std::int64_t> parse_int(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const bool hex = text.starts_with("0x");
  if (hex) text.remove_prefix(2);
  const auto magnitude = parse_unsigned(text, hex ? 16 : 10);
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!magnitude || *magnitude > kMax) return {};
  const auto value = static_cast<std::int64_t>(*magnitude);
  return negative ? -value : value;
}

std::optional<std::int64_t> parse_size(std::string_view text) {
  unsigned shift = 0;
  if (!text.empty()) {
    const char last = static_cast<char>(toupper(static_cast<unsigned char>(text.back())));
    shift = last == 'K' ? 10 : last == 'M' ? 20 : last == 'G' ? 30 : last == 'T' ? 40 : 0;
    if (shift) text.remove_suffix(1);
  }
  const auto count = parse_unsigned(text);
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!count || *count > (kMax >> shift)) return {};
  return static_cast<std::int64_t>(*count << shift);
}

std::optional<bool> parse_bool(std::string_view text) {
  for (std::string_view word : {"true", "1", "yes", "on"}) {
    if (text == word) return true;
  }
  for (std::string_view word : {"false", "0", "no", "off"}) {
    if (text == word) return false;
  }
  return {};
}

std::optional<std::string> parse_mac(std::string_view text) {
  if (text.size() != 17) return {};
  std::string lower;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (i % 3 == 2 ? c != ':' : !isxdigit(c)) return {};
    lower += static_cast<char>(tolower(c));
  }
  return lower;
}

bool good_address(std::string_view text) {
  if (text.starts_with("unix:")) return text.size() > 5;
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const auto port = parse_unsigned(text.substr(colon + 1));
  const std::string_view host = text.substr(0, colon);
  if (!port || *port > 65535) return false;
  if (host.front() == '[') return host.size() > 2 && host.back() == ']';
  return host.find(':') == std::string_view::npos;
}

ParsedValue check_range(const KeySchema &key, std::int64_t value) {
  if (key.type == KeyType::Size && value < 0) return wrong("A size cannot be negative.");
  if (key.has_range && (value < key.min || value > key.max)) {
    return wrong(fmt::format("{} is out of range: {} to {} is allowed.", value, key.min, key.max));
  }
  return {ConfigValue(value), {}};
}

ParsedValue parse_enum(const KeySchema &key, const std::string &text) {
  if (std::find(key.choices.begin(), key.choices.end(), text) != key.choices.end()) {
    return {ConfigValue(text), {}};
  }
  return wrong(fmt::format("\"{}\" is not one of {}.{}", text, fmt::join(key.choices, ", "),
                           plugins::did_you_mean(text, key.choices)));
}

ParsedValue parse_path(const std::string &text, const std::filesystem::path &base) {
  if (text.empty()) return wrong("A path cannot be empty.");
  if (base.empty()) return {ConfigValue(text), {}};
  return {ConfigValue((base / text).lexically_normal().string()), {}};
}

ParsedValue parse_text(const KeySchema &key, const std::string &text,
                       const std::filesystem::path &base) {
  if (text.find('\0') != std::string::npos) return wrong("The text contains a NUL character.");
  switch (key.type) {
    case KeyType::String:
      return {ConfigValue(text), {}};
    case KeyType::Bool:
      if (const auto value = parse_bool(text)) return {ConfigValue(*value), {}};
      return wrong(fmt::format("\"{}\" is neither true nor false.", text));
    case KeyType::Int:
      if (const auto value = parse_int(text)) return check_range(key, *value);
      return wrong(fmt::format("\"{}\" is not an integer.", text));
    case KeyType::Size:
      if (const auto value = parse_size(text)) return check_range(key, *value);
      return wrong(fmt::format(
          "\"{}\" is not a size: give bytes, or a number with K, M, G or T behind it.", text));
    case KeyType::Enum:
      return parse_enum(key, text);
    case KeyType::Path:
      return parse_path(text, base);
    case KeyType::Mac:
      if (const auto value = parse_mac(text)) return {ConfigValue(*value), {}};
      return wrong(
          fmt::format("\"{}\" is not an Ethernet address such as fe:fd:0a:00:00:02.", text));
    case KeyType::Address:
      if (good_address(text)) return {ConfigValue(text), {}};
      return wrong(fmt::format(
          "\"{}\" is not an address: give HOST:PORT, [IPV6]:PORT or unix:/path.", text));
  }
  return wrong("The key's type is not known.");
}

std::string_view a_or_an(std::string_view noun) {
  return std::string_view("aeio").find(noun.front()) == std::string_view::npos ? "a" : "an";
}

ParsedValue type_mismatch(const KeySchema &key, std::string_view given) {
  if (key.type == KeyType::Enum) {
    return wrong(fmt::format("{} is given where one of {} is expected.", given,
                             fmt::join(key.choices, ", ")));
  }
  const std::string_view expected = key_type_name(key.type);
  return wrong(
      fmt::format("{} is given where {} {} is expected.", given, a_or_an(expected), expected));
}

}  // namespace

std::string_view plugin_kind_name(PluginKind kind) {
  switch (kind) {
    case PluginKind::Transport:
      return "transport";
    case PluginKind::Block:
      return "block backend";
    case PluginKind::Channel:
      return "channel";
  }
  return "unknown";
}

std::string_view key_type_name(KeyType type) {
  switch (type) {
    case KeyType::String:
      return "string";
    case KeyType::Bool:
      return "boolean";
    case KeyType::Int:
      return "integer";
    case KeyType::Size:
      return "size";
    case KeyType::Enum:
      return "one of";
    case KeyType::Path:
      return "path";
    case KeyType::Mac:
      return "MAC address";
    case KeyType::Address:
      return "address";
  }
  return "unknown";
}

namespace plugins {

ParsedValue parse_value(const KeySchema &key, const ConfigValue &value,
                        const std::filesystem::path &base_directory) {
  if (const auto *text = std::get_if<std::string>(&value)) {
    return parse_text(key, *text, base_directory);
  }
  if (const auto *number = std::get_if<std::int64_t>(&value)) {
    if (key.type != KeyType::Int && key.type != KeyType::Size) {
      return type_mismatch(key, "An integer");
    }
    return check_range(key, *number);
  }
  if (key.type != KeyType::Bool) return type_mismatch(key, "A boolean");
  return {value, {}};
}

}  // namespace plugins

const KeySchema *PluginInfo::find_key(std::string_view key_name) const {
  for (const KeySchema &key : keys) {
    if (key.name == key_name) return &key;
  }
  return nullptr;
}

std::optional<PluginConfig> validate_config(const PluginInfo &plugin, const ConfigTable &table,
                                            const std::filesystem::path &base_directory,
                                            const ConfigProblem &problem) {
  PluginConfig config;
  bool good = true;
  const auto report = [&](std::string_view key, const std::string &message) {
    good = false;
    problem(key, message);
  };
  const auto take = [&](const KeySchema &key, const ConfigValue &value) {
    plugins::ParsedValue parsed = plugins::parse_value(key, value, base_directory);
    if (parsed.value) {
      config.values.emplace(key.name, std::move(*parsed.value));
    } else {
      report(key.name, fmt::format("\"{}\": {}", key.name, parsed.problem));
    }
  };
  std::vector<std::string> names;
  for (const KeySchema &key : plugin.keys) names.push_back(key.name);
  for (const auto &[name, value] : table) {
    if (const KeySchema *key = plugin.find_key(name)) {
      take(*key, value);
    } else {
      std::string known = names.empty() ? std::string(" It has no keys.")
                                        : fmt::format(" Its keys are {}.", fmt::join(names, ", "));
      report(name, fmt::format("The {} plugin \"{}\" has no key \"{}\".{}",
                               plugin_kind_name(plugin.kind), plugin.name, name,
                               plugins::near_match(name, names).empty()
                                   ? known
                                   : plugins::did_you_mean(name, names)));
    }
  }
  for (const KeySchema &key : plugin.keys) {
    if (table.contains(key.name)) continue;
    if (key.required) {
      report(key.name, fmt::format("The {} plugin \"{}\" needs the key \"{}\"{}{}.",
                                   plugin_kind_name(plugin.kind), plugin.name, key.name,
                                   key.help.empty() ? "" : ": ", key.help));
    } else if (key.default_text) {
      take(key, *key.default_text);
    }
  }
  if (!good) return std::nullopt;
  return config;
}

}  // namespace cowbird
