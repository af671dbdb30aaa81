#include "tty/line.hpp"

#include <algorithm>
#include <array>

#include "base/log.hpp"
#include "sched/clock.hpp"
#include "tty/tty_impl.hpp"

namespace cowbird {

namespace {

// What the guest has written goes out before the channel is closed, if the peer reads; a serial
// driver of Linux waits as long (closing_wait).
constexpr std::int64_t kLingerNs = 30'000'000'000;
// How often a channel is asked whether the peer has got all of it.
constexpr std::int64_t kLookNs = 20'000'000;
// vhangup(2) is followed by a new open in the next moment (login, agetty): the channel stays.
constexpr std::int64_t kHangupGraceNs = 1'000'000'000;
// Of input that nothing holds back, as it is dropped (a line too long), so much is taken at a time,
// and then the others have their turn.
constexpr int kMostPieces = 8;
constexpr std::int64_t kPauseNs = 1'000'000;

}  // namespace

// The host side of the terminal. The Tty keeps it alive, so it is there for files that outlive the
// line; it has no channels then.
class LinePort final : public RefCounted<LinePort>, public TtyPort {
 public:
  explicit LinePort(LineChannels channels) : channels_(std::move(channels)) {}
  void attach(Tty &tty) { tty_ = &tty; }

  // The line is going: nothing calls the channels any more.
  void detach() {
    closing_.cancel();
    more_.cancel();
    close_channels();
    channels_ = {};
  }

  Result<void> hold() {
    TRY(tty_->activate());
    held_ = true;
    tty_->kernel_console = true;
    return {};
  }
  bool held() const { return held_; }
  bool is_open() const { return open_; }
  const LineChannels &channels() const { return channels_; }

  // --- TtyPort
  Result<void> activate() override {
    closing_.cancel();
    lingering_ = false;
    if (open_) return {};
    TRY(open_side(channels_.input));
    if (const auto opened = open_side(channels_.output); !opened) {
      close_side(channels_.input);
      return opened;
    }
    open_ = true;
    continue_input();
    throttled_ = tty_->throttled;
    update_window();
    // A channel says that it has become readable only after a read that found nothing.
    pump_input();
    return {};
  }

  void first_open() override { closing_.cancel(); }

  void last_close() override {
    if (held_ || !open_) return;
    if (has_output()) {
      linger();
    } else {
      close_channels();
    }
  }

  void drained() override {
    // Not from inside the write that drained it.
    if (lingering_ && closing_.armed()) closing_.arm(clock::monotonic_ns());
  }

  void hung_up_by_guest() override {
    if (held_ || !open_) return;
    lingering_ = false;
    closing_.arm(clock::monotonic_ns() + kHangupGraceNs);
  }
  bool has_unsent() const override {
    Channel *const channel = writer();
    return open_ && channel && channel->has_unsent();
  }
  bool hangs_up_with_session() const override { return true; }
  Result<void> set_break(bool on) override {
    Channel *const channel = writer();
    if (!channel) return Err(Errno::NotTty);
    return channel->set_break(on);
  }

  std::size_t write(std::span<const std::byte> bytes) override {
    Channel *const channel = writer();
    if (!channel || !open_) return bytes.size();
    const auto written = channel->write(bytes);
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
    if (Channel *const channel = writer()) {
      [[maybe_unused]] const auto set = channel->set_window_size({rows, columns, 0, 0});
    }
  }
  void restore_window_size() override {
    if (open_) update_window();
  }

 private:
  Channel *reader() const { return channels_.input.channel.get(); }
  Channel *writer() const { return channels_.shared ? reader() : channels_.output.channel.get(); }

  Result<void> open_side(LineSide &side) {
    if (!side.channel) return {};
    Channel *const channel = side.channel.get();
    return channel->open([this, channel](std::uint32_t events) { on_events(*channel, events); });
  }
  static void close_side(LineSide &side) {
    if (side.channel) side.channel->close();
  }
  void close_channels() {
    if (!open_) return;
    open_ = lingering_ = false;
    close_side(channels_.input);
    close_side(channels_.output);
    tty_->ldisc.flush_output();
    tty_->ldisc.flush_input();
    if (tty_->ldisc.stopped()) tty_->ldisc.start_output();
    tty_->throttled = false;
    tty_->active = false;
  }

  void on_events(Channel &from, std::uint32_t events) {
    if (events & (Channel::Connected | Channel::HangUp)) continue_input();
    if (events & (Channel::Window | Channel::Connected)) update_window();
    if (&from == reader() && (events & Channel::Break)) tty_input_break(*tty_);
    if (&from == reader() && (events & (Channel::Readable | Channel::Connected))) pump_input();
    if (&from == writer() && (events & (Channel::Writable | Channel::Connected))) {
      tty_port_writable(*tty_);
    }
    if (events & Channel::HangUp) {
      tty_hangup(*tty_);
      // Whoever opens the line next gets a new peer.
      if (!held_) close_channels();
    }
  }

  void update_window() {
    for (Channel *const channel : {writer(), reader()}) {
      if (!channel) continue;
      const auto size = channel->window_size();
      if (!size || (size->rows == 0 && size->columns == 0)) continue;
      tty_->set_window({size->rows, size->columns, size->width_px, size->height_px});
      return;
    }
  }

  void pump_input() {
    for (int pieces = 0; !throttled_ && open_ && reader(); ++pieces) {
      if (pieces == kMostPieces) return more_.arm(clock::monotonic_ns() + kPauseNs);
      std::array<std::byte, 1024> buffer;
      const std::size_t room = std::min(buffer.size(), tty_input_room(*tty_));
      if (room == 0) return;
      const auto got = reader()->read(std::span(buffer).first(room));
      if (!got) return;
      if (*got == 0) {
        end_of_input();
        return;
      }
      tty_input(*tty_, std::span(buffer).first(*got));
    }
  }

  // The host's side has ended: a pipe, a file.
  void end_of_input() {
    if (std::exchange(ended_, true)) return;
    log_info("{}: the end of its input", tty_->name);
    tty_end_input(*tty_);
  }
  void continue_input() {
    ended_ = false;
    tty_continue_input(*tty_);
  }

  // Something that the guest has written is not with the peer.
  bool has_output() const { return tty_->ldisc.queued_output() != 0 || has_unsent(); }

  void linger() {
    lingering_ = true;
    linger_until_ = clock::monotonic_ns() + kLingerNs;
    look_again();
  }

  // drained() says when the channel has taken all; when the peer has got it nobody says.
  void look_again() {
    const std::int64_t next = clock::monotonic_ns() + kLookNs;
    const bool queued = tty_->ldisc.queued_output() != 0;
    closing_.arm(queued ? linger_until_ : std::min(linger_until_, next));
  }

  void close_if_unused() {
    if (held_ || tty_->opens != 0) return;
    if (has_output()) {
      if (!lingering_) return linger();
      if (clock::monotonic_ns() < linger_until_) return look_again();
    }
    close_channels();
  }

  LineChannels channels_;
  Tty *tty_ = nullptr;
  Timer closing_{[this] { close_if_unused(); }};
  Timer more_{[this] { pump_input(); }};
  bool open_ = false;
  bool held_ = false;
  bool throttled_ = false;
  bool ended_ = false;
  bool lingering_ = false;  // `closing_` is armed for what the peer has not got yet
  std::int64_t linger_until_ = 0;
};

std::string LineSide::now() const {
  if (!channel || !channel->is_open()) return {};
  const std::string text = channel->describe();
  // Such as a file's name with a comma: the setting says it so that it can be given again.
  const bool is_one_word = text.find_first_of(" ,") == std::string::npos;
  return text.starts_with(plugin + ":") && is_one_word ? text : std::string();
}

TtyLine::TtyLine(std::string node, DeviceNumber number, LineChannels channels)
    : port_(make_ref<LinePort>(std::move(channels))),
      tty_(make_tty(std::move(node), number, *port_)) {
  port_->attach(*tty_);
  tty_->keep_alive(port_);
}

TtyLine::~TtyLine() {
  // Files that a hang-up has left behind may still be open; they are dead already.
  if (tty_->opens != 0) tty_hangup(*tty_);
  remove_console_tap(*tty_);
  port_->detach();
  tty_unlist(*tty_);
}

std::function<void(std::int64_t)> TtyLine::drainer() {
  return [tty = tty_](std::int64_t deadline_ns) { tty_drain(*tty, deadline_ns); };
}
bool TtyLine::busy() const { return tty_->opens != 0 || port_->held(); }
bool TtyLine::is_open() const { return port_->is_open(); }
Result<void> TtyLine::hold() { return port_->hold(); }
const LineSide &TtyLine::input() const { return port_->channels().input; }
const LineSide &TtyLine::output() const {
  return shared() ? port_->channels().input : port_->channels().output;
}
bool TtyLine::shared() const { return port_->channels().shared; }

}  // namespace cowbird
