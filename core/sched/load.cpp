// Load averages: exponentially decaying means of the number of threads that run, wait for a vCPU or
// sleep uninterruptibly, as in /proc/loadavg.
#include <array>
#include <cmath>

#include "sched/clock.hpp"
#include "sched/internals.hpp"

namespace cowbird {
namespace {

constexpr std::int64_t kPeriodNs = 5 * kNsPerSec;
constexpr double kFixedOne = 2048;
constexpr std::array<double, 3> kMeanOverSeconds{60, 300, 900};

// Big kernel lock. Sampling stops while nothing is active, so that an idle guest wakes nobody; the
// periods that were missed count as idle.
struct Load {
  std::array<double, 3> averages{};
  std::int64_t sampled = 0;
  Timer timer{[this] { sample(); }};

  static Load &instance() {
    static auto *const load = new Load;
    return *load;
  }

  void decay(double periods, double active) {
    for (std::size_t i = 0; i < averages.size(); ++i) {
      const double keep = std::exp(-5.0 * periods / kMeanOverSeconds[i]);
      averages[i] = averages[i] * keep + active * (1 - keep);
    }
  }

  void catch_up() {
    const std::int64_t missed = (clock::monotonic_ns() - sampled) / kPeriodNs;
    if (missed <= 0) return;
    decay(static_cast<double>(missed), 0);
    sampled += missed * kPeriodNs;
  }

  void sample() {
    const auto &core = SchedCore::instance();
    const unsigned active = scheduler::runnable_count() + core.blocked_count;
    decay(1, active);
    sampled = clock::monotonic_ns();
    if (active > 0) timer.arm(sampled + kPeriodNs);
  }
};

}  // namespace

namespace load {

void note_activity() {
  Load &load = Load::instance();
  if (load.timer.armed()) return;
  load.catch_up();
  load.timer.arm(load.sampled + kPeriodNs);
}

}  // namespace load

namespace scheduler {

void load_average(std::uint64_t out[3]) {
  Load &load = Load::instance();
  if (!load.timer.armed()) load.catch_up();
  for (std::size_t i = 0; i < load.averages.size(); ++i) {
    out[i] = static_cast<std::uint64_t>(load.averages[i] * kFixedOne);
  }
}

}  // namespace scheduler
}  // namespace cowbird
