// The block devices that the guest has, and the names of ubd devices.
#include "block/block_registry.hpp"

#include <charconv>

namespace cowbird::block {
namespace {

Registry &registry() {
  // Never destroyed: a device may outlive main().
  static Registry *const instance = Registry::made = new Registry;
  return *instance;
}

}  // namespace

constinit Registry *Registry::made = nullptr;

Result<void> register_block_device(Ref<BlockDevice> device) {
  if (find_block_device(device->name()) || find_block_device(device->major(), device->minor())) {
    return Err(Errno::Exist);
  }
  registry().devices.push_back(std::move(device));
  if (registry().listener) registry().listener(*registry().devices.back(), true);
  return {};
}

Result<void> unregister_block_device(std::string_view name) {
  auto &devices = registry().devices;
  for (auto it = devices.begin(); it != devices.end(); ++it) {
    if ((*it)->name() != name) continue;
    const Ref<BlockDevice> device = *it;
    devices.erase(it);
    if (registry().listener) registry().listener(*device, false);
    return {};
  }
  return Err(Errno::NoEnt);
}

Ref<BlockDevice> find_block_device(std::string_view name) {
  for (const Ref<BlockDevice> &device : registry().devices) {
    if (device->name() == name) return device;
  }
  return nullptr;
}

Ref<BlockDevice> find_block_device(std::uint32_t major, std::uint32_t minor) {
  for (const Ref<BlockDevice> &device : registry().devices) {
    if (device->major() == major && device->minor() == minor) return device;
  }
  return nullptr;
}

void for_each_block_device(const std::function<void(BlockDevice &)> &function) {
  const auto devices = registry().devices;  // the function may register or unregister
  for (const Ref<BlockDevice> &device : devices) function(*device);
}

void set_block_device_listener(DeviceListener listener) {
  registry().listener = std::move(listener);
  if (!registry().listener) return;
  for_each_block_device([](BlockDevice &device) { registry().listener(device, true); });
}

Result<unsigned> ubd_index(std::string_view name) {
  if (!name.starts_with("ubd")) return Err(Errno::Inval);
  name.remove_prefix(3);
  if (name.size() == 1 && name[0] >= 'a' && name[0] <= 'z') {
    return static_cast<unsigned>(name[0] - 'a');
  }
  unsigned index = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  const bool padded = name.size() > 1 && name[0] == '0';
  if (name.empty() || error != std::errc() || end != name.data() + name.size() || padded ||
      index >= kMaxUbdDevices) {
    return Err(Errno::Inval);
  }
  return index;
}

std::string ubd_name(unsigned index) {
  if (index >= 26) return "ubd" + std::to_string(index);
  return std::string("ubd") + static_cast<char>('a' + index);
}

Result<Ref<BlockDevice>> add_ubd(std::string_view name, std::unique_ptr<BlockBackend> backend) {
  const unsigned index = TRY(ubd_index(name));
  auto device = TRY(
      BlockDevice::create(ubd_name(index), kUbdMajor, index * kUbdMinorStep, std::move(backend)));
  TRY(register_block_device(device));
  return device;
}

}  // namespace cowbird::block
