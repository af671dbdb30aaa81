#include "vfs/eventfd.hpp"

#include <algorithm>

#include "abi/fcntl.hpp"
#include "abi/poll.hpp"
#include "sched/clock.hpp"

namespace cowbird {

namespace {

class EventFile final : public File {
 public:
  EventFile(std::uint64_t initial, bool semaphore, std::uint32_t flags)
      : File(abi::kO_RDWR | flags), count_(initial), semaphore_(semaphore) {}

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    if (to.remaining() < 8) return Err(Errno::Inval);
    while (count_ == 0) {
      if (nonblocking()) return Err(Errno::Again);
      TRY(wait_event(
          queue_, [this] { return count_ > 0; }, SleepMode::Interruptible, "eventfd_read"));
    }
    const std::uint64_t value = semaphore_ ? 1 : count_;
    count_ -= value;
    queue_.wake_all(abi::kPOLLOUT | abi::kPOLLWRNORM);
    return to.copy_to(std::as_bytes(std::span(&value, 1)));
  }
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override {
    if (from.remaining() < 8) return Err(Errno::Inval);
    std::uint64_t value = 0;
    if (TRY(from.copy_from(std::as_writable_bytes(std::span(&value, 1)))) < 8)
      return Err(Errno::Fault);
    if (value == kFull + 1) return Err(Errno::Inval);
    while (value > kFull - count_) {
      if (nonblocking()) return Err(Errno::Again);
      TRY(wait_event(
          queue_, [&] { return value <= kFull - count_; }, SleepMode::Interruptible,
          "eventfd_write"));
    }
    count_ += value;
    queue_.wake_all(abi::kPOLLIN | abi::kPOLLRDNORM);
    return std::uint64_t{8};
  }
  std::uint32_t poll(PollTable *table) override {
    if (table) table->wait(queue_);
    std::uint32_t events = 0;
    if (count_ > 0) events |= abi::kPOLLIN | abi::kPOLLRDNORM;
    if (count_ < kFull) events |= abi::kPOLLOUT | abi::kPOLLWRNORM;
    return events;
  }
  Result<std::uint64_t> seek(std::int64_t, Whence) override { return position; }
  std::string describe() const override { return "anon_inode:[eventfd]"; }

 private:
  static constexpr std::uint64_t kFull = ~0ull - 1;
  std::uint64_t count_;
  bool semaphore_;
  WaitQueue queue_;
};

class TimerFile final : public File {
 public:
  TimerFile(TimerFdClock clock, std::uint32_t flags)
      : File(abi::kO_RDWR | flags), clock_(clock), timer_([this] { expired(); }) {}

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    if (to.remaining() < 8) return Err(Errno::Inval);
    while (ticks_ == 0) {
      if (nonblocking()) return Err(Errno::Again);
      TRY(wait_event(
          queue_, [this] { return ticks_ > 0; }, SleepMode::Interruptible, "timerfd_read"));
    }
    const std::uint64_t value = std::exchange(ticks_, 0);
    return to.copy_to(std::as_bytes(std::span(&value, 1)));
  }
  std::uint32_t poll(PollTable *table) override {
    if (table) table->wait(queue_);
    return ticks_ > 0 ? abi::kPOLLIN | abi::kPOLLRDNORM : 0;
  }
  bool can_write() const override { return false; }
  Result<std::uint64_t> seek(std::int64_t, Whence) override { return position; }
  std::string describe() const override { return "anon_inode:[timerfd]"; }

  TimerSetting get() const {
    TimerSetting now;
    now.interval_ns = interval_ns_;
    if (timer_.armed())
      now.value_ns = std::max<std::int64_t>(1, timer_.deadline_ns() - clock::monotonic_ns());
    return now;
  }
  TimerSetting set(bool absolute, TimerSetting setting) {
    const TimerSetting old = get();
    timer_.cancel();
    ticks_ = 0;
    interval_ns_ = setting.interval_ns;
    if (setting.value_ns == 0) return old;
    std::int64_t deadline = setting.value_ns;
    const std::int64_t base =
        !absolute ? clock::monotonic_ns()
                  : (clock_ == TimerFdClock::Realtime ? -clock::realtime_offset_ns() : 0);
    if (__builtin_add_overflow(deadline, base, &deadline)) deadline = kNoDeadline - 1;
    timer_.arm(std::max<std::int64_t>(deadline, 0));
    return old;
  }

 private:
  void expired() {
    ++ticks_;
    if (interval_ns_ > 0) {
      const std::int64_t now = clock::monotonic_ns();
      std::int64_t next = timer_.deadline_ns();
      const std::int64_t missed = std::max<std::int64_t>(0, (now - next) / interval_ns_);
      ticks_ += static_cast<std::uint64_t>(missed);
      if (!__builtin_add_overflow(next, (missed + 1) * interval_ns_, &next)) timer_.arm(next);
    }
    queue_.wake_all(abi::kPOLLIN | abi::kPOLLRDNORM);
  }
  TimerFdClock clock_;
  std::int64_t interval_ns_ = 0;
  std::uint64_t ticks_ = 0;
  WaitQueue queue_;
  Timer timer_;
};

}  // namespace

Ref<File> make_eventfd(std::uint64_t initial, bool semaphore, std::uint32_t flags) {
  return make_ref<EventFile>(initial, semaphore, flags);
}

Ref<File> make_timerfd(TimerFdClock clock, std::uint32_t flags) {
  return make_ref<TimerFile>(clock, flags);
}

Result<TimerSetting> timerfd_set(File &file, bool absolute, TimerSetting setting) {
  auto *timer = dynamic_cast<TimerFile *>(&file);
  if (!timer) return Err(Errno::Inval);
  return timer->set(absolute, setting);
}

Result<TimerSetting> timerfd_get(File &file) {
  auto *timer = dynamic_cast<TimerFile *>(&file);
  if (!timer) return Err(Errno::Inval);
  return timer->get();
}

}  // namespace cowbird
