#include "devices/block_driver.hpp"

#include <fmt/format.h>

#include "base/log.hpp"
#include "machine/device_setting.hpp"

namespace cowbird {

namespace {

struct Unit {
  unsigned index;
  std::string_view flags;
};

// "a", "17", "0r", "adc"; nullopt when it begins with neither a letter nor a number in range.
std::optional<Unit> parse_unit(std::string_view text) {
  const auto digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::size_t length = digits == 0 && !text.empty() ? 1 : digits;
  const auto index = block::ubd_index(fmt::format("ubd{}", text.substr(0, length)));
  if (!index) return std::nullopt;
  return Unit{*index, text.substr(length)};
}

DeviceReply bad_unit(std::string_view unit) {
  return DeviceReply::refused(fmt::format(
      "\"{}\" is no letter or number of a block device: ubda to ubdz and ubd0, ubd1 and so on are.",
      unit));
}

// Of a query or a removal.
DeviceReply flags_given(const Unit &unit) {
  return DeviceReply::refused(fmt::format(
      "The flags \"{}\" belong to a setting, config {}{}=FILE; here the name is {}.", unit.flags,
      block::ubd_name(unit.index), unit.flags, block::ubd_name(unit.index)));
}

DeviceReply absent(unsigned index) {
  return DeviceReply::refused(fmt::format("There is no {}.", block::ubd_name(index)));
}

}  // namespace

BlockDriver::BlockDriver(DeviceHost host) : host_(std::move(host)), catalog_(host_.plugins) {}

std::unique_ptr<BlockBackend> BlockDriver::make_backend(unsigned index,
                                                        const PluginSetting &setting,
                                                        std::string &error) {
  PluginError why;
  const PluginInfo *plugin = host_.plugins.find(PluginKind::Block, setting.plugin, why);
  std::unique_ptr<BlockBackend> backend;
  if (plugin) {
    backend = host_.plugins.create_block(*plugin, block::ubd_name(index), setting.config,
                                         host_.events, why);
  }
  if (!backend) error = why.message;
  return backend;
}

bool BlockDriver::install(unsigned index, const PluginSetting &setting,
                          std::unique_ptr<BlockBackend> backend, std::string &error) {
  const std::string name = block::ubd_name(index);
  auto added = block::add_ubd(name, std::move(backend));
  if (!added) {
    error = fmt::format("{} cannot be added: {}.", name, errno_text(added.error()));
    return false;
  }
  log_info("{}: {} bytes{}, {}", name, (*added)->size(), (*added)->read_only() ? ", read-only" : "",
           (*added)->describe());
  disks_[index] = {setting, *added};
  return true;
}

bool BlockDriver::make(unsigned index, const PluginSetting &setting, std::string &error) {
  auto backend = make_backend(index, setting, error);
  return backend && install(index, setting, std::move(backend), error);
}

PluginSetting BlockDriver::take_out(unsigned index) {
  const auto found = disks_.find(index);
  PluginSetting setting = std::move(found->second.setting);
  const std::string name = found->second.device->name();
  disks_.erase(found);
  if (const auto gone = block::unregister_block_device(name); !gone) {
    log_err("{}: cannot be taken out: {}", name, errno_text(gone.error()));
  }
  return setting;
}

bool BlockDriver::replace(unsigned index, const PluginSetting &setting, std::string &error) {
  // The new one first, so that nothing is lost when it cannot be had. Where both need the same
  // locked file the old one must go before.
  auto backend = make_backend(index, setting, error);
  const PluginSetting old = take_out(index);
  if (!backend) backend = make_backend(index, setting, error);
  if (backend && install(index, setting, std::move(backend), error)) return true;
  if (std::string why; !make(index, old, why)) {
    error += fmt::format(" {} as it was cannot be had again: {}", block::ubd_name(index), why);
  }
  return false;
}

bool BlockDriver::add(const DeviceConfig &config, std::string &error) {
  const SleepLock lock(changing_);
  if (make(config.unit, config, error)) return true;
  error = fmt::format("{}: {}", config.where, error);
  return false;
}

DeviceReply BlockDriver::configure(std::string_view unit_text, std::string_view text) {
  const SleepLock lock(changing_);
  const auto unit = parse_unit(unit_text);
  if (!unit) return bad_unit(unit_text);
  const auto found = disks_.find(unit->index);
  const bool there = found != disks_.end();
  if (there && found->second.device->users() != 0) {
    return DeviceReply::refused(std::string(kDeviceIsOpen));
  }
  std::string error;
  const auto setting = parse_block_setting(text, unit->flags, host_.directory, catalog_, error);
  if (!setting) return DeviceReply::refused(std::move(error));
  const bool done =
      there ? replace(unit->index, *setting, error) : make(unit->index, *setting, error);
  return done ? DeviceReply::done() : DeviceReply::refused(std::move(error));
}

DeviceReply BlockDriver::query(std::string_view unit_text) {
  const auto unit = parse_unit(unit_text);
  if (!unit) return bad_unit(unit_text);
  if (!unit->flags.empty()) return flags_given(*unit);
  const auto found = disks_.find(unit->index);
  if (found == disks_.end()) return absent(unit->index);
  return DeviceReply::done(block_setting_text(found->second.setting, catalog_));
}

DeviceReply BlockDriver::remove(std::string_view unit_text) {
  const SleepLock lock(changing_);
  const auto unit = parse_unit(unit_text);
  if (!unit) return bad_unit(unit_text);
  if (!unit->flags.empty()) return flags_given(*unit);
  const auto found = disks_.find(unit->index);
  if (found == disks_.end()) return absent(unit->index);
  if (found->second.device->users() != 0) return DeviceReply::refused(std::string(kDeviceIsOpen));
  take_out(unit->index);
  return DeviceReply::done();
}

void BlockDriver::for_each(const std::function<void(const DeviceStatus &)> &function) {
  for (const auto &[index, disk] : disks_) {
    function({block::ubd_name(index), block_setting_text(disk.setting, catalog_),
              disk.device->users() != 0});
  }
}

}  // namespace cowbird
