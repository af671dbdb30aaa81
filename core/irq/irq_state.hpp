// What the irq thread works on. Of irq/irq.cpp; the debugger reads it from outside.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <vector>

#include "base/host_thread.hpp"
#include "base/lock.hpp"
#include "base/unique_fd.hpp"
#include "irq/irq.hpp"

namespace cowbird::irq {

using Handler = std::function<void(std::uint32_t)>;

struct Watched {
  std::string name;
  std::shared_ptr<Handler> handler;  // shared with the call in progress, which may end the watch
  std::uint64_t count = 0;
};

struct Irq {
  UniqueFd epoll, posted_event, timer;  // set by start()
  HostThread thread;
  std::atomic<bool> stopping{false};

  // Big kernel lock.
  std::map<std::uint64_t, Watched> watches;  // by the key of their events
  std::uint64_t next_key = 2;                // after those of posted functions and the timer
  std::uint64_t timer_count = 0, post_count = 0;
  std::int64_t programmed = kNoDeadline;  // guest time at which the host's timer fires

  Mutex post_lock{LockRank::IrqQueue, "irq queue"};
  std::vector<std::function<void()>> posted GUARDED_BY(post_lock);
  bool accepts GUARDED_BY(post_lock) = false;

  static Irq &instance();
  static Irq *made;  // what instance() gives, or nullptr before
};

}  // namespace cowbird::irq
