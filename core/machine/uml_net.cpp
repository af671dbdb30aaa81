#include "machine/uml_net.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <span>

#include "machine/section_reader.hpp"

namespace cowbird {

namespace {

enum class ValueKind : std::uint8_t { Text, Int, Bool, Mac };

struct NetKey {
  std::string_view name;
  ValueKind kind;
  std::string_view other_name = {};  // also accepted, never written
};

// --- values

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

// Six bytes in hexadecimal, of one or two digits each; the first one's lowest bit would be a group
// address.
bool check_mac(std::string_view text, std::string &error) {
  const auto parts = split(text, ':');
  unsigned first = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    unsigned value = 0;
    const auto *end = parts[i].data() + parts[i].size();
    const auto [stop, code] = std::from_chars(parts[i].data(), end, value, 16);
    if (parts.size() != 6 || code != std::errc{} || stop != end || parts[i].size() > 2) {
      error = fmt::format("\"{}\" is no MAC address, such as fe:fd:0a:00:00:01.", text);
      return false;
    }
    if (i == 0) first = value;
  }
  if ((first & 1) == 0) return true;
  error = fmt::format(
      "The MAC address {} is a group's: the first byte must be even. UML's own begin with fe:fd.",
      text);
  return false;
}

// Decimal, or hexadecimal behind 0x.
std::optional<std::int64_t> parse_integer(std::string_view text) {
  const int base = text.starts_with("0x") || text.starts_with("0X") ? 16 : 10;
  if (base == 16) text.remove_prefix(2);
  std::int64_t value = 0;
  const auto *end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, value, base);
  if (code != std::errc{} || stop != end || value < 0) return std::nullopt;
  return value;
}

std::optional<ConfigValue> parse_value(const NetKey &key, std::string_view text,
                                       std::string &error) {
  switch (key.kind) {
    case ValueKind::Text:
      return ConfigValue(std::string(text));
    case ValueKind::Mac:
      if (!check_mac(text, error)) return std::nullopt;
      return ConfigValue(std::string(text));
    case ValueKind::Bool:
      if (text == "0" || text == "1") return ConfigValue(text == "1");
      error = fmt::format("\"{}\" is \"{}\", but must be 0 or 1.", key.name, text);
      return std::nullopt;
    case ValueKind::Int:
      if (const auto number = parse_integer(text)) return ConfigValue(*number);
      error = fmt::format("\"{}\" is \"{}\", but must be a number.", key.name, text);
      return std::nullopt;
  }
  return std::nullopt;
}

std::string value_text(const ConfigValue &value) {
  if (const auto *flag = std::get_if<bool>(&value)) return *flag ? "1" : "0";
  if (const auto *number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  return std::get<std::string>(value);
}

// --- vector transports: options by name

constexpr NetKey kCommonKeys[] = {
    {"depth", ValueKind::Int}, {"mac", ValueKind::Mac},  {"gro", ValueKind::Bool},
    {"mtu", ValueKind::Int},   {"vec", ValueKind::Bool}, {"headroom", ValueKind::Int},
};
constexpr NetKey kInterfaceKeys[] = {{"ifname", ValueKind::Text}};
constexpr NetKey kRawKeys[] = {
    {"ifname", ValueKind::Text}, {"bpffile", ValueKind::Text}, {"bpfflash", ValueKind::Bool}};
constexpr NetKey kGreKeys[] = {
    {"src", ValueKind::Text},
    {"dst", ValueKind::Text},
    {"v6", ValueKind::Bool},
    {"rx_key", ValueKind::Int},
    {"tx_key", ValueKind::Int, "txkey"},
    {"sequence", ValueKind::Bool},
    {"pin_sequence", ValueKind::Bool},
};
constexpr NetKey kL2tpKeys[] = {
    {"src", ValueKind::Text},
    {"dst", ValueKind::Text},
    {"srcport", ValueKind::Int, "src_port"},
    {"dstport", ValueKind::Int, "dst_port"},
    {"v6", ValueKind::Bool},
    {"udp", ValueKind::Bool},
    {"rx_session", ValueKind::Int},
    {"tx_session", ValueKind::Int},
    {"rx_cookie", ValueKind::Int},
    {"tx_cookie", ValueKind::Int},
    {"cookie64", ValueKind::Bool},
    {"counter", ValueKind::Bool},
    {"pin_counter", ValueKind::Bool},
};
constexpr NetKey kBessKeys[] = {{"src", ValueKind::Text}, {"dst", ValueKind::Text}};
constexpr NetKey kFdKeys[] = {{"fd", ValueKind::Int}};
constexpr NetKey kVdeKeys[] = {{"vnl", ValueKind::Text}};

struct VectorTransport {
  std::string_view name;
  std::span<const NetKey> keys;
};
constexpr VectorTransport kVectorTransports[] = {
    {"tap", kInterfaceKeys}, {"hybrid", kInterfaceKeys}, {"raw", kRawKeys}, {"gre", kGreKeys},
    {"l2tpv3", kL2tpKeys},   {"bess", kBessKeys},        {"fd", kFdKeys},   {"vde", kVdeKeys},
};

std::vector<std::string> vector_names() {
  std::vector<std::string> names;
  for (const auto &transport : kVectorTransports) names.emplace_back(transport.name);
  return names;
}

const VectorTransport *find_vector(std::string_view name) {
  const auto *found = std::ranges::find(kVectorTransports, name, &VectorTransport::name);
  return found == std::end(kVectorTransports) ? nullptr : found;
}

const NetKey *find_key(std::span<const NetKey> keys, std::string_view name) {
  const auto found = std::ranges::find_if(keys, [&](const NetKey &key) {
    return key.name == name || (!key.other_name.empty() && key.other_name == name);
  });
  return found == keys.end() ? nullptr : &*found;
}

const NetKey *find_key(const VectorTransport &transport, std::string_view name) {
  const auto *own = find_key(transport.keys, name);
  return own ? own : find_key(kCommonKeys, name);
}

std::vector<std::string> key_names(const VectorTransport &transport) {
  std::vector<std::string> names;
  for (const auto &key : transport.keys) names.emplace_back(key.name);
  for (const auto &key : kCommonKeys) names.emplace_back(key.name);
  return names;
}

// --- the older transports: parameters by position

struct LegacyTransport {
  std::string_view name;    // in UML
  std::string_view plugin;  // in the machine file
  std::vector<NetKey> keys;
};

const std::vector<LegacyTransport> &legacy_transports() {
  static const std::vector<LegacyTransport> list = {
      {"tuntap",
       "tap",
       {{"ifname", ValueKind::Text}, {"mac", ValueKind::Mac}, {"host_ip", ValueKind::Text}}},
      {"mcast",
       "mcast",
       {{"mac", ValueKind::Mac},
        {"group", ValueKind::Text},
        {"port", ValueKind::Int},
        {"ttl", ValueKind::Int}}},
      {"ucast",
       "ucast",
       {{"mac", ValueKind::Mac},
        {"address", ValueKind::Text},
        {"local_port", ValueKind::Int},
        {"remote_port", ValueKind::Int}}},
      {"daemon",
       "daemon",
       {{"mac", ValueKind::Mac}, {"type", ValueKind::Text}, {"socket", ValueKind::Text}}},
      {"slirp", "slirp", {{"mac", ValueKind::Mac}, {"command", ValueKind::Text}}},
      {"pcap",
       "pcap",
       {{"ifname", ValueKind::Text},
        {"filter", ValueKind::Text},
        {"flag", ValueKind::Text},
        {"flag", ValueKind::Text}}},
      {"vde",
       "vde",
       {{"socket", ValueKind::Text},
        {"mac", ValueKind::Mac},
        {"port", ValueKind::Int},
        {"group", ValueKind::Text},
        {"mode", ValueKind::Text},
        {"description", ValueKind::Text}}},
  };
  return list;
}

std::vector<std::string> legacy_names() {
  std::vector<std::string> names;
  for (const auto &transport : legacy_transports()) names.emplace_back(transport.name);
  return names;
}

// What UML had once.
std::string_view obsolete(std::string_view transport) {
  if (transport == "ethertap") {
    return "Ethertap has gone from Linux. Write tuntap,TAP instead, with a tap device of the host.";
  }
  if (transport == "slip") {
    return "SLIP needed a helper with root's rights and carried IP only; there is none any more. "
           "Write slirp, which needs no rights, or tuntap,TAP.";
  }
  return {};
}

// `promisc`, `nooptimize` and so on are two switches.
bool add_pcap_flag(std::string_view text, NetSetting &net, std::string &error) {
  const bool on = !text.starts_with("no");
  const auto name = on ? text : text.substr(2);
  if (name != "promisc" && name != "optimize") {
    error = fmt::format("pcap has no flag \"{}\"; promisc, nopromisc, optimize and nooptimize are.",
                        text);
    return false;
  }
  net.options.emplace_back(name, on);
  return true;
}

bool add_positional(const LegacyTransport &transport, const NetKey &key, std::string_view text,
                    NetSetting &net, std::string &error) {
  if (key.name == "flag") return add_pcap_flag(text, net, error);
  if (transport.name == "daemon" && key.name == "type") {
    // The one kind of socket that switches have; not worth a key.
    if (text == "unix") return true;
    error = fmt::format("The switch's socket is of type \"{}\"; only unix is known.", text);
    return false;
  }
  auto value = parse_value(key, text, error);
  if (!value) {
    if (transport.name == "tuntap" && key.name == "mac") {
      error += " The host's IP address is the fourth parameter: tuntap,,,ADDRESS.";
    }
    return false;
  }
  net.options.emplace_back(key.name, std::move(*value));
  return true;
}

const ConfigValue *option(const NetSetting &net, std::string_view name) {
  const auto found =
      std::ranges::find_if(net.options, [&](const auto &o) { return o.first == name; });
  return found == net.options.end() ? nullptr : &found->second;
}

// The parameters in their places.
std::optional<std::vector<std::string>> positional_values(const LegacyTransport &transport,
                                                          const NetSetting &net,
                                                          std::string &error) {
  std::vector<std::string> values;
  std::size_t used = 0;
  for (const NetKey &key : transport.keys) {
    if (key.name == "flag") continue;
    const auto *value = option(net, key.name);
    values.push_back(value ? value_text(*value) : "");
    used += value ? 1 : 0;
    // Arguments of a command stand behind commas there; elsewhere a comma would end the parameter.
    if (key.name == "command") {
      std::ranges::replace(values.back(), ' ', ',');
    } else if (values.back().find(',') != std::string::npos) {
      error = fmt::format("\"{}\" has a comma, which UML's syntax cannot say.", key.name);
      return std::nullopt;
    }
  }
  if (transport.name == "daemon" && option(net, "socket")) values[1] = "unix";
  if (transport.name == "pcap") {
    for (const std::string_view name : {"promisc", "optimize"}) {
      const auto *value = option(net, name);
      const auto *flag = value ? std::get_if<bool>(value) : nullptr;
      if (!flag) continue;
      values.push_back(fmt::format("{}{}", *flag ? "" : "no", name));
      ++used;
    }
  }
  if (used != net.options.size()) {
    std::vector<std::string_view> names;
    for (const NetKey &key : transport.keys) names.push_back(key.name);
    error = fmt::format("UML's transport \"{}\" has only these parameters: {}.", transport.name,
                        fmt::join(names, ", "));
    return std::nullopt;
  }
  while (!values.empty() && values.back().empty()) values.pop_back();
  return values;
}

std::optional<std::string> legacy_word(const std::string &name, const NetSetting &net,
                                       std::string &error) {
  const auto &list = legacy_transports();
  const auto found = std::ranges::find(list, net.plugin, &LegacyTransport::plugin);
  if (found == list.end()) {
    error = fmt::format("UML has no transport \"{}\" for an interface called \"{}\".", net.plugin,
                        name);
    return std::nullopt;
  }
  const auto values = positional_values(*found, net, error);
  if (!values) return std::nullopt;
  auto word = fmt::format("{}={}", name, found->name);
  for (const auto &value : *values) word += "," + value;
  return word;
}

std::optional<std::string> vector_word(const std::string &name, const NetSetting &net,
                                       std::string &error) {
  const auto *transport = find_vector(net.plugin);
  if (!transport) {
    error = fmt::format("UML has no vector transport \"{}\"{}", net.plugin,
                        name_hint(net.plugin, vector_names()));
    return std::nullopt;
  }
  auto word = fmt::format("{}:transport={}", name, net.plugin);
  for (const auto &[key, value] : net.options) {
    const auto text = value_text(value);
    if (!find_key(*transport, key)) {
      error = fmt::format("UML's transport \"{}\" has no option \"{}\".", net.plugin, key);
      return std::nullopt;
    }
    if (text.find(',') != std::string::npos) {
      error = fmt::format("\"{}\" has a comma, which UML's syntax cannot say.", key);
      return std::nullopt;
    }
    word += fmt::format(",{}={}", key, text);
  }
  return word;
}

// "eth0" with this prefix.
bool is_numbered(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix) || name.size() == prefix.size()) return false;
  return std::ranges::all_of(name.substr(prefix.size()),
                             [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::optional<NetSetting> parse_vector_net(std::string_view text, std::string &error) {
  NetSetting net;
  std::vector<std::pair<std::string_view, std::string_view>> options;
  for (const auto part : split(text, ',')) {
    const auto equals = part.find('=');
    if (part.empty()) continue;
    if (equals == std::string_view::npos) {
      error = fmt::format("\"{}\" is no option; write NAME=VALUE.", part);
      return std::nullopt;
    }
    const auto name = part.substr(0, equals);
    if (name == "transport") {
      net.plugin = part.substr(equals + 1);
    } else {
      options.emplace_back(name, part.substr(equals + 1));
    }
  }
  if (net.plugin.empty()) {
    error = "There is no transport=. Write it such as vec0:transport=tap,ifname=tap0.";
    return std::nullopt;
  }
  const auto *transport = find_vector(net.plugin);
  if (!transport) {
    error = fmt::format("There is no vector transport \"{}\"{}", net.plugin,
                        name_hint(net.plugin, vector_names()));
    return std::nullopt;
  }
  for (const auto &[name, value] : options) {
    const auto *key = find_key(*transport, name);
    if (!key) {
      error = fmt::format("The transport \"{}\" has no option \"{}\"{}", net.plugin, name,
                          name_hint(name, key_names(*transport)));
      return std::nullopt;
    }
    if (option(net, key->name)) {
      error = fmt::format("The option \"{}\" is given twice.", key->name);
      return std::nullopt;
    }
    auto parsed = parse_value(*key, value, error);
    if (!parsed) return std::nullopt;
    net.options.emplace_back(key->name, std::move(*parsed));
  }
  return net;
}

std::optional<NetSetting> parse_legacy_net(std::string_view text, std::string &error) {
  auto parts = split(text, ',');
  const auto name = parts.front();
  if (const auto why = obsolete(name); !why.empty()) {
    error = why;
    return std::nullopt;
  }
  const auto &list = legacy_transports();
  const auto found = std::ranges::find(list, name, &LegacyTransport::name);
  if (found == list.end()) {
    error = fmt::format("There is no transport \"{}\"{}", name, name_hint(name, legacy_names()));
    return std::nullopt;
  }
  NetSetting net;
  net.plugin = found->plugin;
  std::string command;
  if (found->name == "slirp" && parts.size() > 3) {
    // The rest is one command with its arguments.
    command = fmt::format("{}", fmt::join(parts.begin() + 2, parts.end(), " "));
    parts.resize(2);
    parts.push_back(command);
  }
  for (std::size_t i = 1; i < parts.size(); ++i) {
    if (parts[i].empty()) continue;
    if (i > found->keys.size()) {
      error = fmt::format("\"{}\" is one parameter too many for {}.", parts[i], name);
      return std::nullopt;
    }
    if (!add_positional(*found, found->keys[i - 1], parts[i], net, error)) return std::nullopt;
  }
  return net;
}

std::optional<std::string> net_word(const std::string &name, const NetSetting &net,
                                    std::string &error) {
  if (is_numbered(name, "eth")) return legacy_word(name, net, error);
  if (is_numbered(name, "vec")) return vector_word(name, net, error);
  error = fmt::format("UML's interfaces are called eth0, eth1 or vec0, vec1 and so on, not \"{}\".",
                      name);
  return std::nullopt;
}

}  // namespace cowbird
