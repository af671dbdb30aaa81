// On which processors vCPUs and stub threads run. A wake-up on another processor costs ten times
// one on the same, so either both sides of a hand-over are kept on one, or on two and then they
// spin.
//
// A vCPU's pin is a lease: when it ends the host's scheduler may move the vCPU at its next wake-up,
// so that several guests on one host spread out. Called by the vCPU's host thread only.
#pragma once

#include <sched.h>

#include <cstdint>

#include "engine/spin_governor.hpp"

namespace cowbird {

class EngineMachine;

// State of the calling host thread; there is no kernel thread switch inside Context::run.
class VcpuPlacement {
 public:
  static VcpuPlacement &current();
  ~VcpuPlacement();

  // Makes the calling vCPU ready for hand-overs of this kind; its processor, or -1 when it has no
  // fixed one now.
  int prepare(const EngineMachine &machine, HandOver mode);
  // To be told how long each hand-over took. Whether others need this thread's processor: the host
  // preempted it and it was away for long (a kernel thread of the host that runs for a moment does
  // not count). True in every 64th call at most.
  bool crowded(std::int64_t elapsed_ns);
  // The processor this thread is pinned to, or -1.
  int pinned_cpu() const { return cpu_; }

 private:
  void pin(const EngineMachine &machine);
  void unpin(const EngineMachine &machine);

  int cpu_ = -1;  // pinned to it
  std::uint64_t lease_end_ = 0;
  unsigned asked_ = 0;
  std::int64_t longest_ns_ = 0;
  long preemptions_ = 0;
};

// Where a stub thread may run; remembers what it told the host.
class StubPlacement {
 public:
  // The mask for a stub thread whose vCPU runs on `cpu`; false if it has it already.
  bool update(const EngineMachine &machine, HandOver mode, int cpu, cpu_set_t &mask);

 private:
  int cpu_ = -1;
  HandOver mode_ = HandOver::OneCpu;
};

}  // namespace cowbird
