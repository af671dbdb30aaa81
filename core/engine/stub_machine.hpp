// EngineMachine: what the engine knows of the host machine: processors, the time stamp counter, how
// many vCPUs are busy, and the counters of PlatformStats. One a platform; any host thread.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <functional>

#include "engine/platform.hpp"

namespace cowbird {

class EngineMachine {
 public:
  EngineMachine(const StubPlatformOptions &options);

  // Processors that the host lets us use.
  unsigned cpus() const { return cpus_; }
  const cpu_set_t &allowed() const { return allowed_; }
  std::size_t max_runs() const { return max_runs_; }

  std::uint64_t ticks() const { return __builtin_ia32_rdtsc(); }
  std::uint64_t ticks_of(std::int64_t ns) const {
    return static_cast<std::uint64_t>(ns) * ticks_per_us_ / 1000;
  }
  std::int64_t ns_of(std::uint64_t ticks) const {
    return static_cast<std::int64_t>(ticks * 1000 / ticks_per_us_);
  }

  // Contexts that run guest code, or whose kernel thread works for them, now. While each has a
  // processor for its vCPU and one for its stub thread, waiting by spinning is worth it.
  void context_active() { active_.fetch_add(1, std::memory_order_relaxed); }
  void context_idle() { active_.fetch_sub(1, std::memory_order_relaxed); }
  bool room_to_spin() const { return active_.load(std::memory_order_relaxed) * 2 <= cpus_; }

  // Releases the big kernel lock (through the platform's hooks) while it lives.
  class Blocking {
   public:
    explicit Blocking(EngineMachine &machine) : machine_(machine) {
      if (machine_.before_block_) machine_.before_block_();
    }
    ~Blocking() {
      if (machine_.after_block_) machine_.after_block_();
    }
    Blocking(const Blocking &) = delete;
    Blocking &operator=(const Blocking &) = delete;

   private:
    EngineMachine &machine_;
  };

  std::atomic<std::uint64_t> traps{0}, spins_won{0}, parks{0}, orders{0};

 private:
  cpu_set_t allowed_{};
  unsigned cpus_ = 1;
  std::size_t max_runs_ = 0;
  std::uint64_t ticks_per_us_ = 1000;
  std::atomic<unsigned> active_{0};
  std::function<void()> before_block_, after_block_;
};

}  // namespace cowbird
