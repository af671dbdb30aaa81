#include "irq/workers.hpp"

#include <deque>
#include <semaphore>
#include <string>
#include <vector>

#include "base/host_thread.hpp"
#include "base/log.hpp"
#include "irq/irq.hpp"
#include "sched/bkl.hpp"
#include "sched/thread.hpp"

namespace cowbird::irq {
namespace {

struct Job {
  std::function<void()> call;
  std::function<void()> done;
};

struct Workers {
  Mutex lock{LockRank::WorkQueue, "work queue"};
  std::deque<Job> jobs GUARDED_BY(lock);
  std::vector<HostThread> threads GUARDED_BY(lock);
  unsigned idle GUARDED_BY(lock) = 0;
  bool running GUARDED_BY(lock) = false;
  std::counting_semaphore<> wanted{0};  // one for each job, and one for each thread that is to end

  static Workers &instance() {
    // Never destroyed: plugins may submit until the process ends.
    static auto *const workers = new Workers;
    return *workers;
  }
};

// False when the workers shall end.
bool take(Workers &workers, Job &job) {
  {
    MutexLock guard(workers.lock);
    ++workers.idle;
  }
  workers.wanted.acquire();
  MutexLock guard(workers.lock);
  --workers.idle;
  if (!workers.running) return false;
  job = std::move(workers.jobs.front());
  workers.jobs.pop_front();
  return true;
}

void worker_main() {
  Workers &workers = Workers::instance();
  for (Job job; take(workers, job);) {
    job.call();
    BklGuard guard;
    job.done();
    job = Job{};  // what the functions hold may belong to the kernel: destroyed under its lock
  }
}

Result<void> add_thread(Workers &workers) REQUIRES(workers.lock) {
  workers.threads.push_back(
      TRY(HostThread::start("worker" + std::to_string(workers.threads.size()), worker_main)));
  return {};
}

}  // namespace

Result<void> start_workers() {
  Workers &workers = Workers::instance();
  MutexLock guard(workers.lock);
  // One is there from the start: later the guest may have used up the threads that the host allows.
  TRY(add_thread(workers));
  workers.running = true;
  return {};
}

void stop_workers() {
  Workers &workers = Workers::instance();
  std::vector<HostThread> threads;
  std::deque<Job> dropped;
  {
    MutexLock guard(workers.lock);
    workers.running = false;
    threads.swap(workers.threads);
    dropped.swap(workers.jobs);
  }
  workers.wanted.release(static_cast<std::ptrdiff_t>(threads.size()));
  for (auto &thread : threads) thread.join();
  while (workers.wanted.try_acquire()) {
  }
  BklGuard guard;
  dropped.clear();
}

void submit(std::function<void()> call, std::function<void()> done) {
  Workers &workers = Workers::instance();
  {
    MutexLock guard(workers.lock);
    if (!workers.running) return;
    workers.jobs.push_back({std::move(call), std::move(done)});
    if (workers.jobs.size() > workers.idle && workers.threads.size() < kMaxWorkers) {
      // Without a further one those that are there do it, later.
      static_cast<void>(add_thread(workers));
    }
  }
  workers.wanted.release();
}

void run_blocking(const char *wait_channel, const std::function<void()> &call) {
  KASSERT(current_thread());
  struct Wait {
    WaitQueue queue;
    bool done = false;
  } wait;
  submit([&call] { call(); },
         [&wait] {
           wait.done = true;
           wait.queue.wake_all();
         });
  // Uninterruptible without a deadline: the only way out is `done`.
  static_cast<void>(wait_event(
      wait.queue, [&wait] { return wait.done; }, SleepMode::Uninterruptible, wait_channel));
}

}  // namespace cowbird::irq
