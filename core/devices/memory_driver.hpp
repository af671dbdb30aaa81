// The driver of the guest's memory, `mem`: at run time it can be made smaller than it was at boot
// (mem-=64M), which gives pages back to the host, and larger again up to that size (mem+=64M,
// mem=128M for the whole size). The work is the balloon's (mm/balloon.hpp).
//
// Big kernel lock; configure() sleeps.
#pragma once

#include "devices/device_registry.hpp"
#include "sched/wait.hpp"

namespace cowbird {

class MemoryDriver final : public DeviceDriver {
 public:
  std::string_view prefix() const override { return "mem"; }
  std::string_view syntax() const override { return "mem=<size>, mem+=<size>, mem-=<size>"; }
  bool has_operators() const override { return true; }
  // The size that the guest has now: "64M".
  DeviceReply query(std::string_view unit) override;
  DeviceReply configure(std::string_view unit, std::string_view setting) override;
  DeviceReply remove(std::string_view unit) override;
  void for_each(const std::function<void(const DeviceStatus &)> &function) override;

 private:
  DeviceReply shrink_guest(std::uint64_t pages);
  DeviceReply grow_guest(std::uint64_t pages);

  SleepMutex changing_{"mem_config"};
};

}  // namespace cowbird
