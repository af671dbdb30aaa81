// IrqHostEvents: HostEvents on the kernel's irq thread, timers and guest clock. boot/ makes the one
// that all devices share; it must outlive them.
#pragma once

#include <utility>

#include "irq/irq.hpp"
#include "plugins/host_events.hpp"
#include "sched/clock.hpp"
#include "sched/timer.hpp"

namespace cowbird {

class IrqHostEvents final : public HostEvents {
 public:
  Result<std::unique_ptr<Watch>> add_fd(std::string name, int fd, std::uint32_t epoll_events,
                                        std::function<void(std::uint32_t)> callback) override {
    auto watch = TRY(irq::FdWatch::create(std::move(name), fd, epoll_events, std::move(callback)));
    return std::unique_ptr<Watch>(std::make_unique<FdAdaptor>(std::move(watch)));
  }
  std::unique_ptr<Timer> add_timer(std::function<void()> callback) override {
    return std::make_unique<TimerAdaptor>(std::move(callback));
  }
  void post(std::function<void()> function) override { irq::post(std::move(function)); }
  std::int64_t now_ns() override { return clock::monotonic_ns(); }

 private:
  struct FdAdaptor final : Watch {
    explicit FdAdaptor(std::unique_ptr<irq::FdWatch> w) : watch(std::move(w)) {}
    Result<void> modify(std::uint32_t epoll_events) override { return watch->modify(epoll_events); }
    std::unique_ptr<irq::FdWatch> watch;
  };
  struct TimerAdaptor final : Timer {
    explicit TimerAdaptor(std::function<void()> callback) : timer(std::move(callback)) {}
    void arm(std::int64_t deadline_ns) override { timer.arm(deadline_ns); }
    void cancel() override { timer.cancel(); }
    cowbird::Timer timer;
  };
};

}  // namespace cowbird
