// The device "gdb" of the management console: `config gdb=tcp:127.0.0.1:1234` starts a gdb server
// for this guest, `config gdb` answers where it listens, `remove gdb` stops it. Of boot/; see
// devices/device_registry.hpp for who calls it and under which lock.
#pragma once

#include <memory>

#include "boot/gdb_server.hpp"
#include "devices/device_registry.hpp"
#include "instance/instance.hpp"

namespace cowbird {

class GdbDevice final : public DeviceDriver {
 public:
  // `server` is the machine's: that of [debug] gdb, or empty. `instance` may be nullptr. Both live
  // as long as the guest.
  GdbDevice(std::unique_ptr<GdbServer> &server, InstanceDirectory *instance)
      : server_(server), instance_(instance) {}

  std::string_view prefix() const override { return "gdb"; }
  std::string_view syntax() const override { return "gdb=tcp:HOST:PORT|unix:PATH"; }
  DeviceReply configure(std::string_view unit, std::string_view setting) override;
  DeviceReply query(std::string_view unit) override;
  DeviceReply remove(std::string_view unit) override;
  void for_each(const std::function<void(const DeviceStatus &)> &function) override;

 private:
  void stop();
  std::unique_ptr<GdbServer> &server_;
  InstanceDirectory *instance_;
  bool changing_ = false;  // somebody starts or stops it just now, and sleeps
};

}  // namespace cowbird
