// HostEvents: how plugins' descriptors, timers and posted functions reach the kernel. The plugin
// adaptors are written against this interface, so that they can be tested without the irq thread;
// the kernel uses IrqHostEvents (plugins/irq_host_events.hpp), tests a poll loop.
//
// All callbacks run on one thread (the irq thread) with the big kernel lock held and must not
// sleep. All functions are called with the big kernel lock held, except post() and now_ns().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"

namespace cowbird {

class HostEvents {
 public:
  // A watched descriptor; destroying it ends the watch, also from inside its own callback.
  class Watch {
   public:
    virtual ~Watch() = default;
    virtual Result<void> modify(std::uint32_t epoll_events) = 0;
  };
  // A timer on the guest's monotonic clock; fires once for each arming.
  class Timer {
   public:
    virtual ~Timer() = default;
    virtual void arm(std::int64_t deadline_ns) = 0;
    virtual void cancel() = 0;
  };

  virtual ~HostEvents() = default;
  // Level-triggered (EPOLLIN, EPOLLOUT; EPOLLERR and EPOLLHUP are always reported). The descriptor
  // stays the caller's. Perm: it cannot be polled. `name` is for /proc/interrupts.
  virtual Result<std::unique_ptr<Watch>> add_fd(
      std::string name, int fd, std::uint32_t epoll_events,
      std::function<void(std::uint32_t events)> callback) = 0;
  virtual std::unique_ptr<Timer> add_timer(std::function<void()> callback) = 0;
  // Runs `function` soon. From any host thread, under any lock of a lower rank than IrqQueue.
  virtual void post(std::function<void()> function) = 0;
  // The guest's monotonic clock; any host thread.
  virtual std::int64_t now_ns() = 0;
};

}  // namespace cowbird
