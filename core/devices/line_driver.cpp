#include "devices/line_driver.hpp"

#include <fmt/format.h>

#include "base/log.hpp"
#include "fs/devtmpfs.hpp"
#include "machine/device_names.hpp"
#include "machine/device_setting.hpp"
#include "tty/console_tap.hpp"
#include "vfs/file.hpp"

namespace cowbird {

namespace {

constexpr std::uint32_t kTtyMajor = 4;
constexpr std::uint32_t kNodeMode = static_cast<std::uint32_t>(FileType::CharDevice) | 0620;

}  // namespace

const LineDriver::Kind LineDriver::kConsoles{"con", "tty", "console", 0, 64, 240};
const LineDriver::Kind LineDriver::kSerials{"ssl", "ttyS", "serial line", 64, 192, 241};

LineDriver::LineDriver(const Kind &kind, DeviceHost host)
    : kind_(kind),
      syntax_(fmt::format("{}<n>=<channel>[,<channel>]", kind.prefix)),
      host_(std::move(host)),
      catalog_(host_.plugins) {
  set_console_tap_maker(std::string(kind_.prefix), [this](std::string_view name) {
    const auto unit = line_unit(name.substr(kind_.prefix.size()));
    std::string error;
    if (unit && !line(*unit, error) && !error.empty()) log_err("{}: {}", name, error);
  });
}

LineDriver::~LineDriver() {
  set_console_tap_maker(std::string(kind_.prefix), {});
  if (!registered_) return;
  unregister_char_device(kTtyMajor, kind_.first_minor);
  unregister_char_device(kind_.more_major, kind_.minors);
}

std::string LineDriver::name_of(std::uint32_t unit) const {
  return fmt::format("{}{}", kind_.prefix, unit);
}
std::string LineDriver::node_of(std::uint32_t unit) const {
  return fmt::format("{}{}", kind_.node, unit);
}

DeviceNumber LineDriver::number_of(std::uint32_t unit) const {
  if (unit < kind_.minors) return {kTtyMajor, kind_.first_minor + unit};
  return {kind_.more_major, unit};
}

std::optional<std::uint32_t> LineDriver::unit_of(DeviceNumber number) const {
  if (number.major == kind_.more_major) return number.minor;
  const std::uint32_t unit = number.minor - kind_.first_minor;
  if (number.major != kTtyMajor || unit >= kind_.minors) return std::nullopt;
  return unit;
}

std::string LineDriver::bad_unit(std::string_view unit) const {
  return fmt::format("\"{}\" is no number of a {}: {}0, {}1 and so on are.", unit, kind_.title,
                     kind_.prefix, kind_.prefix);
}

// --- making

bool LineDriver::make_side(const std::string &name, const PluginSetting &setting, LineSide &side,
                           std::string &error) {
  if (setting.plugin == kNoChannel) return true;
  PluginError why;
  const PluginInfo *plugin = host_.plugins.find(PluginKind::Channel, setting.plugin, why);
  if (plugin) {
    side.plugin = plugin->name;
    side.channel = host_.plugins.create_channel(*plugin, name, setting.config, host_.events, why);
  }
  if (!side.channel) error = why.message;
  return side.channel != nullptr;
}

std::unique_ptr<TtyLine> LineDriver::make_line(std::uint32_t unit, const LineSetting &setting,
                                               std::string &error) {
  if (setting.none()) return nullptr;
  LineChannels channels;
  channels.shared = !setting.output;
  const std::string name = name_of(unit);
  if (!make_side(name, setting.input, channels.input, error)) return nullptr;
  if (setting.output && !make_side(name, *setting.output, channels.output, error)) return nullptr;
  auto line = std::make_unique<TtyLine>(node_of(unit), number_of(unit), std::move(channels));
  add_console_tap(name, line->tty());
  return line;
}

// The setting of all others is tried with a line of its own, or whoever opens the first of them
// would be the one to learn that it is wrong.
bool LineDriver::can_be_made(const LineSetting &setting, std::string &error) {
  const std::string name = fmt::format("{}*", kind_.prefix);
  LineSide side;
  return make_side(name, setting.input, side, error) &&
         (!setting.output || make_side(name, *setting.output, side, error));
}

bool LineDriver::add(const LineConfig &config, std::string &error) {
  const bool every = config.unit == kEveryLine;
  std::string why;
  auto line = every ? nullptr : make_line(config.unit, config, why);
  if (every ? !can_be_made(config, why) : !line && !why.empty()) {
    error = config.where.empty() ? why : fmt::format("{}: {}", config.where, why);
    return false;
  }
  if (every) {
    default_ = config;
  } else {
    lines_[config.unit] = {config, std::move(line)};
  }
  return true;
}

TtyLine *LineDriver::line(std::uint32_t unit, std::string &error) {
  if (const auto found = lines_.find(unit); found != lines_.end()) return found->second.line.get();
  if (!default_) return nullptr;
  auto made = make_line(unit, *default_, error);
  if (!made) return nullptr;
  return (lines_[unit] = {*default_, std::move(made)}).line.get();
}

TtyLine *LineDriver::first_line(std::string &error) {
  if (TtyLine *const found = line(0, error); found || !error.empty()) return found;
  for (const auto &[unit, entry] : lines_) {
    if (entry.line) return entry.line.get();
  }
  return nullptr;
}

void LineDriver::drain(std::int64_t deadline_ns) {
  std::vector<std::function<void(std::int64_t)>> drainers;
  for_each_line([&](const std::string &, TtyLine &line) {
    if (line.is_open()) drainers.push_back(line.drainer());
  });
  for (const auto &wait : drainers) wait(deadline_ns);
}

void LineDriver::shut_down() {
  default_.reset();
  lines_.clear();
}

void LineDriver::for_each_line(
    const std::function<void(const std::string &name, TtyLine &line)> &function) {
  for (const auto &[unit, entry] : lines_) {
    if (entry.line) function(name_of(unit), *entry.line);
  }
}

// --- what the guest sees

Result<void> LineDriver::register_devices() {
  const auto opener = [this](Inode &, DeviceNumber number, std::uint32_t flags) {
    return open(number, flags);
  };
  TRY(register_char_device(std::string(kind_.node), kTtyMajor, kind_.first_minor, kind_.minors,
                           opener));
  TRY(register_char_device(std::string(kind_.node), kind_.more_major, kind_.minors,
                           kMaxLines - kind_.minors, opener));
  registered_ = true;
  const SleepLock lock(changing_);
  if (default_) add_default_nodes();
  std::vector<std::uint32_t> units;
  for (const auto &[unit, entry] : lines_) units.push_back(unit);
  for (const std::uint32_t unit : units) add_node(unit);
  return {};
}

Result<Ref<File>> LineDriver::open(DeviceNumber number, std::uint32_t flags) {
  const auto unit = unit_of(number);
  if (!unit) return Err(Errno::NoDev);
  std::string error;
  TtyLine *const found = line(*unit, error);
  if (!error.empty()) log_err("{}: {}", name_of(*unit), error);
  if (!found) return Err(Errno::NoDev);
  return tty_open(found->tty(), flags);
}

void LineDriver::add_default_nodes() {
  for (std::uint32_t unit = 0; unit < kDefaultNodes; ++unit) add_node(unit);
}

void LineDriver::add_node(std::uint32_t unit) {
  if (!registered_ || !nodes_.insert(unit).second) return;
  const auto added = devtmpfs_add(node_of(unit), kNodeMode, number_of(unit));
  if (!added && !added.is(Errno::Exist)) {
    log_err("{}: /dev/{} cannot be made: {}", name_of(unit), node_of(unit),
            errno_text(added.error()));
  }
}

void LineDriver::drop_node(std::uint32_t unit) {
  if (default_ && unit < kDefaultNodes) return;
  if (nodes_.erase(unit) == 0) return;
  const auto removed = devtmpfs_remove(node_of(unit), kNodeMode, number_of(unit));
  // The guest may have removed it by itself.
  if (!removed && !removed.is(Errno::NoEnt)) {
    log_err("{}: /dev/{} cannot be removed: {}", name_of(unit), node_of(unit),
            errno_text(removed.error()));
  }
}

// --- what the operator asks

DeviceReply LineDriver::configure_default(std::string_view setting) {
  std::string error;
  auto parsed = parse_line_setting(setting, host_.directory, catalog_, error, host_.xterm);
  if (!parsed || !can_be_made(*parsed, error)) return DeviceReply::refused(std::move(error));
  default_ = std::move(*parsed);
  add_default_nodes();
  return DeviceReply::done();
}

DeviceReply LineDriver::configure(std::string_view unit_text, std::string_view setting) {
  const SleepLock lock(changing_);
  if (unit_text.empty()) return configure_default(setting);
  const auto unit = line_unit(unit_text);
  if (!unit) return DeviceReply::refused(bad_unit(unit_text));
  const auto found = lines_.find(*unit);
  if (found != lines_.end() && found->second.line && found->second.line->busy()) {
    return DeviceReply::refused(std::string(kDeviceIsOpen));
  }
  std::string error;
  auto parsed = parse_line_setting(setting, host_.directory, catalog_, error, host_.xterm);
  if (!parsed) return DeviceReply::refused(std::move(error));
  auto made = make_line(*unit, *parsed, error);
  if (!made && !error.empty()) return DeviceReply::refused(std::move(error));
  lines_[*unit] = {std::move(*parsed), std::move(made)};
  add_node(*unit);
  return DeviceReply::done();
}

std::string LineDriver::setting_now(const Entry &entry) {
  std::string text = line_setting_text(entry.setting, catalog_, host_.xterm);
  if (!entry.line) return text;
  const std::string input = entry.line->input().now();
  if (entry.line->shared()) return input.empty() ? text : input;
  const std::string output = entry.line->output().now();
  if (input.empty() && output.empty()) return text;
  // Each side by itself; a side that knows nothing more is as it was configured. `fd` names both of
  // its descriptors, of which one side has one.
  const auto side = [&](const PluginSetting &setting, const std::string &now) {
    if (!now.empty() && setting.plugin != "fd") return now;
    LineSetting alone;
    alone.input = setting;
    return line_setting_text(alone, catalog_, host_.xterm);
  };
  return side(entry.setting.input, input) + "," + side(*entry.setting.output, output);
}

DeviceReply LineDriver::query(std::string_view unit_text) {
  const auto general = [&] {
    return DeviceReply::done(default_ ? line_setting_text(*default_, catalog_, host_.xterm)
                                      : std::string(kNoChannel));
  };
  if (unit_text.empty()) return general();
  const auto unit = line_unit(unit_text);
  if (!unit) return DeviceReply::refused(bad_unit(unit_text));
  const auto found = lines_.find(*unit);
  if (found == lines_.end()) return general();
  return DeviceReply::done(setting_now(found->second));
}

DeviceReply LineDriver::remove(std::string_view unit_text) {
  const SleepLock lock(changing_);
  const auto unit = line_unit(unit_text);
  if (!unit) return DeviceReply::refused(bad_unit(unit_text));
  const auto found = lines_.find(*unit);
  if ((found == lines_.end() && !default_) ||
      (found != lines_.end() && !found->second.line && (default_ || !nodes_.contains(*unit)))) {
    return DeviceReply::refused(fmt::format("There is no {}.", name_of(*unit)));
  }
  if (found != lines_.end() && found->second.line && found->second.line->busy()) {
    return DeviceReply::refused(std::string(kDeviceIsOpen));
  }
  if (default_) {
    // Not the setting of all again: it was to go.
    LineSetting none;
    none.input.plugin = kNoChannel;
    lines_[*unit] = {std::move(none), nullptr};
  } else {
    lines_.erase(found);
  }
  drop_node(*unit);
  return DeviceReply::done();
}

void LineDriver::for_each(const std::function<void(const DeviceStatus &)> &function) {
  for (const auto &[unit, entry] : lines_) {
    if (!entry.line) continue;
    function({name_of(unit), setting_now(entry), entry.line->busy()});
  }
}

}  // namespace cowbird
