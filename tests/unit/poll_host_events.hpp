// HostEvents for unit tests: a poll loop that runs when the test says so. The test's thread is the
// event thread; posting works from any thread.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <list>
#include <mutex>
#include <vector>

#include "base/unique_fd.hpp"
#include "plugins/host_events.hpp"

namespace cowbird::test {

class PollHostEvents final : public HostEvents {
 public:
  PollHostEvents() : wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

  Result<std::unique_ptr<Watch>> add_fd(std::string, int fd, std::uint32_t events,
                                        std::function<void(std::uint32_t)> callback) override {
    for (const Entry &entry : watches_) {
      if (entry.fd == fd && !entry.dead) return Err(Errno::Exist);
    }
    auto watch = std::make_unique<FdWatch>(*this);
    watch->entry = watches_.insert(watches_.end(), {fd, events, std::move(callback), false});
    return std::unique_ptr<Watch>(std::move(watch));
  }
  std::unique_ptr<Timer> add_timer(std::function<void()> callback) override {
    auto timer = std::make_unique<TimerEntry>(*this);
    timer->callback = std::move(callback);
    timers_.push_back(timer.get());
    return timer;
  }
  void post(std::function<void()> function) override {
    {
      const std::lock_guard lock(mutex_);
      posted_.push_back(std::move(function));
    }
    const std::uint64_t one = 1;
    if (write(wake_.get(), &one, sizeof one) < 0) return;
  }
  std::int64_t now_ns() override {
    return (std::chrono::steady_clock::now() + skipped_).time_since_epoch() /
           std::chrono::nanoseconds(1);
  }
  // So much time has passed for the timers.
  void skip(std::chrono::seconds time) { skipped_ += time; }

  std::size_t watch_count() const { return watches_.size(); }
  // How often a descriptor was reported.
  std::size_t report_count() const { return reports_; }

  // Waits up to `timeout_ms` for something to happen and runs its callbacks.
  void run_once(int timeout_ms) {
    run_posted();
    run_timers();
    std::vector<pollfd> polled{{wake_.get(), POLLIN, 0}};
    std::vector<std::list<Entry>::iterator> entries;
    for (auto it = watches_.begin(); it != watches_.end(); ++it) {
      polled.push_back({it->fd, static_cast<short>(it->events), 0});
      entries.push_back(it);
    }
    if (poll(polled.data(), polled.size(), timeout_ms) <= 0) return;
    std::uint64_t count;
    if (polled[0].revents && read(wake_.get(), &count, sizeof count) < 0) return;
    in_poll_ = true;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      Entry &entry = *entries[i];
      if (entry.dead || !polled[i + 1].revents) continue;
      const auto callback = entry.callback;
      ++reports_;
      callback(static_cast<std::uint32_t>(polled[i + 1].revents));
    }
    in_poll_ = false;
    watches_.remove_if([](const Entry &e) { return e.dead; });
    run_posted();
  }
  // True when the condition came true within five seconds.
  bool run_until(const std::function<bool()> &condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      run_once(2);
    }
    return true;
  }
  // Everything that is there to happen now.
  void settle() {
    for (int i = 0; i < 5; ++i) run_once(2);
  }

 private:
  struct Entry {
    int fd;
    std::uint32_t events;
    std::function<void(std::uint32_t)> callback;
    bool dead;
  };
  struct FdWatch final : Watch {
    explicit FdWatch(PollHostEvents &o) : owner(o) {}
    ~FdWatch() override {
      if (owner.in_poll_) {
        entry->dead = true;
      } else {
        owner.watches_.erase(entry);
      }
    }
    Result<void> modify(std::uint32_t events) override {
      entry->events = events;
      return {};
    }
    PollHostEvents &owner;
    std::list<Entry>::iterator entry;
  };
  struct TimerEntry final : Timer {
    explicit TimerEntry(PollHostEvents &o) : owner(o) {}
    ~TimerEntry() override { owner.timers_.remove(this); }
    void arm(std::int64_t ns) override { deadline = ns; }
    void cancel() override { deadline = INT64_MAX; }
    PollHostEvents &owner;
    std::function<void()> callback;
    std::int64_t deadline = INT64_MAX;
  };

  void run_posted() {
    std::vector<std::function<void()>> functions;
    {
      const std::lock_guard lock(mutex_);
      functions.swap(posted_);
    }
    for (const auto &function : functions) function();
  }
  void run_timers() {
    const std::int64_t now = now_ns();
    for (auto it = timers_.begin(); it != timers_.end();) {
      TimerEntry &timer = **it++;
      if (timer.deadline > now) continue;
      timer.deadline = INT64_MAX;
      timer.callback();
    }
  }

  UniqueFd wake_;
  std::list<Entry> watches_;
  std::list<TimerEntry *> timers_;
  bool in_poll_ = false;
  std::chrono::seconds skipped_{0};
  std::size_t reports_ = 0;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
};

}  // namespace cowbird::test
