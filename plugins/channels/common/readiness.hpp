// Which events of one descriptor a channel waits for. An event is reported once and then has to be
// asked for again, so that what nobody reads does not come again and again; a hang-up, which the
// host always reports, ends the watch. For the channel plugins, on the device's own calls.
#pragma once

#include <cowbird/plugin.hpp>
#include <functional>

namespace channels {

class Readiness {
 public:
  // COWBIRD_WATCH_... events. After a hang-up or an error READABLE and WRITABLE are set too: a read
  // or write will tell. Must not throw; may detach or attach this object.
  using Report = std::function<void(std::uint32_t events)>;

  explicit Readiness(const cowbird::sdk::Host &host) : host_(host) {}

  // `fd` stays the caller's and open until detach().
  void attach(int fd, Report report);
  void detach();
  // READABLE, WRITABLE or 0, which waits for a hang-up only. 0, or the errno (negative) that says
  // why the descriptor cannot be watched.
  int want(std::uint32_t events) noexcept;

 private:
  void on_events(std::uint32_t events);

  const cowbird::sdk::Host &host_;
  cowbird::sdk::Watch watch_;
  int fd_ = -1;
  std::uint32_t wanted_ = 0;
  Report report_;
};

}  // namespace channels
