// Examining a plugin's file: the descriptor and the key schema, read from the ELF file and checked,
// without running any of its code.
#include <cowbird/blockdev.h>
#include <cowbird/channel.h>
#include <cowbird/transport.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <set>

#include "plugins/config.hpp"
#include "plugins/descriptor.hpp"
#include "plugins/elf_image.hpp"

namespace cowbird {
namespace plugins {
namespace {

constexpr RequiredFunction kChannelFunctions[] = {
    {"create", offsetof(cowbird_channel_ops, create)},
    {"destroy", offsetof(cowbird_channel_ops, destroy)},
    {"open", offsetof(cowbird_channel_ops, open)},
    {"close", offsetof(cowbird_channel_ops, close)},
    {"read", offsetof(cowbird_channel_ops, read)},
    {"write", offsetof(cowbird_channel_ops, write)},
};
constexpr RequiredFunction kBlockFunctions[] = {
    {"create", offsetof(cowbird_block_ops, create)},
    {"destroy", offsetof(cowbird_block_ops, destroy)},
    {"get_info", offsetof(cowbird_block_ops, get_info)},
    {"submit", offsetof(cowbird_block_ops, submit)},
};
constexpr RequiredFunction kTransportFunctions[] = {
    {"create", offsetof(cowbird_transport_ops, create)},
    {"destroy", offsetof(cowbird_transport_ops, destroy)},
    {"open", offsetof(cowbird_transport_ops, open)},
    {"close", offsetof(cowbird_transport_ops, close)},
    {"get_info", offsetof(cowbird_transport_ops, get_info)},
    {"receive", offsetof(cowbird_transport_ops, receive)},
};
constexpr KindRules kKinds[] = {
    {PluginKind::Channel, "channels", "struct cowbird_channel_ops",
     offsetof(cowbird_channel_ops, get_window), sizeof(cowbird_channel_ops), kChannelFunctions},
    {PluginKind::Block, "blockdev", "struct cowbird_block_ops",
     offsetof(cowbird_block_ops, describe), sizeof(cowbird_block_ops), kBlockFunctions},
    {PluginKind::Transport, "transports", "struct cowbird_transport_ops",
     offsetof(cowbird_transport_ops, set_features), sizeof(cowbird_transport_ops),
     kTransportFunctions},
};

static_assert(static_cast<unsigned>(PluginKind::Transport) == COWBIRD_KIND_TRANSPORT);
static_assert(static_cast<unsigned>(PluginKind::Block) == COWBIRD_KIND_BLOCK);
static_assert(static_cast<unsigned>(PluginKind::Channel) == COWBIRD_KIND_CHANNEL);
static_assert(static_cast<unsigned>(KeyType::Address) == COWBIRD_KEY_ADDRESS);

bool good_name(std::string_view name) {
  if (name.empty() || name.size() > 64 || !isalpha(static_cast<unsigned char>(name[0]))) {
    return false;
  }
  return std::all_of(name.begin(), name.end(), [](char c) {
    return isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  });
}

std::vector<std::string> split_choices(std::string_view text) {
  std::vector<std::string> words;
  for (;;) {
    const std::size_t bar = text.find('|');
    words.emplace_back(text.substr(0, bar));
    if (bar == std::string_view::npos) return words;
    text.remove_prefix(bar + 1);
  }
}

// Reads one plugin's descriptor; every member function returns false after it has set `error_`.
class Examiner {
 public:
  Examiner(const ElfImage &image, PluginInfo &info, PluginError &error)
      : image_(image), info_(info), error_(error), file_(info.file.string()) {}

  bool run() {
    const auto symbol = image_.find_object(COWBIRD_PLUGIN_SYMBOL);
    if (!symbol) {
      return fail(PluginFault::NoDescriptor,
                  fmt::format("{} is a shared object, but no Cowbird plugin: it exports no data "
                              "object named " COWBIRD_PLUGIN_SYMBOL
                              ". Define it with COWBIRD_PLUGIN_EXPORT (see <cowbird/plugin.h>).",
                              file_));
    }
    address_ = symbol->address;
    return read_fixed_part() && read_texts() && check_ops() && read_keys();
  }

 private:
  bool fail(PluginFault fault, std::string message) {
    error_ = {fault, std::move(message)};
    return false;
  }
  bool bad(std::string_view what) {
    return fail(
        PluginFault::BadDescriptor,
        fmt::format("The descriptor of the plugin {} is wrong: {} Its author has to correct "
                    "it.",
                    file_, what));
  }

  bool read_fixed_part();
  bool read_texts();
  bool check_ops();
  bool read_keys();
  bool read_key(std::uint64_t address, KeySchema &key);
  bool check_key(const KeySchema &key);
  // A text at a pointer field of a structure; a null pointer gives nullopt in `out`.
  bool text_field(std::uint64_t field, std::size_t limit, const char *what,
                  std::optional<std::string> &out);

  const ElfImage &image_;
  PluginInfo &info_;
  PluginError &error_;
  std::string file_;
  std::uint64_t address_ = 0;
  cowbird_plugin raw_{};  // the bytes of the file; its pointers mean nothing
  const KindRules *rules_ = nullptr;
};

bool Examiner::read_fixed_part() {
  constexpr std::size_t kPrefix = offsetof(cowbird_plugin, kind);
  if (!image_.read(address_, &raw_, kPrefix)) return bad("It lies outside the file's segments.");
  if (raw_.magic != COWBIRD_PLUGIN_MAGIC) {
    return bad(
        "It does not start with COWBIRD_PLUGIN_MAGIC; use COWBIRD_PLUGIN_HEADER, and "
        "initialise it at compile time.");
  }
  if (raw_.abi_version != COWBIRD_ABI_VERSION) {
    return fail(
        PluginFault::OtherAbi,
        fmt::format("The plugin {} speaks version {} of the plugin ABI; this Cowbird speaks "
                    "version {}. {}",
                    file_, raw_.abi_version, COWBIRD_ABI_VERSION,
                    raw_.abi_version > COWBIRD_ABI_VERSION
                        ? "Install a newer Cowbird, or a plugin built for this one."
                        : "Build the plugin again with this Cowbird's SDK."));
  }
  if (raw_.struct_size < kMinDescriptorSize || raw_.struct_size > kMaxStructSize) {
    return bad(fmt::format("Its struct_size is {}; {} to {} is possible.", raw_.struct_size,
                           kMinDescriptorSize, kMaxStructSize));
  }
  const std::size_t known = std::min<std::size_t>(raw_.struct_size, sizeof raw_);
  if (!image_.read(address_, &raw_, known)) return bad("It lies outside the file's segments.");
  rules_ = rules_of(raw_.kind);
  if (!rules_) {
    return bad(fmt::format("Its kind is {}, which is no kind that this Cowbird knows.", raw_.kind));
  }
  info_.kind = rules_->kind;
  info_.abi_version = raw_.abi_version;
  info_.struct_size = raw_.struct_size;
  info_.capabilities = raw_.capabilities;
  return true;
}

bool Examiner::text_field(std::uint64_t field, std::size_t limit, const char *what,
                          std::optional<std::string> &out) {
  const auto pointer = image_.read_pointer(field);
  out.reset();
  if (pointer && pointer->kind == ElfImage::Pointer::Kind::Null) return true;
  if (pointer && pointer->kind == ElfImage::Pointer::Kind::Internal) {
    out = image_.read_string(pointer->address, limit);
  }
  if (out) return true;
  return bad(
      fmt::format("The text of \"{}\" cannot be read from the file, or is longer than {} "
                  "bytes.",
                  what, limit));
}

bool Examiner::read_texts() {
  struct Field {
    const char *what;
    std::size_t offset;
    std::string &out;
  };
  const Field fields[] = {
      {"name", offsetof(cowbird_plugin, name), info_.name},
      {"version", offsetof(cowbird_plugin, version), info_.version},
      {"description", offsetof(cowbird_plugin, description), info_.description},
      {"license", offsetof(cowbird_plugin, license), info_.license},
      {"url", offsetof(cowbird_plugin, url), info_.url},
  };
  for (const Field &field : fields) {
    if (field.offset + sizeof(char *) > raw_.struct_size) continue;
    std::optional<std::string> text;
    if (!text_field(address_ + field.offset, 1024, field.what, text)) return false;
    field.out = text.value_or("");
  }
  if (!good_name(info_.name)) {
    return bad(
        fmt::format("Its name is \"{}\"; a name starts with a letter and has up to 64 letters, "
                    "digits, '-' and '_'.",
                    info_.name));
  }
  if (info_.file.stem() != info_.name) {
    return bad(fmt::format("It is the plugin \"{}\", so the file's name has to be {}.so.",
                           info_.name, info_.name));
  }
  return true;
}

bool Examiner::check_ops() {
  const auto ops = image_.read_pointer(address_ + offsetof(cowbird_plugin, ops));
  cowbird_ops_header header{};
  if (!ops || ops->kind != ElfImage::Pointer::Kind::Internal ||
      !image_.read(ops->address, &header, sizeof header)) {
    return bad("\"ops\" does not point to a function table in the file.");
  }
  if (header.kind != raw_.kind) {
    return bad(fmt::format("Its kind is {}, but its function table is for kind {}.", raw_.kind,
                           header.kind));
  }
  if (header.struct_size < rules_->min_ops_size || header.struct_size > kMaxStructSize) {
    return bad(
        fmt::format("The struct_size of its function table is {}; a {} has {} bytes or more.",
                    header.struct_size, rules_->table_name, rules_->min_ops_size));
  }
  for (const RequiredFunction &function : rules_->required) {
    const auto pointer = image_.read_pointer(ops->address + function.offset);
    if (!pointer || pointer->kind == ElfImage::Pointer::Kind::Null) {
      return bad(fmt::format("The required function \"{}\" is missing.", function.name));
    }
  }
  return true;
}

bool Examiner::read_keys() {
  if (raw_.key_count == 0) return true;
  if (raw_.key_count > kMaxKeys || raw_.key_size < kMinKeySize || raw_.key_size > kMaxStructSize) {
    return bad(
        fmt::format("It has {} keys of {} bytes each; up to {} keys of {} to {} bytes are "
                    "possible.",
                    raw_.key_count, raw_.key_size, kMaxKeys, kMinKeySize, kMaxStructSize));
  }
  const auto keys = image_.read_pointer(address_ + offsetof(cowbird_plugin, keys));
  if (!keys || keys->kind != ElfImage::Pointer::Kind::Internal) {
    return bad("\"keys\" does not point into the file.");
  }
  std::set<std::string> seen;
  for (std::uint32_t i = 0; i < raw_.key_count; ++i) {
    KeySchema key;
    if (!read_key(keys->address + std::uint64_t{i} * raw_.key_size, key)) return false;
    if (!seen.insert(key.name).second) {
      return bad(fmt::format("The key \"{}\" is declared twice.", key.name));
    }
    info_.keys.push_back(std::move(key));
  }
  return true;
}

bool Examiner::read_key(std::uint64_t address, KeySchema &key) {
  cowbird_key raw{};
  if (!image_.read(address, &raw, sizeof raw)) return bad("Its keys lie outside the file.");
  std::optional<std::string> name, choices, help;
  if (!text_field(address + offsetof(cowbird_key, name), 64, "key name", name) ||
      !text_field(address + offsetof(cowbird_key, default_value), 4096, "default_value",
                  key.default_text) ||
      !text_field(address + offsetof(cowbird_key, choices), 4096, "choices", choices) ||
      !text_field(address + offsetof(cowbird_key, help), 4096, "help", help)) {
    return false;
  }
  key.name = name.value_or("");
  key.help = help.value_or("");
  key.required = raw.flags & COWBIRD_KEY_REQUIRED;
  key.has_range = raw.flags & COWBIRD_KEY_HAS_RANGE;
  key.min = raw.min;
  key.max = raw.max;
  if (choices) key.choices = split_choices(*choices);
  if (!good_name(key.name)) {
    return bad(
        fmt::format("A key has the name \"{}\"; a name starts with a letter and has up to 64 "
                    "letters, digits, '-' and '_'.",
                    key.name));
  }
  if (raw.type < COWBIRD_KEY_STRING || raw.type > COWBIRD_KEY_ADDRESS) {
    return bad(fmt::format("The key \"{}\" has the unknown type {}.", key.name, raw.type));
  }
  key.type = static_cast<KeyType>(raw.type);
  return check_key(key);
}

bool Examiner::check_key(const KeySchema &key) {
  if (key.name == "name" || key.name == "plugin") {
    return bad(fmt::format("The key name \"{}\" belongs to the machine file.", key.name));
  }
  if ((key.type == KeyType::Enum) != !key.choices.empty()) {
    return bad(
        fmt::format("The key \"{}\" must have choices if and only if its type is ENUM.", key.name));
  }
  if (key.has_range &&
      ((key.type != KeyType::Int && key.type != KeyType::Size) || key.min > key.max)) {
    return bad(fmt::format("The key \"{}\" has a range that makes no sense for it.", key.name));
  }
  if (key.required && key.default_text) {
    return bad(fmt::format("The key \"{}\" is required and has a default.", key.name));
  }
  if (key.default_text) {
    const ParsedValue parsed = parse_value(key, *key.default_text, {});
    if (!parsed.value) {
      return bad(
          fmt::format("The default of the key \"{}\" is not valid: {}", key.name, parsed.problem));
    }
  }
  return true;
}

}  // namespace

const KindRules *rules_of(std::uint32_t kind) {
  for (const KindRules &rules : kKinds) {
    if (static_cast<std::uint32_t>(rules.kind) == kind) return &rules;
  }
  return nullptr;
}

std::span<const KindRules> all_kinds() { return kKinds; }

}  // namespace plugins

std::optional<PluginInfo> examine_plugin(const std::filesystem::path &file, PluginError &error) {
  const auto image = ElfImage::open(file, error);
  if (!image) return std::nullopt;
  PluginInfo info;
  info.file = file;
  if (!plugins::Examiner(*image, info, error).run()) return std::nullopt;
  error = {};
  return info;
}

std::string format_plugin_info(const PluginInfo &plugin) {
  std::string out =
      fmt::format("{} {} ({})\n", plugin.name, plugin.version, plugin_kind_name(plugin.kind));
  if (!plugin.description.empty()) out += fmt::format("{}\n", plugin.description);
  out += fmt::format("\nfile          {}\nABI version   {}\n", plugin.file.string(),
                     plugin.abi_version);
  if (!plugin.license.empty()) out += fmt::format("licence       {}\n", plugin.license);
  if (!plugin.url.empty()) out += fmt::format("home          {}\n", plugin.url);
  out += fmt::format("capabilities  {:#x}\n", plugin.capabilities);
  if (plugin.keys.empty()) return out + "\nIt has no keys.\n";
  out += "\nKeys:\n";
  for (const KeySchema &key : plugin.keys) {
    std::string type(key_type_name(key.type));
    if (key.type == KeyType::Enum) type += fmt::format(" {}", fmt::join(key.choices, ", "));
    if (key.has_range) type += fmt::format(" {}..{}", key.min, key.max);
    out += fmt::format("  {} ({}", key.name, type);
    if (key.required) out += ", required";
    if (key.default_text) out += fmt::format(", default {}", *key.default_text);
    out += ")\n";
    if (!key.help.empty()) out += fmt::format("      {}\n", key.help);
  }
  return out;
}

}  // namespace cowbird
