#include "engine/spin_governor.hpp"

#include <algorithm>

namespace cowbird {

std::int64_t SpinGovernor::begin_wait() {
  if (budget_ns_ > 0) return budget_ns_;
  if (skip_ > 0) {
    --skip_;
    return 0;
  }
  budget_ns_ = kStartNs;
  return budget_ns_;
}

void SpinGovernor::won(std::int64_t waited_ns) {
  backoff_ = kMinBackoff;
  // Room for waits four times as long; a longer habit is forgotten slowly.
  const std::int64_t wanted = std::clamp(4 * waited_ns, kFloorNs, kMaxNs);
  budget_ns_ = std::max(wanted, budget_ns_ - budget_ns_ / 16);
}

void SpinGovernor::lost() {
  if (budget_ns_ == 0) return;
  budget_ns_ /= 2;
  if (budget_ns_ >= kFloorNs) return;
  budget_ns_ = 0;
  skip_ = backoff_;
  backoff_ = std::min(backoff_ * 2, kMaxBackoff);
}

}  // namespace cowbird
