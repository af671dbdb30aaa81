#include "common/window_watch.hpp"

#include <sys/ioctl.h>

namespace channels {

namespace {
constexpr std::int64_t kIntervalNs = 1'000'000'000;

bool same(const std::optional<cowbird_window> &a, const std::optional<cowbird_window> &b) {
  if (!a || !b) return a.has_value() == b.has_value();
  return a->rows == b->rows && a->columns == b->columns && a->width_px == b->width_px &&
         a->height_px == b->height_px;
}
}  // namespace

std::optional<cowbird_window> terminal_window(int fd) {
  winsize size;
  if (fd < 0 || ioctl(fd, TIOCGWINSZ, &size) != 0) return std::nullopt;
  return cowbird_window{size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel};
}

int set_terminal_window(int fd, const cowbird_window &window) {
  const winsize size{window.rows, window.columns, window.width_px, window.height_px};
  return ioctl(fd, TIOCSWINSZ, &size) == 0 ? 0 : -errno;
}

void WindowWatch::start(int fd, Timed timed) {
  stop();
  fd_ = fd;
  last_ = terminal_window(fd_);
  if (timed == Timed::No) return;
  const int status = host_.add_timer(timer_, [this] { tick(); });
  if (status != 0) cowbird::sdk::throw_errno("There is no timer for the window's size", -status);
  timer_.arm(kIntervalNs);
}

void WindowWatch::stop() noexcept {
  timer_.reset();
  fd_ = -1;
}

void WindowWatch::tick() {
  check();
  timer_.arm(kIntervalNs);
}

void WindowWatch::check() {
  if (fd_ < 0) return;
  const auto now = terminal_window(fd_);
  if (same(now, last_)) return;
  last_ = now;
  host_.table().channel_notify(host_.device(), COWBIRD_CHANNEL_WINDOW);
}

int WindowWatch::set(const cowbird_window &window) {
  const int status = set_terminal_window(fd_, window);
  if (status == 0) last_ = terminal_window(fd_);  // the guest knows it
  return status;
}

}  // namespace channels
