// The C++ layer over <cowbird/plugin.h>: header-only, so that no C++ type crosses the border
// between plugin and host. Exceptions stop in the functions that these headers put into the tables
// and become status codes; the text of an Error becomes the sentence that people see.
//
// Include <cowbird/channel.hpp>, <cowbird/blockdev.hpp> or <cowbird/transport.hpp>, derive from the
// class there, and put COWBIRD_CHANNEL_PLUGIN(...) or its like at the end of one source file.
// Threads are as in the C header. C++20.
#ifndef COWBIRD_PLUGIN_HPP
#define COWBIRD_PLUGIN_HPP

#include <cowbird/plugin.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace cowbird::sdk {

// A failure with the sentence for people. `error` is a positive errno.
class Error : public std::runtime_error {
 public:
  Error(int error, const std::string &sentence) : std::runtime_error(sentence), error_(error) {}
  int error() const noexcept { return error_; }

 private:
  int error_;
};

// "text: No such file or directory", with the caller's errno.
[[noreturn]] inline void throw_errno(const std::string &text, int error = errno) {
  throw Error(error, text + ": " + std::strerror(error) + ".");
}

// The configuration of a device, valid while it is created.
class Config {
 public:
  Config(const cowbird_host &host, const cowbird_config *config) : host_(host), config_(config) {}

  // nullopt when the key was not given and has no default. The string lives as long as the device.
  std::optional<std::string_view> text(const char *key) const {
    const char *value = nullptr;
    return check(key, host_.config_string(config_, key, &value))
               ? std::optional<std::string_view>(value)
               : std::nullopt;
  }
  std::optional<std::int64_t> integer(const char *key) const {
    std::int64_t value = 0;
    return check(key, host_.config_int(config_, key, &value)) ? std::optional(value) : std::nullopt;
  }
  std::optional<std::uint64_t> size(const char *key) const {
    std::uint64_t value = 0;
    return check(key, host_.config_size(config_, key, &value)) ? std::optional(value)
                                                               : std::nullopt;
  }
  std::optional<bool> boolean(const char *key) const {
    int value = 0;
    return check(key, host_.config_bool(config_, key, &value)) ? std::optional(value != 0)
                                                               : std::nullopt;
  }
  std::optional<std::array<std::uint8_t, 6>> mac(const char *key) const {
    std::array<std::uint8_t, 6> value{};
    return check(key, host_.config_mac(config_, key, value.data())) ? std::optional(value)
                                                                    : std::nullopt;
  }

 private:
  static bool check(const char *key, int status) {
    if (status == 0) return true;
    if (status == -ENOENT) return false;
    throw Error(EINVAL, std::string("The plugin asks for the key \"") + key +
                            "\", which its schema does not have with this type.");
  }
  const cowbird_host &host_;
  const cowbird_config *config_;
};

// A watched descriptor or host signal; ends with the object, also inside its own callback.
class Watch {
 public:
  Watch() = default;
  ~Watch() { reset(); }
  Watch(const Watch &) = delete;
  Watch &operator=(const Watch &) = delete;

  explicit operator bool() const { return watch_ != nullptr; }
  void reset() {
    if (watch_) host_->fd_remove(std::exchange(watch_, nullptr));
  }
  // Throws Error.
  void modify(std::uint32_t events) {
    const int status = host_->fd_modify(watch_, events);
    if (status != 0) throw_errno("A watched descriptor cannot be changed", -status);
  }

 private:
  friend class Host;
  static void on_fd(void *self, std::uint32_t events) noexcept {
    // A copy: the callback may end this watch, and with it the function.
    const auto call = static_cast<Watch *>(self)->on_events_;
    call(events);
  }
  static void on_signal(void *self) noexcept { on_fd(self, 0); }

  const cowbird_host *host_ = nullptr;
  cowbird_watch *watch_ = nullptr;
  std::function<void(std::uint32_t)> on_events_;
};

// A timer on the guest's monotonic clock; fires once for each arming.
class Timer {
 public:
  Timer() = default;
  ~Timer() { reset(); }
  Timer(const Timer &) = delete;
  Timer &operator=(const Timer &) = delete;

  void arm(std::int64_t delay_ns) { host_->timer_arm(timer_, delay_ns); }
  void cancel() { host_->timer_cancel(timer_); }
  void reset() {
    if (timer_) host_->timer_remove(std::exchange(timer_, nullptr));
  }

 private:
  friend class Host;
  static void on_expiry(void *self) noexcept {
    const auto call = static_cast<Timer *>(self)->on_expiry_;
    call();
  }
  const cowbird_host *host_ = nullptr;
  cowbird_timer *timer_ = nullptr;
  std::function<void()> on_expiry_;
};

// The host's services for one device. Callbacks must not throw (std::terminate).
class Host {
 public:
  Host(const cowbird_host *host, cowbird_device *device) : host_(host), device_(device) {}

  const cowbird_host &table() const { return *host_; }
  cowbird_device *device() const { return device_; }

  // Any thread.
  void log(cowbird_log_level level, const std::string &text) const {
    host_->log(device_, level, text.c_str());
  }
  // The device's name in the machine file; empty on a host that is too old to tell. Any thread.
  std::string name() const {
    const bool known = host_->struct_size >= offsetof(cowbird_host, device_name) + sizeof(void *);
    return known && host_->device_name ? host_->device_name(device_) : "";
  }
  void set_error(const std::string &sentence) const { host_->set_error(device_, sentence.c_str()); }
  // Any thread.
  std::int64_t now_ns() const { return host_->now_ns(device_); }
  // Any thread.
  int post(cowbird_callback callback, void *user) const {
    return host_->post(device_, callback, user);
  }

  // 0 or a negative errno (-EPERM: a descriptor that cannot be polled, so it is always ready). The
  // descriptor stays the caller's; `watch` must be reset before it is closed.
  int watch_fd(Watch &watch, int fd, std::uint32_t events,
               std::function<void(std::uint32_t)> callback) const {
    watch.reset();
    watch.host_ = host_;
    watch.on_events_ = std::move(callback);
    return host_->fd_add(device_, fd, events, &Watch::on_fd, &watch, &watch.watch_);
  }
  int watch_signal(Watch &watch, cowbird_host_signal signal, std::function<void()> callback) const {
    watch.reset();
    watch.host_ = host_;
    watch.on_events_ = [call = std::move(callback)](std::uint32_t) { call(); };
    return host_->signal_add(device_, signal, &Watch::on_signal, &watch, &watch.watch_);
  }
  int add_timer(Timer &timer, std::function<void()> callback) const {
    timer.reset();
    timer.host_ = host_;
    timer.on_expiry_ = std::move(callback);
    return host_->timer_add(device_, &Timer::on_expiry, &timer, &timer.timer_);
  }

 private:
  const cowbird_host *host_;
  cowbird_device *device_;
};

namespace detail {

// Runs a function of the plugin; what it throws becomes a status code, and the host's error text.
template <typename Function>
auto guarded(const Host &host, Function &&function) noexcept -> decltype(function()) {
  try {
    return function();
  } catch (const Error &error) {
    host.set_error(error.what());
    return -error.error();
  } catch (const std::bad_alloc &) {
    host.set_error("There is not enough memory on the host.");
    return -ENOMEM;
  } catch (const std::exception &error) {
    host.set_error(error.what());
    return -EIO;
  } catch (...) {
    host.set_error("The plugin failed without saying why.");
    return -EIO;
  }
}

// What `self` points to: the author's object and the services of its device.
template <typename Device>
struct Instance {
  Instance(const Host &h, const Config &config) : host(h), object(host, config) {}
  Host host;
  Device object;

  static int create(const cowbird_host *table, cowbird_device *device, const cowbird_config *config,
                    void **out) noexcept {
    const Host host(table, device);
    return guarded(host, [&]() -> int {
      *out = std::make_unique<Instance>(host, Config(*table, config)).release();
      return 0;
    });
  }
  static void destroy(void *self) noexcept { delete static_cast<Instance *>(self); }
  static Instance &of(void *self) { return *static_cast<Instance *>(self); }
  template <typename Function>
  static auto call(void *self, Function &&function) noexcept
      -> decltype(function(of(self).object)) {
    return guarded(of(self).host, [&] { return function(of(self).object); });
  }
  static void describe(void *self, char *text, std::size_t size) noexcept {
    if (size == 0) return;
    text[0] = '\0';
    call(self, [&](Device &device) -> int {
      std::snprintf(text, size, "%s", device.describe().c_str());
      return 0;
    });
  }
};

template <std::size_t N>
constexpr std::uint32_t key_count(const cowbird_key (&)[N]) {
  return N;
}
constexpr std::uint32_t key_count(std::nullptr_t) { return 0; }

}  // namespace detail
}  // namespace cowbird::sdk

// Used by the macros of the kinds. `keys` is an array of cowbird_key or nullptr. The descriptor
// must be readable from the file, hence constinit.
#define COWBIRD_DEFINE_PLUGIN(the_kind, ops_table, plugin_name, plugin_version, key_array, text, \
                              spdx, caps)                                                        \
  COWBIRD_PLUGIN_EXPORT constinit const cowbird_plugin cowbird_plugin_descriptor = {             \
      COWBIRD_PLUGIN_HEADER(the_kind),                                                           \
      .name = plugin_name,                                                                       \
      .version = plugin_version,                                                                 \
      .ops = &(ops_table),                                                                       \
      .keys = key_array,                                                                         \
      .key_count = cowbird::sdk::detail::key_count(key_array),                                   \
      .reserved = 0,                                                                             \
      .description = text,                                                                       \
      .license = spdx,                                                                           \
      .url = nullptr,                                                                            \
      .capabilities = (caps)}

#endif
