// The channel `xterm`: a console in a window of its own on the host's display.
#include <cowbird/channel.hpp>

#include "common/terminal_peer.hpp"
#include "xterm/emulator.hpp"
#include "xterm/rendezvous.hpp"

namespace {

using channels::Descriptor;
using channels::Emulator;
using channels::EmulatorCommand;
using channels::WindowWatch;
using cowbird::sdk::Channel;
using cowbird::sdk::Config;
using cowbird::sdk::Error;
using cowbird::sdk::Host;

class XtermChannel final : public Channel {
 public:
  XtermChannel(const Host &host, const Config &config)
      : Channel(host),
        command_(EmulatorCommand::parse(std::string(*config.text("command")))),
        emulator_(host, {[this](Descriptor helper, Descriptor terminal) {
                           on_window(std::move(helper), std::move(terminal));
                         },
                         [this](const std::string &why) { on_failure(why); }}),
        helper_says_(host),
        terminal_(host, [this] { on_gone(); }) {}

  void open() override;
  void close() noexcept override;
  std::int64_t read(std::span<std::byte> buffer) override;
  std::int64_t write(std::span<const std::byte> data) override;
  std::optional<cowbird_window> window() override { return terminal_.window(); }
  int set_window(const cowbird_window &window) override { return terminal_.set_window(window); }
  int set_raw(bool raw) override { return terminal_.set_raw(raw); }
  std::string describe() override { return "xterm"; }
  void emergency_restore() noexcept override { emulator_.remove_files(); }

 private:
  void on_window(Descriptor helper, Descriptor terminal);
  void on_failure(const std::string &why);
  void on_helper();
  void on_gone();

  const EmulatorCommand command_;
  Emulator emulator_;
  Descriptor helper_;
  channels::Readiness helper_says_;
  channels::TerminalPeer terminal_;
  bool failed_ = false;
};

void XtermChannel::open() {
  failed_ = false;
  const std::string name = host().name();
  emulator_.start(command_, name.empty() ? "Cowbird" : name);
}

void XtermChannel::on_window(Descriptor helper, Descriptor terminal) {
  helper_ = std::move(helper);
  try {
    terminal_.open(std::move(terminal), WindowWatch::Timed::No);
  } catch (const Error &error) {
    return on_failure(error.what());
  }
  helper_says_.attach(helper_.get(), [this](std::uint32_t) { on_helper(); });
  helper_says_.want(COWBIRD_WATCH_READABLE);
}

void XtermChannel::on_failure(const std::string &why) {
  host().log(COWBIRD_LOG_ERROR, why);
  failed_ = true;
  helper_.reset();
  notify(COWBIRD_CHANNEL_READABLE | COWBIRD_CHANNEL_HANGUP);
}

void XtermChannel::on_helper() {
  std::array<char, 64> said;
  const ssize_t n = ::read(helper_.get(), said.data(), said.size());
  if (n > 0) {
    terminal_.window_changed();
    helper_says_.want(COWBIRD_WATCH_READABLE);
    return;
  }
  // The window is closed, or will be; the terminal's end is found by reading.
  helper_says_.detach();
  notify(COWBIRD_CHANNEL_READABLE);
}

void XtermChannel::on_gone() {
  helper_says_.detach();
  helper_.reset();
}

void XtermChannel::close() noexcept {
  helper_says_.detach();
  terminal_.close();
  helper_.reset();
  emulator_.stop();
}

std::int64_t XtermChannel::read(std::span<std::byte> buffer) {
  return failed_ ? 0 : terminal_.read(buffer);
}

std::int64_t XtermChannel::write(std::span<const std::byte> data) {
  return failed_ ? -EPIPE : terminal_.write(data);
}

constexpr cowbird_key kKeys[] = {
    {"command", COWBIRD_KEY_STRING, 0, "xterm,-T,-e", 0, 0, nullptr,
     "terminal emulator: program, switch for the title, switch for a command"},
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(XtermChannel, "xterm", "1.0", kKeys,
                       "a window of its own on the host's display", "Apache-2.0",
                       COWBIRD_CHANNEL_CAP_TERMINAL | COWBIRD_CHANNEL_CAP_REMOTE);
