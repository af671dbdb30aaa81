// The channel `port`: a telnet server of ours on a TCP port of the host, which several consoles may
// share.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cowbird/channel.hpp>

#include "common/listener.hpp"
#include "common/peer_stream.hpp"
#include "port/port_listener.hpp"
#include "port/telnet_codec.hpp"

namespace {

using channels::Descriptor;
using channels::PortListener;
using cowbird::sdk::Channel;
using cowbird::sdk::Config;
using cowbird::sdk::Host;

class PortChannel final : public Channel {
 public:
  PortChannel(const Host &host, const Config &config)
      : Channel(host),
        bind_(*config.text("bind")),
        port_(static_cast<std::uint16_t>(*config.integer("port"))),
        telnet_(*config.text("protocol") == "telnet"),
        stream_(host, [this] { on_gone(); }) {}

  void open() override;
  void close() noexcept override;
  std::int64_t read(std::span<std::byte> buffer) override;
  std::int64_t write(std::span<const std::byte> data) override { return stream_.write(data); }
  std::optional<cowbird_window> window() override { return codec_.window(); }
  int set_break(bool on) override { return on ? stream_.send_break() : 0; }
  std::int64_t unsent() override { return stream_.unsent(); }
  std::string describe() override { return "port:" + std::to_string(port_); }

 private:
  static constexpr std::int64_t kKeepNs = 5'000'000'000;

  // One listening socket, watched by this channel.
  struct Door {
    Door(const Host &host, Descriptor s) : socket(std::move(s)), bell(host) {}
    Descriptor socket;
    channels::Doorbell bell;
  };
  void watch(Door &door, bool refused);
  void on_client();
  void on_gone();

  const std::string bind_;
  const std::uint16_t port_;
  const bool telnet_;
  std::shared_ptr<PortListener> listener_;
  std::shared_ptr<PortListener> kept_;  // after closing, for those in the line
  cowbird::sdk::Timer keep_;
  std::list<Door> doors_;
  channels::Seat seat_;
  Descriptor client_;
  channels::TelnetCodec codec_;
  channels::PeerStream stream_;
};

void PortChannel::open() {
  try {
    listener_ = PortListener::open(bind_, port_);
    keep_.reset();
    kept_.reset();
    for (Descriptor &socket : listener_->duplicates()) {
      Door &door = doors_.emplace_back(host(), std::move(socket));
      door.bell.attach(door.socket.get(),
                       [this, &door] { watch(door, !listener_->take_clients()); });
      watch(door, false);
    }
    // The client comes on whichever channel's turn it is, and is taken over on this one's.
    seat_.wake = [this] {
      host().post([](void *self) { static_cast<PortChannel *>(self)->on_client(); }, this);
    };
    listener_->sit(seat_);
  } catch (...) {
    close();
    throw;
  }
}

void PortChannel::watch(Door &door, bool refused) {
  if (door.bell.wait(refused) != 0) {
    host().log(COWBIRD_LOG_ERROR, "clients of port " + std::to_string(port_) + " cannot be seen");
  }
}

void PortChannel::on_client() {
  if (!listener_ || stream_.connected()) return;
  client_ = listener_->fetch(seat_);
  if (!client_) return;  // closed and opened again since it was given
  const int on = 1;
  setsockopt(client_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // keystrokes
  setsockopt(client_.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);  // a client that vanished
  stream_.connect(client_.get(), telnet_ ? &codec_ : nullptr);
}

void PortChannel::on_gone() {
  channels::close_politely(std::move(client_));
  listener_->sit(seat_);
}

std::int64_t PortChannel::read(std::span<std::byte> buffer) {
  const std::int64_t n = stream_.read(buffer);
  if (codec_.take_window_change()) notify(COWBIRD_CHANNEL_WINDOW);
  return n;
}

void PortChannel::close() noexcept {
  stream_.stop();
  channels::close_politely(std::move(client_));
  doors_.clear();
  if (!listener_) return;
  listener_->leave(seat_);
  // Between two sessions a getty closes and opens: who waits keeps the place meanwhile.
  if (listener_->close() && host().add_timer(keep_, [this] { kept_.reset(); }) == 0) {
    kept_ = listener_;
    keep_.arm(kKeepNs);
  }
  listener_.reset();
}

constexpr cowbird_key kKeys[] = {
    {"port", COWBIRD_KEY_INT, COWBIRD_KEY_REQUIRED | COWBIRD_KEY_HAS_RANGE, nullptr, 1, 65535,
     nullptr, "TCP port; several consoles may have the same"},
    {"bind", COWBIRD_KEY_STRING, 0, "loopback", 0, 0, nullptr,
     "loopback (127.0.0.1 and ::1), any, or an address in numbers"},
    {"protocol", COWBIRD_KEY_ENUM, 0, "telnet", 0, 0, "telnet|raw",
     "telnet, or raw: bytes pass as they are"},
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(PortChannel, "port", "1.0", kKeys, "a telnet server on a TCP port",
                       "Apache-2.0", COWBIRD_CHANNEL_CAP_REMOTE);
