// Channels in C++: derive from Channel, then
//   COWBIRD_CHANNEL_PLUGIN(MyChannel, "mine", "1.0", kKeys, "what it is", "MIT", 0);
// See <cowbird/channel.h> for what each function has to do and <cowbird/plugin.hpp> for errors.
#ifndef COWBIRD_CHANNEL_HPP
#define COWBIRD_CHANNEL_HPP

#include <cowbird/channel.h>

#include <cowbird/plugin.hpp>
#include <span>

namespace cowbird::sdk {

// The derived class has a constructor (const Host &, const Config &), which throws Error.
class Channel {
 public:
  explicit Channel(const Host &host) : host_(host) {}
  virtual ~Channel() = default;
  Channel(const Channel &) = delete;
  Channel &operator=(const Channel &) = delete;

  virtual void open() = 0;  // throws Error
  virtual void close() noexcept = 0;
  // > 0 bytes, 0 end of file, or a negative errno; these are no exceptional outcomes.
  virtual std::int64_t read(std::span<std::byte> buffer) = 0;
  virtual std::int64_t write(std::span<const std::byte> data) = 0;

  // nullopt: there is no window.
  virtual std::optional<cowbird_window> window() { return std::nullopt; }
  virtual int set_window(const cowbird_window &) { return -ENOTTY; }
  virtual int set_raw(bool) { return 0; }
  virtual int set_break(bool) { return -ENOTTY; }
  virtual std::int64_t unsent() { return 0; }
  virtual std::string describe() = 0;
  // Only async-signal-safe calls.
  virtual void emergency_restore() noexcept {}

 protected:
  const Host &host() const { return host_; }
  // COWBIRD_CHANNEL_... events; any thread.
  void notify(std::uint32_t events) const { host_.table().channel_notify(host_.device(), events); }

 private:
  const Host &host_;
};

template <typename Derived>
struct ChannelTable {
  using Self = detail::Instance<Derived>;
  static int open(void *self) noexcept {
    return Self::call(self, [](Derived &c) -> int {
      c.open();
      return 0;
    });
  }
  static void close(void *self) noexcept { Self::of(self).object.close(); }
  static std::int64_t read(void *self, void *buffer, std::size_t size) noexcept {
    return Self::call(self, [&](Derived &c) -> std::int64_t {
      return c.read({static_cast<std::byte *>(buffer), size});
    });
  }
  static std::int64_t write(void *self, const void *data, std::size_t size) noexcept {
    return Self::call(self, [&](Derived &c) -> std::int64_t {
      return c.write({static_cast<const std::byte *>(data), size});
    });
  }
  static int get_window(void *self, cowbird_window *out) noexcept {
    return Self::call(self, [&](Derived &c) -> int {
      const auto window = c.window();
      if (!window) return -ENOTTY;
      *out = *window;
      return 0;
    });
  }
  static int set_window(void *self, const cowbird_window *window) noexcept {
    return Self::call(self, [&](Derived &c) -> int { return c.set_window(*window); });
  }
  static int set_raw(void *self, int raw) noexcept {
    return Self::call(self, [&](Derived &c) -> int { return c.set_raw(raw != 0); });
  }
  static int set_break(void *self, int on) noexcept {
    return Self::call(self, [&](Derived &c) -> int { return c.set_break(on != 0); });
  }
  static std::int64_t unsent(void *self) noexcept {
    return Self::call(self, [](Derived &c) -> std::int64_t { return c.unsent(); });
  }
  static void emergency_restore(void *self) noexcept { Self::of(self).object.emergency_restore(); }

  static constexpr cowbird_channel_ops ops = {
      .header = {sizeof(cowbird_channel_ops), COWBIRD_KIND_CHANNEL},
      .create = &Self::create,
      .destroy = &Self::destroy,
      .open = &open,
      .close = &close,
      .read = &read,
      .write = &write,
      .get_window = &get_window,
      .set_window = &set_window,
      .set_raw = &set_raw,
      .describe = &Self::describe,
      .emergency_restore = &emergency_restore,
      .set_break = &set_break,
      .unsent = &unsent,
  };
};

}  // namespace cowbird::sdk

#define COWBIRD_CHANNEL_PLUGIN(Class, name, version, keys, description, license, capabilities) \
  COWBIRD_DEFINE_PLUGIN(COWBIRD_KIND_CHANNEL, cowbird::sdk::ChannelTable<Class>::ops, name,    \
                        version, keys, description, license, capabilities)

#endif
