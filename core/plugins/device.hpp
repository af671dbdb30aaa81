// The host's side of one device of a plugin: `struct cowbird_device`, on which the plugin calls the
// host's services, and the guarantees that the ABI gives about them (serialised callbacks, nothing
// after destruction). Used by the adaptors in core/plugins only.
//
// All state is protected by the big kernel lock, except what its comment says. A device is held by
// a shared_ptr, because posted functions may outlive it.
#pragma once

#include <cowbird/plugin.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/lock.hpp"
#include "plugins/host_events.hpp"
#include "plugins/host_signals.hpp"
#include "plugins/plugin_registry.hpp"

namespace cowbird::plugins {

// A loaded library and its checked function table, zero-padded to this host's size.
struct LoadedPlugin;

// What an adaptor hears from its device. Called on the irq thread under the big kernel lock, never
// from inside a function of the plugin.
class DeviceClient {
 public:
  virtual ~DeviceClient() = default;
  virtual void on_notify(std::uint32_t) {}
  virtual void on_complete(cowbird_block_request *, int) {}
  virtual void on_resized() {}
};

// The table that every plugin gets.
const cowbird_host &host_table();

// After `create`: true when the device is there; else CreateFailed with the plugin's own sentence.
bool check_created(cowbird_device &device, int status, bool created, PluginError &error);

// A Device (a channel, a block backend) of the plugin; nullptr and the reason when it refuses.
template <typename Device>
std::unique_ptr<Device> make_device(std::shared_ptr<LoadedPlugin> loaded, const PluginInfo &plugin,
                                    std::string name, const PluginConfig &config,
                                    HostEvents &events, PluginError &error) {
  auto shared =
      std::make_shared<cowbird_device>(std::move(name), events, std::move(loaded), plugin, config);
  auto device = std::make_unique<Device>(shared);
  const int status = device->create();
  if (!check_created(*shared, status, device->created(), error)) return nullptr;
  return device;
}

}  // namespace cowbird::plugins

struct cowbird_config {
  const cowbird::PluginInfo plugin;
  cowbird::PluginConfig config;
};

struct cowbird_device : std::enable_shared_from_this<cowbird_device> {
 public:
  cowbird_device(std::string device_name, cowbird::HostEvents &host_events,
                 std::shared_ptr<cowbird::plugins::LoadedPlugin> loaded_plugin,
                 const cowbird::PluginInfo &info, const cowbird::PluginConfig &device_config)
      : name(std::move(device_name)),
        events(host_events),
        plugin(std::move(loaded_plugin)),
        config{info, device_config} {}
  ~cowbird_device();

  const std::string name;
  cowbird::HostEvents &events;
  // Kept so that no code is unloaded while something may still call it.
  const std::shared_ptr<cowbird::plugins::LoadedPlugin> plugin;
  const cowbird_config config;
  cowbird::plugins::DeviceClient *client = nullptr;
  std::string error_text;  // what set_error said last

  // Calls into the plugin from the event thread: runs `callback`, then what it delivered.
  void run_event(const std::function<void()> &callback);
  // Runs `function` on the event thread, outside all functions of the plugin. From any host thread.
  // Dropped when the device is shut down before.
  void deliver(std::function<void()> function);
  // As deliver(), but never before the current callback's caller had its turn.
  void enqueue(std::function<void()> function);
  // After this nothing of what was posted, delivered or watched runs any more. Called when the
  // plugin's `destroy` has returned (or `create` has failed).
  void shut_down();
  bool alive() const { return alive_.load(std::memory_order_acquire); }

  // Owned here, so that what a plugin forgets to remove ends with the device.
  std::map<cowbird_watch *, std::unique_ptr<cowbird_watch>> watches;
  std::map<cowbird_timer *, std::unique_ptr<cowbird_timer>> timers;

 private:
  void drain();

  std::atomic<bool> alive_{true};
  std::atomic<pthread_t> event_thread_{};  // the event thread while run_event runs a callback
  // Delivered from inside a callback on the event thread; runs when the callback has returned.
  // Used by the event thread only.
  std::vector<std::function<void()>> deferred_;
  // Protects inbox_. The big kernel lock may be held when it is taken; nothing is taken under it.
  cowbird::Mutex inbox_lock_{cowbird::LockRank::PluginHost, "plugin device inbox"};
  std::vector<std::function<void()>> inbox_ GUARDED_BY(inbox_lock_);
};

// A descriptor or signal that the plugin watches.
struct cowbird_watch {
  cowbird_device &device;
  std::unique_ptr<cowbird::plugins::SignalDescriptor> signal;  // outlives host_watch
  std::unique_ptr<cowbird::HostEvents::Watch> host_watch;
};

struct cowbird_timer {
  cowbird_device &device;
  std::unique_ptr<cowbird::HostEvents::Timer> host_timer;
};
