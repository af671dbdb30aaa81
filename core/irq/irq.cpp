#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>

#include "base/log.hpp"
#include "irq/irq_state.hpp"
#include "irq/workers.hpp"
#include "sched/bkl.hpp"
#include "sched/clock.hpp"
#include "sched/cpu_time.hpp"
#include "sched/scheduler.hpp"
#include "sched/timer.hpp"

namespace cowbird::irq {

constinit Irq *Irq::made = nullptr;

Irq &Irq::instance() {
  // Never destroyed: plugins may post until the process ends.
  static auto *const irq = made = new Irq;
  return *irq;
}

namespace {

// Keys of epoll's events. A watch gets a key that is never used again, so an event that epoll_wait
// had returned before the watch was destroyed finds nothing.
constexpr std::uint64_t kPostKey = 0;
constexpr std::uint64_t kTimerKey = 1;

void signal_event(int fd) {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then the thread wakes anyway.
  [[maybe_unused]] const auto written = ::write(fd, &one, sizeof one);
}

void drain(int fd) {
  std::uint64_t count;
  [[maybe_unused]] const auto got = ::read(fd, &count, sizeof count);
}

// Makes the host's timer fire at this guest time; never when it is kNoDeadline.
void program(std::int64_t deadline_ns) {
  Irq &irq = Irq::instance();
  if (deadline_ns == irq.programmed) return;
  irq.programmed = deadline_ns;
  itimerspec spec{};
  if (deadline_ns != kNoDeadline) {
    const std::int64_t left = std::max<std::int64_t>(deadline_ns - clock::monotonic_ns(), 1);
    spec.it_value.tv_sec = left / kNsPerSec;
    spec.it_value.tv_nsec = left % kNsPerSec;
  }
  KASSERT(::timerfd_settime(irq.timer.get(), 0, &spec, nullptr) == 0);
}

// A deadline that became later needs no system call: the timer fires for nothing, once.
void program_earlier(std::int64_t deadline_ns) {
  if (deadline_ns < Irq::instance().programmed) program(deadline_ns);
}

void run_posted(Irq &irq) {
  std::vector<std::function<void()>> functions;
  {
    MutexLock guard(irq.post_lock);
    functions.swap(irq.posted);
  }
  irq.post_count += functions.size();
  for (auto &function : functions) {
    function();
    function = nullptr;
  }
}

void dispatch(Irq &irq, const epoll_event &event) {
  switch (event.data.u64) {
    case kPostKey:
      drain(irq.posted_event.get());
      return;
    case kTimerKey:
      drain(irq.timer.get());
      irq.programmed = kNoDeadline;
      ++irq.timer_count;
      return;
  }
  const auto found = irq.watches.find(event.data.u64);
  if (found == irq.watches.end()) return;
  ++found->second.count;
  const std::shared_ptr<Handler> handler = found->second.handler;
  (*handler)(event.events);
}

void irq_main() {
  Irq &irq = Irq::instance();
  std::array<epoll_event, 64> events;
  while (!irq.stopping.load(std::memory_order_acquire)) {
    const int n = ::epoll_wait(irq.epoll.get(), events.data(), events.size(), -1);
    if (n < 0) {
      if (errno == EINTR) continue;
      panic("irq thread: epoll_wait: {}", errno_text(errno_from_host(errno)));
    }
    BklGuard guard;
    const std::int64_t begin = cpu_time::now_ns();
    for (int i = 0; i < n; ++i) dispatch(irq, events[static_cast<std::size_t>(i)]);
    run_posted(irq);
    program_earlier(timers::run_expired());
    scheduler::charge_irq(cpu_time::now_ns() - begin);
  }
}

Result<void> watch_own(Irq &irq, int fd, std::uint64_t key) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = key;
  if (::epoll_ctl(irq.epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return Err(errno_from_host(errno));
  }
  return {};
}

Result<void> open_descriptors(Irq &irq) {
  irq.epoll.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!irq.epoll.valid()) return Err(errno_from_host(errno));
  irq.posted_event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!irq.posted_event.valid()) return Err(errno_from_host(errno));
  irq.timer.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!irq.timer.valid()) return Err(errno_from_host(errno));
  TRY(watch_own(irq, irq.posted_event.get(), kPostKey));
  TRY(watch_own(irq, irq.timer.get(), kTimerKey));
  return {};
}

class EpollWatch final : public FdWatch {
 public:
  EpollWatch(int fd, std::uint64_t key) : fd_(fd), key_(key) {}
  ~EpollWatch() override {
    if (!added_) return;
    Irq &irq = Irq::instance();
    irq.watches.erase(key_);
    // After stop() there is no epoll left to remove it from, and the owner may have closed fd.
    if (irq.epoll.valid()) ::epoll_ctl(irq.epoll.get(), EPOLL_CTL_DEL, fd_, nullptr);
  }
  Result<void> modify(std::uint32_t events) override { return control(EPOLL_CTL_MOD, events); }
  Result<void> add(std::uint32_t events) {
    TRY(control(EPOLL_CTL_ADD, events));
    added_ = true;
    return {};
  }

 private:
  Result<void> control(int operation, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = key_;
    if (::epoll_ctl(Irq::instance().epoll.get(), operation, fd_, &event) != 0) {
      return Err(errno_from_host(errno));
    }
    return {};
  }
  int fd_;
  std::uint64_t key_;
  bool added_ = false;
};

}  // namespace

Result<void> start() {
  Irq &irq = Irq::instance();
  KASSERT(!irq.thread.joinable());
  TRY(open_descriptors(irq));
  irq.stopping.store(false);
  TRY(start_workers());
  {
    BklGuard guard;
    irq.programmed = kNoDeadline;
    timers::set_reprogram_hook(program_earlier);
    program_earlier(timers::next_deadline());
  }
  {
    MutexLock guard(irq.post_lock);
    irq.accepts = true;
  }
  irq.thread = TRY(HostThread::start("irq", irq_main));
  return {};
}

void stop() {
  Irq &irq = Irq::instance();
  {
    BklGuard guard;
    timers::set_reprogram_hook(nullptr);
  }
  stop_workers();
  irq.stopping.store(true, std::memory_order_release);
  std::vector<std::function<void()>> dropped;
  {
    MutexLock guard(irq.post_lock);
    irq.accepts = false;
    if (irq.posted_event.valid()) signal_event(irq.posted_event.get());
  }
  irq.thread.join();
  {
    MutexLock guard(irq.post_lock);
    dropped.swap(irq.posted);
  }
  BklGuard guard;
  dropped.clear();
  irq.epoll.reset();
  irq.posted_event.reset();
  irq.timer.reset();
}

Result<std::unique_ptr<FdWatch>> FdWatch::create(std::string name, int fd, std::uint32_t events,
                                                 std::function<void(std::uint32_t)> handler) {
  Irq &irq = Irq::instance();
  const std::uint64_t key = irq.next_key++;
  auto watch = std::make_unique<EpollWatch>(fd, key);
  TRY(watch->add(events));
  irq.watches[key] = {std::move(name), std::make_shared<Handler>(std::move(handler)), 0};
  return std::unique_ptr<FdWatch>(std::move(watch));
}

void post(std::function<void()> function) {
  Irq &irq = Irq::instance();
  MutexLock guard(irq.post_lock);
  if (!irq.accepts) return;
  irq.posted.push_back(std::move(function));
  // The thread takes all at once, so that one signal is enough until it has.
  if (irq.posted.size() == 1) signal_event(irq.posted_event.get());
}

void for_each_source(
    const std::function<void(const std::string &name, std::uint64_t count)> &function) {
  const Irq &irq = Irq::instance();
  function("timer", irq.timer_count);
  function("completions", irq.post_count);
  for (const auto &[key, watch] : irq.watches) function(watch.name, watch.count);
}

}  // namespace cowbird::irq
