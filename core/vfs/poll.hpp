// Waiting for several files at once: poll(2) and select(2). Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <deque>
#include <span>

#include "base/result.hpp"
#include "vfs/file.hpp"

namespace cowbird {

// The queues on which the calling thread sits while it polls; leaves them when it is destroyed.
class PollWaiter final : public PollTable {
 public:
  PollWaiter() : thread_(current_thread()) {}
  void wait(WaitQueue &queue) override;
  // Woken since the last call of rearm().
  bool woken() const { return woken_; }
  void rearm() { woken_ = false; }

 private:
  static bool on_wake(WaitEntry &entry, std::uint32_t events);
  Thread *thread_;
  bool woken_ = false;
  std::deque<WaitEntry> entries_;
};

struct PollItem {
  Ref<File> file;             // empty: never ready
  std::uint32_t events = 0;   // wanted, besides POLLERR and POLLHUP
  std::uint32_t revents = 0;  // out
};

// Fills revents; returns how many items are ready. Sleeps until one is, or the deadline (guest
// monotonic ns; 0 does not sleep) passes: 0. RestartSys when a signal interrupts.
Result<std::size_t> poll_files(std::span<PollItem> items, std::int64_t deadline_ns);

}  // namespace cowbird
