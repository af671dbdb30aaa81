// Starts and stops the scheduler (and the irq thread) around a test, and runs test bodies on kernel
// threads.
#pragma once

#include <atomic>
#include <ctime>
#include <functional>
#include <semaphore>
#include <vector>

#include "base/log.hpp"
#include "irq/irq.hpp"
#include "sched/bkl.hpp"
#include "sched/scheduler.hpp"
#include "sched/thread.hpp"
#include "sched/wait.hpp"

namespace cowbird::test {

// CPU time of the calling host thread, which a busy host does not change.
inline std::int64_t host_cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * kNsPerSec + now.tv_nsec;
}

class Machine {
 public:
  explicit Machine(unsigned vcpus) {
    KASSERT(irq::start());
    KASSERT(scheduler::start(vcpus));
  }
  ~Machine() {
    scheduler::stop();
    irq::stop();
  }
  Machine(const Machine &) = delete;
  Machine &operator=(const Machine &) = delete;

  // Runs the functions on kernel threads of their own and waits until all have returned.
  void run(std::vector<std::function<void()>> functions) {
    std::counting_semaphore<> done(0);
    std::vector<Ref<Thread>> threads;
    {
      BklGuard guard;
      int n = 0;
      for (auto &function : functions) {
        auto thread = Thread::spawn("test/" + std::to_string(n++), [&function, &done] {
          function();
          done.release();
        });
        KASSERT(thread);
        threads.push_back(std::move(*thread));
      }
    }
    for (std::size_t i = 0; i < functions.size(); ++i) done.acquire();
    BklGuard guard;
    threads.clear();
  }
  void run(std::function<void()> function) {
    run(std::vector<std::function<void()>>{std::move(function)});
  }
};

}  // namespace cowbird::test
