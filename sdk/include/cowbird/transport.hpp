// Transports in C++: derive from Transport, then
//   COWBIRD_TRANSPORT_PLUGIN(MyLink, "mine", "1.0", kKeys, "what it is", "MIT", 0);
// See <cowbird/transport.h> for what each function has to do and <cowbird/plugin.hpp> for errors.
#ifndef COWBIRD_TRANSPORT_HPP
#define COWBIRD_TRANSPORT_HPP

#include <cowbird/transport.h>

#include <algorithm>
#include <cowbird/plugin.hpp>
#include <span>

namespace cowbird::sdk {

// The derived class has a constructor (const Host &, const Config &), which throws Error.
class Transport {
 public:
  explicit Transport(const Host &host) : host_(host) {}
  virtual ~Transport() = default;
  Transport(const Transport &) = delete;
  Transport &operator=(const Transport &) = delete;

  virtual void open() = 0;  // throws Error
  virtual void close() noexcept = 0;
  virtual cowbird_transport_info info() = 0;
  // Frames taken or filled, from the first on, or a negative errno.
  virtual int send(std::span<cowbird_frame *const> frames) = 0;
  virtual int receive(std::span<cowbird_frame *const> frames) = 0;

  virtual int set_features(std::uint64_t features) { return features == 0 ? 0 : -EOPNOTSUPP; }
  virtual int set_filter(const cowbird_receive_filter &) { return 0; }
  virtual int set_mtu(std::uint32_t) { return -EOPNOTSUPP; }
  virtual std::string describe() = 0;

 protected:
  const Host &host() const { return host_; }
  // COWBIRD_TRANSPORT_... events; any thread.
  void notify(std::uint32_t events) const {
    host_.table().transport_notify(host_.device(), events);
  }

 private:
  const Host &host_;
};

template <typename Derived>
struct TransportTable {
  using Self = detail::Instance<Derived>;
  static int open(void *self) noexcept {
    return Self::call(self, [](Derived &t) -> int {
      t.open();
      return 0;
    });
  }
  static void close(void *self) noexcept { Self::of(self).object.close(); }
  static int get_info(void *self, cowbird_transport_info *out) noexcept {
    return Self::call(self, [&](Derived &t) -> int {
      const std::uint32_t size = std::min<std::uint32_t>(out->struct_size, sizeof *out);
      cowbird_transport_info info = t.info();
      info.struct_size = size;
      std::memcpy(out, &info, size);
      return 0;
    });
  }
  static int send(void *self, cowbird_frame *const *frames, std::uint32_t count) noexcept {
    return Self::call(self, [&](Derived &t) -> int { return t.send({frames, count}); });
  }
  static int receive(void *self, cowbird_frame *const *frames, std::uint32_t count) noexcept {
    return Self::call(self, [&](Derived &t) -> int { return t.receive({frames, count}); });
  }
  static int set_features(void *self, std::uint64_t features) noexcept {
    return Self::call(self, [&](Derived &t) -> int { return t.set_features(features); });
  }
  static int set_filter(void *self, const cowbird_receive_filter *filter) noexcept {
    return Self::call(self, [&](Derived &t) -> int { return t.set_filter(*filter); });
  }
  static int set_mtu(void *self, std::uint32_t mtu) noexcept {
    return Self::call(self, [&](Derived &t) -> int { return t.set_mtu(mtu); });
  }

  static constexpr cowbird_transport_ops ops = {
      .header = {sizeof(cowbird_transport_ops), COWBIRD_KIND_TRANSPORT},
      .create = &Self::create,
      .destroy = &Self::destroy,
      .open = &open,
      .close = &close,
      .get_info = &get_info,
      .send = &send,
      .receive = &receive,
      .set_features = &set_features,
      .set_filter = &set_filter,
      .set_mtu = &set_mtu,
      .describe = &Self::describe,
  };
};

}  // namespace cowbird::sdk

#define COWBIRD_TRANSPORT_PLUGIN(Class, name, version, keys, description, license, capabilities) \
  COWBIRD_DEFINE_PLUGIN(COWBIRD_KIND_TRANSPORT, cowbird::sdk::TransportTable<Class>::ops, name,  \
                        version, keys, description, license, capabilities)

#endif
