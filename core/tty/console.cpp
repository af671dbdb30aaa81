// Consoles: a terminal over a plugin's channel.
#include <algorithm>
#include <array>
#include <vector>

#include "base/log.hpp"
#include "plugins/channel.hpp"
#include "tty/tty_impl.hpp"

namespace cowbird {
namespace {

class ConsolePort final : public TtyPort {
 public:
  explicit ConsolePort(std::unique_ptr<Channel> channel) : channel_(std::move(channel)) {}
  void attach(Tty &tty) { tty_ = &tty; }

  Result<void> activate() override {
    TRY(channel_->open([this](std::uint32_t events) { on_events(events); }));
    update_window();
    // A channel says that it has become readable only after a read that found nothing.
    pump_input();
    return {};
  }

  std::size_t write(std::span<const std::byte> bytes) override {
    const auto written = channel_->write(bytes);
    if (written) return *written;
    if (written.is(Errno::Again)) return 0;
    // Nobody is there to read it: output into the void is dropped, so that the guest goes on.
    return bytes.size();
  }

  void throttle(bool on) override {
    throttled_ = on;
    if (!on) pump_input();
  }

  void window_size_changed(std::uint16_t rows, std::uint16_t columns) override {
    // Channels without a window of their own say NotTty, which is no fault of the guest.
    [[maybe_unused]] const auto set = channel_->set_window_size({rows, columns, 0, 0});
  }

 private:
  void on_events(std::uint32_t events) {
    if (events & (Channel::Window | Channel::Connected)) update_window();
    if (events & Channel::Readable) pump_input();
    if (events & Channel::Writable) tty_port_writable(*tty_);
    if (events & Channel::HangUp) tty_hangup(*tty_);
  }

  void update_window() {
    const auto size = channel_->window_size();
    if (size && (size->rows != 0 || size->columns != 0)) {
      tty_->set_window({size->rows, size->columns, size->width_px, size->height_px});
    }
  }

  void pump_input() {
    while (!throttled_) {
      std::array<std::byte, 1024> buffer;
      const std::size_t room = std::min(buffer.size(), tty_input_room(*tty_));
      if (room == 0) return;
      const auto got = channel_->read(std::span(buffer).first(room));
      if (!got) return;
      if (*got == 0) {
        end_of_input();
        return;
      }
      tty_input(*tty_, std::span(buffer).first(*got));
    }
  }

  // The host's side has ended (a pipe, a file): the guest sees what a typed end-of-file character
  // means, once, and then a silent line.
  void end_of_input() {
    if (ended_) return;
    ended_ = true;
    const auto &termios = tty_->ldisc.termios();
    const auto eof = static_cast<std::byte>(termios.cc[abi::kVEOF]);
    if (tty_->ldisc.canonical() && eof != std::byte{0}) tty_input(*tty_, std::span(&eof, 1));
  }

  std::unique_ptr<Channel> channel_;
  Tty *tty_ = nullptr;
  bool throttled_ = false;
  bool ended_ = false;
};

// Consoles live as long as the guest.
struct Console {
  std::unique_ptr<ConsolePort> port;
  Ref<Tty> tty;
};
std::vector<Console> &consoles() {
  static auto *const list = new std::vector<Console>;
  return *list;
}

}  // namespace

Result<Tty *> make_console(std::string name, DeviceNumber number,
                           std::unique_ptr<Channel> channel) {
  auto port = std::make_unique<ConsolePort>(std::move(channel));
  Ref<Tty> tty = make_tty(std::move(name), number, *port);
  port->attach(*tty);
  Tty *const result = tty.get();
  consoles().push_back({std::move(port), std::move(tty)});
  return result;
}

}  // namespace cowbird
