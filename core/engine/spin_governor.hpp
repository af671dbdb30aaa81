// SpinGovernor: how long one side of a hand-over should spin before it parks, learnt from how
// earlier waits ended. A time, not a number of turns, so that it means the same on every processor.
// Used by StubContext, one for each direction; not thread-safe.
#pragma once

#include <cstdint>

namespace cowbird {

class SpinGovernor {
 public:
  static constexpr std::int64_t kMaxNs = 50'000;
  static constexpr std::int64_t kStartNs = 20'000;
  static constexpr std::int64_t kFloorNs = 4'000;  // a smaller budget catches nothing: park at once
  static constexpr unsigned kMinBackoff = 8;
  static constexpr unsigned kMaxBackoff = 512;

  // The budget of the wait that begins now; 0 means to park at once. After a losing streak most
  // waits get 0 and now and then one gets a trial.
  std::int64_t begin_wait();
  // The answer came `waited_ns` after the wait began, while spinning.
  void won(std::int64_t waited_ns);
  // The budget ran out, or, when it was 0, the side parked. Waits with budget 0 need not be told.
  void lost();

 private:
  std::int64_t budget_ns_ = kStartNs;
  unsigned skip_ = 0;
  unsigned backoff_ = kMinBackoff;
};

}  // namespace cowbird
