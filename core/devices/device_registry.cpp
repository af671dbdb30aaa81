#include "devices/device_registry.hpp"

#include <fmt/format.h>

namespace cowbird {

DeviceRegistry &DeviceRegistry::instance() {
  static auto *const registry = new DeviceRegistry;  // devices may outlive main()
  return *registry;
}

Result<void> DeviceRegistry::add(std::unique_ptr<DeviceDriver> driver) {
  for (const auto &known : drivers_) {
    if (known->prefix().starts_with(driver->prefix()) ||
        driver->prefix().starts_with(known->prefix())) {
      return Err(Errno::Exist);
    }
  }
  drivers_.push_back(std::move(driver));
  return {};
}

DeviceDriver *DeviceRegistry::find(std::string_view name, std::string_view &unit) {
  for (const auto &driver : drivers_) {
    if (!name.starts_with(driver->prefix())) continue;
    unit = name.substr(driver->prefix().size());
    return driver.get();
  }
  return nullptr;
}

std::string DeviceRegistry::unknown(std::string_view name) const {
  if (name.empty()) return fmt::format("The name of a device is missing; {}.", known());
  return fmt::format("There is no device \"{}\"; {}.", name, known());
}

std::string DeviceRegistry::known() const {
  std::vector<std::string_view> prefixes;
  for (const auto &driver : drivers_) prefixes.push_back(driver->prefix());
  return fmt::format("names of devices begin with {}", fmt::join(prefixes, ", "));
}

DeviceReply DeviceRegistry::config(std::string_view request) {
  const auto equals = request.find('=');
  std::string_view name = request.substr(0, equals);
  std::string_view unit;
  if (equals == std::string_view::npos) {
    DeviceDriver *const driver = find(name, unit);
    return driver ? driver->query(unit) : DeviceReply::refused(unknown(name));
  }
  std::string setting(request.substr(equals + 1));
  const bool has_operator = !name.empty() && (name.back() == '+' || name.back() == '-');
  if (has_operator) {
    setting.insert(setting.begin(), name.back());
    name.remove_suffix(1);
  }
  DeviceDriver *const driver = find(name, unit);
  if (!driver) return DeviceReply::refused(unknown(name));
  if (has_operator && !driver->has_operators()) {
    return DeviceReply::refused(fmt::format(
        "\"{}\" can be set with =, but neither += nor -= means anything for it.", name));
  }
  if (setting.empty()) {
    return DeviceReply::refused(fmt::format("The setting behind \"{}\" is missing; the form is {}.",
                                            request.substr(0, equals + 1), driver->syntax()));
  }
  return driver->configure(unit, setting);
}

DeviceReply DeviceRegistry::remove(std::string_view name) {
  std::string_view unit;
  DeviceDriver *const driver = find(name, unit);
  return driver ? driver->remove(unit) : DeviceReply::refused(unknown(name));
}

std::vector<DeviceStatus> DeviceRegistry::list() {
  std::vector<DeviceStatus> devices;
  for (const auto &driver : drivers_) {
    driver->for_each([&](const DeviceStatus &device) { devices.push_back(device); });
  }
  return devices;
}

std::vector<std::string> DeviceRegistry::syntaxes() const {
  std::vector<std::string> lines;
  for (const auto &driver : drivers_) lines.emplace_back(driver->syntax());
  return lines;
}

}  // namespace cowbird
