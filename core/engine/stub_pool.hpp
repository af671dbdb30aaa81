// StubPool: starts, recycles and buries stub processes, on one host thread of its own that lives as
// long as the platform (the host kills a stub when the thread that started it ends). Keeps some
// stubs warm, so that a new guest address space does not wait for the host. Used by StubPlatform
// and StubSpace.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/host_thread.hpp"
#include "base/lock.hpp"
#include "engine/platform.hpp"
#include "engine/stub_process.hpp"

namespace cowbird {

class StubPool {
 public:
  StubPool(StubEnvironment environment, unsigned warm);
  ~StubPool();

  // Starts the thread and waits for the first stub; `why` gets the host's reason.
  Result<void> start(std::string &why);
  // A stub that is ready and has one thread in slot 0. Waits when none is warm. Any host thread.
  Result<StubProcess *> take();
  // Gives a stub back, alive or dead, used or not; returns at once.
  void give_back(StubProcess *process);
  // Ends the warm stubs, since the host has no room for something else, and waits for their end.
  // No new ones are started before take() wants one. False: there were none. Any host thread.
  bool drop_idle();
  // Kills all stubs and ends the thread.
  void shutdown();

  void add_stats(PlatformStats &stats);
  const StubEnvironment &environment() const { return environment_; }

 private:
  void run();
  void start_stub();
  void on_event(StubProcess &process);
  void on_death(StubProcess &process);
  void on_ready(StubProcess &process);
  void recycle(StubProcess &process);
  void kick();

  const StubEnvironment environment_;
  const unsigned warm_;
  UniqueFd epoll_, command_;
  HostThread thread_;

  Mutex lock_{LockRank::Engine, "stub pool"};
  std::vector<StubProcess *> idle_ GUARDED_BY(lock_);
  std::vector<StubProcess *> returned_ GUARDED_BY(lock_);
  unsigned coming_ GUARDED_BY(lock_) = 0;       // starting or being recycled
  unsigned waiting_ GUARDED_BY(lock_) = 0;      // callers of take()
  std::size_t dropping_ GUARDED_BY(lock_) = 0;  // of drop_idle(), not dead yet
  unsigned failures_ GUARDED_BY(lock_) = 0;     // starts that failed in a row
  std::string failure_ GUARDED_BY(lock_);
  bool stop_ GUARDED_BY(lock_) = false;
  PlatformStats stats_ GUARDED_BY(lock_);
  // Counted up when something that take() waits for has happened; a futex.
  std::uint32_t changes_ = 0;

  // The thread's own.
  std::vector<std::unique_ptr<StubProcess>> all_;
};

}  // namespace cowbird
