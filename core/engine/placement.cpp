#include "engine/placement.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "engine/stub_machine.hpp"

namespace cowbird {

namespace {

constexpr std::int64_t kLeaseNs = 100 * kNsPerMs;
constexpr std::int64_t kCrowdedNs = 500 * kNsPerUs;

// How many vCPUs (of all platforms of this process) are pinned to each processor.
std::atomic<int> claims[CPU_SETSIZE];

}  // namespace

VcpuPlacement &VcpuPlacement::current() {
  thread_local VcpuPlacement placement;
  return placement;
}

VcpuPlacement::~VcpuPlacement() {
  if (cpu_ >= 0) claims[cpu_].fetch_sub(1, std::memory_order_relaxed);
}

int VcpuPlacement::prepare(const EngineMachine &machine, HandOver mode) {
  if (machine.cpus() == 1) return -1;
  if (mode == HandOver::TwoCpus) {
    if (cpu_ >= 0) unpin(machine);
    return ::sched_getcpu();
  }
  const std::uint64_t now = machine.ticks();
  if (cpu_ < 0) {
    pin(machine);
    lease_end_ = now + machine.ticks_of(kLeaseNs);
  } else if (static_cast<std::int64_t>(now - lease_end_) > 0) {
    unpin(machine);  // pinned again by the next hand-over, wherever the host has put us
  }
  return cpu_;
}

bool VcpuPlacement::crowded(std::int64_t elapsed_ns) {
  longest_ns_ = std::max(longest_ns_, elapsed_ns);
  if (++asked_ % 64 != 0) return false;
  const bool long_away = std::exchange(longest_ns_, 0) > kCrowdedNs;
  rusage usage{};
  if (::getrusage(RUSAGE_THREAD, &usage) != 0) return false;
  return std::exchange(preemptions_, usage.ru_nivcsw) != usage.ru_nivcsw && long_away;
}

void VcpuPlacement::pin(const EngineMachine &machine) {
  int cpu = ::sched_getcpu();
  if (cpu < 0) return;
  if (claims[cpu].load(std::memory_order_relaxed) > 0) {
    for (int other = 0; other < CPU_SETSIZE; ++other) {
      if (!CPU_ISSET(other, &machine.allowed())) continue;
      if (claims[other].load(std::memory_order_relaxed) != 0) continue;
      cpu = other;
      break;
    }
  }
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(cpu, &mask);
  if (::sched_setaffinity(0, sizeof mask, &mask) != 0) return;
  claims[cpu].fetch_add(1, std::memory_order_relaxed);
  cpu_ = cpu;
}

void VcpuPlacement::unpin(const EngineMachine &machine) {
  claims[cpu_].fetch_sub(1, std::memory_order_relaxed);
  cpu_ = -1;
  ::sched_setaffinity(0, sizeof machine.allowed(), &machine.allowed());
}

bool StubPlacement::update(const EngineMachine &machine, HandOver mode, int cpu, cpu_set_t &mask) {
  if (cpu < 0 || (cpu == cpu_ && mode == mode_)) return false;
  cpu_ = cpu;
  mode_ = mode;
  if (mode == HandOver::OneCpu) {
    CPU_ZERO(&mask);
    CPU_SET(cpu, &mask);
  } else {
    mask = machine.allowed();
    CPU_CLR(cpu, &mask);
  }
  return true;
}

}  // namespace cowbird
