// Channels that plugins offer.
#include <cowbird/channel.h>
#include <fmt/format.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "base/log.hpp"
#include "plugins/device.hpp"
#include "plugins/loaded_plugin.hpp"
#include "plugins/terminal_guard.hpp"

namespace cowbird::plugins {
namespace {

static_assert(Channel::Readable == COWBIRD_CHANNEL_READABLE &&
              Channel::Writable == COWBIRD_CHANNEL_WRITABLE &&
              Channel::HangUp == COWBIRD_CHANNEL_HANGUP &&
              Channel::Connected == COWBIRD_CHANNEL_CONNECTED &&
              Channel::Window == COWBIRD_CHANNEL_WINDOW && Channel::Break == COWBIRD_CHANNEL_BREAK);
constexpr std::uint32_t kKnownEvents = Channel::Readable | Channel::Writable | Channel::HangUp |
                                       Channel::Connected | Channel::Window | Channel::Break;

// It may have the name of a file in it.
constexpr std::size_t kLongestDescription = PATH_MAX + 256;

class PluginChannel final : public Channel, private DeviceClient {
 public:
  explicit PluginChannel(std::shared_ptr<cowbird_device> device)
      : device_(std::move(device)), ops_(device_->plugin->table<cowbird_channel_ops>()) {
    device_->client = this;
  }
  ~PluginChannel() override {
    close();
    if (self_) ops_.destroy(self_);
    device_->shut_down();
  }

  int create() {
    const int status = ops_.create(&host_table(), device_.get(), &device_->config, &self_);
    if (status != 0) self_ = nullptr;
    return status;
  }
  bool created() const { return self_ != nullptr; }

  Result<void> open(Listener listener) override {
    if (open_) return Err(Errno::Busy);
    // Before the plugin changes anything: a crash in the middle of open is covered too.
    if (ops_.emergency_restore) TRY(guard_.arm(ops_.emergency_restore, self_));
    device_->error_text.clear();
    const int status = ops_.open(self_);
    if (status < 0) {
      guard_.disarm();
      const Errno error = errno_from_host(-status);
      // A device that is not there, on purpose: no fault to speak of.
      if (error != Errno::NoDev || !device_->error_text.empty()) {
        log_err("{}: cannot be opened: {}", device_->name,
                device_->error_text.empty() ? std::string(errno_text(error)) : device_->error_text);
      }
      return Err(error);
    }
    listener_ = std::move(listener);
    open_ = true;
    return {};
  }

  void close() override {
    if (!open_) return;
    open_ = false;
    listener_ = nullptr;
    ops_.close(self_);
    guard_.disarm();
  }

  bool is_open() const override { return open_; }

  Result<std::size_t> read(std::span<std::byte> buffer) override {
    if (!open_) return Err(Errno::Io);
    if (buffer.empty()) return std::size_t{0};
    return count(ops_.read(self_, buffer.data(), buffer.size()), buffer.size());
  }

  Result<std::size_t> write(std::span<const std::byte> data) override {
    if (!open_) return Err(Errno::Io);
    if (data.empty()) return std::size_t{0};
    return count(ops_.write(self_, data.data(), data.size()), data.size());
  }

  Result<WindowSize> window_size() override {
    if (!ops_.get_window) return Err(Errno::NotTty);
    cowbird_window window{};
    TRY(status(ops_.get_window(self_, &window)));
    return WindowSize{window.rows, window.columns, window.width_px, window.height_px};
  }

  Result<void> set_window_size(const WindowSize &size) override {
    if (!ops_.set_window) return Err(Errno::NotTty);
    const cowbird_window window{size.rows, size.columns, size.width_px, size.height_px};
    return status(ops_.set_window(self_, &window));
  }

  Result<void> set_raw(bool raw) override {
    if (!ops_.set_raw) return {};
    return status(ops_.set_raw(self_, raw ? 1 : 0));
  }

  Result<void> set_break(bool on) override {
    if (!open_ || !ops_.set_break) return Err(Errno::NotTty);
    return status(ops_.set_break(self_, on ? 1 : 0));
  }

  bool has_unsent() override {
    // An error is no reason to wait.
    return open_ && ops_.unsent && ops_.unsent(self_) > 0;
  }

  std::string describe() override {
    if (!ops_.describe) return device_->config.plugin.name;
    std::string text(kLongestDescription, '\0');
    ops_.describe(self_, text.data(), text.size());
    text.resize(strnlen(text.data(), text.size()));
    return text;
  }

 private:
  static Result<void> status(int value) {
    if (value < 0) return Err(errno_from_host(-value));
    return {};
  }

  // A count outside [0, size] would make the kernel believe in data that is not there.
  Result<std::size_t> count(std::int64_t value, std::size_t size) {
    if (value < 0) return Err(errno_from_host(value < -4095 ? EIO : static_cast<int>(-value)));
    if (static_cast<std::uint64_t>(value) > size) {
      log_err("{}: the plugin \"{}\" transferred {} bytes where {} were offered", device_->name,
              device_->config.plugin.name, value, size);
      return Err(Errno::Io);
    }
    return static_cast<std::size_t>(value);
  }

  void on_notify(std::uint32_t events) override {
    // A notice that was given before it was closed concerns nobody.
    if (!open_ || !(events & kKnownEvents)) return;
    const Listener listener = listener_;
    listener(events & kKnownEvents);
  }

  const std::shared_ptr<cowbird_device> device_;
  const cowbird_channel_ops &ops_;
  void *self_ = nullptr;
  bool open_ = false;
  Listener listener_;
  TerminalGuard guard_;
};

}  // namespace

std::unique_ptr<Channel> make_channel(std::shared_ptr<LoadedPlugin> loaded,
                                      const PluginInfo &plugin, std::string device_name,
                                      const PluginConfig &config, HostEvents &events,
                                      PluginError &error) {
  return make_device<PluginChannel>(std::move(loaded), plugin, std::move(device_name), config,
                                    events, error);
}

}  // namespace cowbird::plugins
