#include "engine/stub_pool.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.hpp"

namespace cowbird {

namespace {

// Stubs kept beyond the warm ones while they come back faster than they are taken.
constexpr unsigned kMaxIdle = 32;
// So many failed starts in a row make take() give up.
constexpr unsigned kMaxFailures = 3;
constexpr std::int64_t kTakeCheckNs = 100 * kNsPerMs;

// epoll data: a pointer to the StubProcess, whose lowest bit says which of its files it is.
constexpr std::uint64_t kDeathTag = 1;

std::uint64_t tagged(StubProcess &process, std::uint64_t tag) {
  return reinterpret_cast<std::uint64_t>(&process) | tag;
}

void watch(int epoll, int fd, std::uint64_t data) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = data;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

StubPool::StubPool(StubEnvironment environment, unsigned warm)
    : environment_(std::move(environment)), warm_(std::max(1u, warm)) {}

StubPool::~StubPool() { shutdown(); }

void StubPool::kick() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(command_.get(), &one, sizeof one);
}

Result<void> StubPool::start(std::string &why) {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  command_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_.valid() || !command_.valid()) {
    why = "The host has no file descriptors left for the engine.";
    return Err(Errno::NFile);
  }
  watch(epoll_.get(), command_.get(), 0);
  auto thread = HostThread::start("stubs", [this] { run(); });
  if (!thread) {
    why = fmt::format("The thread that starts stub processes cannot be started: {}.",
                      errno_text(thread.error()));
    return Err(thread.error());
  }
  thread_ = std::move(*thread);
  auto first = take();
  if (!first) {
    MutexLock guard(lock_);
    why = fmt::format("No stub process could be started: {}.", failure_);
    return Err(first.error());
  }
  MutexLock guard(lock_);
  idle_.push_back(*first);
  (*first)->state = StubProcess::State::Idle;
  return {};
}

void StubPool::shutdown() {
  if (!thread_.joinable()) return;
  {
    MutexLock guard(lock_);
    stop_ = true;
  }
  kick();
  thread_.join();
}

Result<StubProcess *> StubPool::take() {
  bool counted = false;
  for (;;) {
    const std::uint32_t seen = __atomic_load_n(&changes_, __ATOMIC_SEQ_CST);
    {
      MutexLock guard(lock_);
      if (stop_) return Err(Errno::NoMem);
      // A stub that a guest process has just left is as good as one that the host allows.
      const bool failed = failures_ >= kMaxFailures && coming_ == 0 && returned_.empty();
      StubProcess *process = nullptr;
      while (!idle_.empty() && process == nullptr) {
        process = idle_.back();
        idle_.pop_back();
        if (process->dead()) process = nullptr;
      }
      if (process != nullptr || (counted && failed)) {
        if (counted) --waiting_;
        if (process == nullptr) return Err(Errno::Again);
        process->state = StubProcess::State::Used;
        if (idle_.size() + coming_ < warm_) kick();
        return process;
      }
      if (!counted) {
        ++waiting_;
        counted = true;
        failures_ = 0;
      }
    }
    kick();
    futex_wait_shared(&changes_, seen, kTakeCheckNs);
  }
}

void StubPool::give_back(StubProcess *process) {
  {
    MutexLock guard(lock_);
    returned_.push_back(process);
  }
  kick();
}

bool StubPool::drop_idle() {
  {
    MutexLock guard(lock_);
    if (idle_.empty()) return false;
    failures_ = kMaxFailures;
    dropping_ += idle_.size();
    for (StubProcess *process : idle_) {
      process->state = StubProcess::State::Dropped;
      process->kill("its room on the host is needed");
    }
    idle_.clear();
  }
  for (;;) {
    const std::uint32_t seen = __atomic_load_n(&changes_, __ATOMIC_SEQ_CST);
    {
      MutexLock guard(lock_);
      if (dropping_ == 0 || stop_) return true;
    }
    futex_wait_shared(&changes_, seen, kTakeCheckNs);
  }
}

void StubPool::add_stats(PlatformStats &stats) {
  MutexLock guard(lock_);
  stats.stubs_started = stats_.stubs_started;
  stats.stubs_recycled = stats_.stubs_recycled;
  stats.stubs_died = stats_.stubs_died;
  stats.stubs_idle = idle_.size();
}

void StubPool::run() {
  std::array<epoll_event, 16> events;
  for (;;) {
    std::vector<StubProcess *> returned;
    bool more = false;
    {
      MutexLock guard(lock_);
      if (stop_) break;
      returned = std::exchange(returned_, {});
      const std::size_t wanted = std::max<std::size_t>(warm_, waiting_);
      more = idle_.size() + coming_ + returned.size() < wanted && failures_ < kMaxFailures;
    }
    for (StubProcess *process : returned) recycle(*process);
    if (more) start_stub();
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   more || !returned.empty() ? 0 : -1);
    // Deaths last: they may end the object that another event names.
    for (int pass = 0; pass < 2; ++pass) {
      for (int i = 0; i < count; ++i) {
        const std::uint64_t data = events[static_cast<std::size_t>(i)].data.u64;
        if (data == 0) {
          std::uint64_t drained = 0;
          [[maybe_unused]] const ssize_t got = ::read(command_.get(), &drained, sizeof drained);
          continue;
        }
        auto &process = *reinterpret_cast<StubProcess *>(data & ~kDeathTag);
        const bool death = (data & kDeathTag) != 0;
        if (death != (pass == 1)) continue;
        death ? on_death(process) : on_event(process);
      }
    }
  }
  // The objects stay: spaces and contexts may still name them.
  for (auto &process : all_) process->kill("the guest has ended");
  for (auto &process : all_) {
    if (process->dead()) continue;
    pollfd ended{process->pid_fd(), POLLIN, 0};
    ::poll(&ended, 1, -1);
    process->reap();
  }
}

void StubPool::start_stub() {
  auto created = StubProcess::create(environment_);
  Result<void> started =
      created ? (*created)->start(environment_) : Result<void>(Err(created.error()));
  MutexLock guard(lock_);
  if (!started) {
    ++failures_;
    failure_ = fmt::format("the host refused memory, files or a process ({})",
                           errno_text(started.error()));
    __atomic_fetch_add(&changes_, 1, __ATOMIC_SEQ_CST);
    futex_wake_shared(&changes_, INT32_MAX);
    return;
  }
  StubProcess &process = **created;
  all_.push_back(std::move(*created));
  ++coming_;
  ++stats_.stubs_started;
  process.state = StubProcess::State::Starting;
  process.want_event(true);
  watch(epoll_.get(), process.event_fd(), tagged(process, 0));
  watch(epoll_.get(), process.pid_fd(), tagged(process, kDeathTag));
  // The first thread is ordered before the stub has come up; nothing else can be in its memory.
  process.prepare_first_thread();
  process.state = StubProcess::State::Preparing;
}

void StubPool::recycle(StubProcess &process) {
  MutexLock guard(lock_);
  ++coming_;
  if (process.dead() || idle_.size() >= kMaxIdle || !process.order_restart()) {
    // on_death takes it from here (or has been there: then nobody else will).
    if (process.dead()) {
      --coming_;
      std::erase_if(all_, [&](const auto &owned) { return owned.get() == &process; });
      return;
    }
    process.kill("nobody needs it");
  }
  process.state = StubProcess::State::Restarting;
  watch(epoll_.get(), process.event_fd(), tagged(process, 0));
}

void StubPool::on_event(StubProcess &process) {
  process.drain_event();
  const SyncPoint proven = process.proven();
  switch (process.state) {
    case StubProcess::State::Restarting:
      if (proven == process.await_point()) {
        process.take_flushed();
        process.prepare_first_thread();
        process.state = StubProcess::State::Preparing;
        MutexLock guard(lock_);
        ++stats_.stubs_recycled;
      } else if (proven + 1 == process.await_point()) {
        process.kill("it could not execute its image anew");
      }
      break;
    case StubProcess::State::Starting:
    case StubProcess::State::Preparing:
      if (proven == process.await_point()) on_ready(process);
      break;
    case StubProcess::State::Idle:
    case StubProcess::State::Used:
    case StubProcess::State::Dropped:
      break;
  }
}

void StubPool::on_ready(StubProcess &process) {
  process.want_event(false);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, process.event_fd(), nullptr);
  auto tid = process.take_thread_id();
  if (!tid) {
    process.kill("the host refused it a thread");
    return;
  }
  process.threads()[0].tid = *tid;
  process.take_flushed();
  MutexLock guard(lock_);
  failures_ = 0;
  --coming_;
  process.state = StubProcess::State::Idle;
  idle_.push_back(&process);
  __atomic_fetch_add(&changes_, 1, __ATOMIC_SEQ_CST);
  futex_wake_shared(&changes_, INT32_MAX);
}

void StubPool::on_death(StubProcess &process) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, process.pid_fd(), nullptr);
  process.reap();
  MutexLock guard(lock_);
  if (process.state != StubProcess::State::Dropped) ++stats_.stubs_died;
  switch (process.state) {
    case StubProcess::State::Used:
      return;  // its space gives it back
    case StubProcess::State::Idle:
      std::erase(idle_, &process);
      break;
    case StubProcess::State::Dropped:
      --dropping_;
      break;
    case StubProcess::State::Starting:
    case StubProcess::State::Preparing:
      ++failures_;
      failure_ = process.end_reason();
      [[fallthrough]];
    case StubProcess::State::Restarting:
      --coming_;
      break;
  }
  std::erase_if(all_, [&](const auto &owned) { return owned.get() == &process; });
  __atomic_fetch_add(&changes_, 1, __ATOMIC_SEQ_CST);
  futex_wake_shared(&changes_, INT32_MAX);
}

}  // namespace cowbird
