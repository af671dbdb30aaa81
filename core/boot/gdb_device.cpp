#include "boot/gdb_device.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.hpp"
#include "irq/irq.hpp"

namespace cowbird {
namespace {

DeviceReply no_such_unit() {
  return DeviceReply::refused("There is one gdb server, and its name is gdb.");
}

DeviceReply busy() {
  return DeviceReply::refused("The gdb server is being started or stopped just now.");
}

}  // namespace

// The server's start and end wait for another process.
void GdbDevice::stop() {
  changing_ = true;
  irq::run_blocking("gdb_server", [this] { server_.reset(); });
  if (instance_) ::unlink(instance_->file("gdb").c_str());
  changing_ = false;
}

DeviceReply GdbDevice::configure(std::string_view unit, std::string_view setting) {
  if (!unit.empty()) return no_such_unit();
  if (changing_) return busy();
  const std::string address(setting);
  if (!address.starts_with("tcp:") && !address.starts_with("unix:/")) {
    return DeviceReply::refused(fmt::format(
        "\"{}\" is no address: write gdb=tcp:127.0.0.1:1234 or gdb=unix:/absolute/path", setting));
  }
  std::unique_ptr<GdbServer> started;
  std::string error;
  changing_ = true;
  irq::run_blocking("gdb_server", [&] { started = GdbServer::start(address, error); });
  changing_ = false;
  if (!started) return DeviceReply::refused(error);  // the one before goes on
  if (server_) stop();
  server_ = std::move(started);
  log_notice("gdb server: {}", server_->address());
  if (instance_ && !instance_->write("gdb", server_->address() + "\n", error)) {
    log_warn("{}", error);
  }
  return DeviceReply::done();
}

DeviceReply GdbDevice::query(std::string_view unit) {
  if (!unit.empty()) return no_such_unit();
  if (changing_) return busy();
  if (!server_ || !server_->running()) return DeviceReply::done("none");
  return DeviceReply::done(server_->address());
}

DeviceReply GdbDevice::remove(std::string_view unit) {
  if (!unit.empty()) return no_such_unit();
  if (changing_) return busy();
  if (!server_) return DeviceReply::refused("There is no gdb server.");
  stop();
  return DeviceReply::done();
}

void GdbDevice::for_each(const std::function<void(const DeviceStatus &)> &function) {
  if (!changing_ && server_) function({"gdb", server_->address(), false});
}

}  // namespace cowbird
