// Host events become guest interrupts: one host thread (the irq thread) waits in epoll for
// descriptors, posted functions and the next timer, takes the big kernel lock and runs the
// handlers, which wake kernel threads. Host calls that may block run on worker threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "sched/wait.hpp"

namespace cowbird::irq {

// Starts the irq thread. Called once, without the big kernel lock.
Result<void> start();
// Stops it and the workers, after the calls that they are in; no handler runs afterwards. Without
// the big kernel lock.
void stop();

// Watches a host descriptor (EPOLLIN, EPOLLOUT, EPOLLONESHOT ...). The handler runs on the irq
// thread under the big kernel lock and must not sleep. The descriptor stays the caller's.
// Destroying the watch (under the lock) guarantees that the handler does not run again; a handler
// may destroy its own watch. create() fails with Perm when the host cannot poll the descriptor (a
// regular file) and Exist when it is watched already.
class FdWatch {
 public:
  static Result<std::unique_ptr<FdWatch>> create(std::string name, int fd, std::uint32_t events,
                                                 std::function<void(std::uint32_t events)> handler);
  virtual ~FdWatch() = default;
  virtual Result<void> modify(std::uint32_t events) = 0;
};

// Runs `function` on the irq thread under the big kernel lock, soon. Any host thread, under any
// lock of a lower rank than IrqQueue; this is how plugins and workers complete their requests.
void post(std::function<void()> function);

// Runs `call` on a host worker thread, without the big kernel lock, while the calling kernel thread
// sleeps uninterruptibly. For host calls that may block for long (a read from a slow disk). Costs
// two hand-overs between host threads: calls that answer from memory are better made on the vCPU
// inside BklReleased.
void run_blocking(const char *wait_channel, const std::function<void()> &call);

// Runs `call` on a host worker thread without the big kernel lock, then `done` on the same thread
// with it; nobody waits. Any host thread, under any lock of a lower rank than WorkQueue. At most
// kMaxWorkers calls run at once, the others wait their turn. After stop() they are dropped.
inline constexpr unsigned kMaxWorkers = 8;
void submit(std::function<void()> call, std::function<void()> done);

// How often each source (a watch, the timers, posted functions) has raised an interrupt, for
// /proc/interrupts and the debugger. Big kernel lock.
void for_each_source(
    const std::function<void(const std::string &name, std::uint64_t count)> &function);

}  // namespace cowbird::irq
