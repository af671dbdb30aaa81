// The driver of block devices, ubd0 ... = /dev/ubda ...: makes them from their settings, at boot
// and at run time, changes those that nobody uses and removes them. The nodes in /dev follow the
// registry of block/ (fs/devtmpfs.hpp). Made by boot/, then owned by the DeviceRegistry.
//
// Big kernel lock; configure(), remove() and add() may sleep.
#pragma once

#include <map>
#include <string>

#include "block/block_device.hpp"
#include "devices/device_host.hpp"
#include "devices/device_registry.hpp"
#include "machine/machine_config.hpp"
#include "machine/plugin_catalog.hpp"
#include "sched/wait.hpp"

namespace cowbird {

class BlockDriver final : public DeviceDriver {
 public:
  explicit BlockDriver(DeviceHost host);

  // Of the machine file. False and a sentence when the device cannot be made.
  bool add(const DeviceConfig &config, std::string &error);

  // DeviceDriver; a unit is a letter or a number, then UML's flags: "a", "0r".
  std::string_view prefix() const override { return "ubd"; }
  std::string_view syntax() const override { return "ubd<n><flags>=<file>[,<backing file>]"; }
  DeviceReply configure(std::string_view unit, std::string_view setting) override;
  DeviceReply query(std::string_view unit) override;
  DeviceReply remove(std::string_view unit) override;
  void for_each(const std::function<void(const DeviceStatus &)> &function) override;

 private:
  struct Disk {
    PluginSetting setting;
    Ref<BlockDevice> device;
  };
  std::unique_ptr<BlockBackend> make_backend(unsigned index, const PluginSetting &setting,
                                             std::string &error);
  bool make(unsigned index, const PluginSetting &setting, std::string &error);
  bool install(unsigned index, const PluginSetting &setting, std::unique_ptr<BlockBackend> backend,
               std::string &error);
  // Takes the device out; its backend goes with it.
  PluginSetting take_out(unsigned index);
  bool replace(unsigned index, const PluginSetting &setting, std::string &error);

  const DeviceHost host_;
  SharedCatalog catalog_;
  std::map<unsigned, Disk> disks_;
  SleepMutex changing_{"ubd_config"};
};

}  // namespace cowbird
