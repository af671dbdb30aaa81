// Host threads of the kernel: vCPUs, the irq thread, workers. Each has a name that the host's tools
// show, all signals blocked but those of faults, and an alternate signal stack of its own, so that
// the fault handlers (boot/panic.hpp) run also when a kernel stack has overflown. Anyone may use
// it; no lock is needed.
#pragma once

#include <pthread.h>
#include <sys/types.h>

#include <csignal>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace cowbird {

// Reaches every host thread of the kernel at any time, unlike other signals: for a look at where a
// thread is (mconsole/stuck.hpp). One that somebody else sends ends the process
// (boot/end_signals.hpp).
inline constexpr int kLookSignal = SIGUSR2;

// Owns one host thread; it must be joined before it is destroyed.
class HostThread {
 public:
  HostThread() = default;
  HostThread(HostThread &&other) noexcept
      : handle_(other.handle_), joinable_(std::exchange(other.joinable_, false)) {}
  HostThread &operator=(HostThread &&other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(joinable_, other.joinable_);
    return *this;
  }
  ~HostThread();

  // `name` is cut to 15 characters. Again: the host refuses another thread.
  static Result<HostThread> start(std::string name, std::function<void()> function);
  void join();
  bool joinable() const { return joinable_; }

 private:
  friend struct DebugLayout;
  pthread_t handle_{};
  bool joinable_ = false;
};

struct NamedThread {
  pid_t id;
  std::string name;
};

// The HostThreads that run now. Any host thread may ask; another may end before the answer is read.
std::vector<NamedThread> named_host_threads();

// Gives the calling host thread an alternate signal stack, which stays until the thread ends. Host
// threads made by HostThread have one already; for the process' first thread.
Result<void> use_alternate_signal_stack();

}  // namespace cowbird
