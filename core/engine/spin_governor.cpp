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
  losses_ = 0;
  backoff_ = kMinBackoff;
  // Room for waits four times as long; a longer habit is forgotten slowly.
  const std::int64_t wanted = std::clamp(4 * waited_ns, kFloorNs, kMaxNs);
  budget_ns_ = std::max(wanted, budget_ns_ - budget_ns_ / 16);
}

void SpinGovernor::lost() {
  if (budget_ns_ == 0) return;
  if (++losses_ < kLosses) return;
  losses_ = kLosses - 1;  // one trial, when its time comes
  budget_ns_ = 0;
  skip_ = backoff_;
  backoff_ = std::min(backoff_ * 2, kMaxBackoff);
}

HandOver HandOverGovernor::begin(bool room) {
  forced_ = mode_ == HandOver::TwoCpus && !room;
  return forced_ ? HandOver::OneCpu : mode_;
}

void HandOverGovernor::end(std::int64_t elapsed_ns) {
  if (forced_) return;
  if (warm_up_ > 0) {
    --warm_up_;
    return;
  }
  std::int64_t &average_ns = average(mode_);
  const std::int64_t clipped = std::clamp<std::int64_t>(elapsed_ns, 0, kClipNs);
  // A trial is a plain mean; later ones fade.
  sum_ns_ += clipped;
  ++counted_;
  if (counted_ <= kTrial)
    average_ns = sum_ns_ / counted_;
  else
    average_ns += (clipped - average_ns) / 32;
  // Spinning that has become bad is ended at once: each lost wait costs a wake-up across
  // processors.
  const bool spoilt =
      mode_ == HandOver::TwoCpus && !trial_ && average_ns > 2 * average(HandOver::OneCpu);
  if (spoilt) {
    settled_ = HandOver::OneCpu;
    settle_for_ = std::min(kMinSettled << std::min(++spoilt_, 6u), kMaxSettled);
    enter(settled_, settle_for_, false);
  } else if (--left_ == 0) {
    decide();
  }
}

void HandOverGovernor::enter(HandOver mode, unsigned count, bool trial) {
  if (mode != mode_) {
    warm_up_ = kWarmUp;
    sum_ns_ = counted_ = 0;
  }
  mode_ = mode;
  left_ = count;
  trial_ = trial;
}

void HandOverGovernor::decide() {
  const HandOver other = settled_ == HandOver::OneCpu ? HandOver::TwoCpus : HandOver::OneCpu;
  if (mode_ == settled_) {
    // What is settled has been measured anew; now the other one.
    enter(other, kTrial, true);
    return;
  }
  const std::int64_t one = average(HandOver::OneCpu), two = average(HandOver::TwoCpus);
  const HandOver better = two + two / 4 < one ? HandOver::TwoCpus : HandOver::OneCpu;
  const bool kept = better == settled_;
  if (kept && better == HandOver::TwoCpus) spoilt_ = 0;
  settle_for_ = kept ? std::min(settle_for_ * 2, kMaxSettled) : kMinSettled;
  settled_ = better;
  enter(better, settle_for_, false);
}

void HandOverGovernor::contended() {
  if (mode_ != HandOver::TwoCpus) return;
  settled_ = HandOver::OneCpu;
  enter(settled_, kContendedSettled, false);
}

}  // namespace cowbird
