#include "common/readiness.hpp"

namespace channels {

using cowbird::sdk::Error;

void Readiness::attach(int fd, Report report) {
  detach();
  fd_ = fd;
  report_ = std::move(report);
}

void Readiness::detach() {
  watch_.reset();
  fd_ = -1;
  wanted_ = 0;
}

int Readiness::want(std::uint32_t events) noexcept {
  if (watch_ && (events & ~wanted_) == 0) return 0;
  const std::uint32_t wanted = wanted_ | events;
  try {
    if (watch_) {
      watch_.modify(wanted);
    } else {
      const int status =
          host_.watch_fd(watch_, fd_, wanted, [this](std::uint32_t e) { on_events(e); });
      if (status != 0) return status;
    }
  } catch (const std::exception &) {
    watch_.reset();
    return -EIO;
  }
  wanted_ = wanted;
  return 0;
}

void Readiness::on_events(std::uint32_t events) {
  std::uint32_t happened = events & wanted_;
  if (events & (COWBIRD_WATCH_HANGUP | COWBIRD_WATCH_ERROR)) {
    happened = events | COWBIRD_WATCH_READABLE | COWBIRD_WATCH_WRITABLE;
    wanted_ = 0;
    watch_.reset();
  } else {
    wanted_ &= ~happened;
    try {
      watch_.modify(wanted_);
    } catch (const Error &) {
      watch_.reset();
    }
  }
  if (happened == 0) return;
  const Report report = report_;  // a copy: it may attach another
  report(happened);
}

}  // namespace channels
