// How the two sides of a hand-over wait for each other, learnt from how earlier ones went. Used by
// StubContext; not thread-safe. Everything is a time, not a number of turns, so that it means the
// same on every processor; the caller reads the clock.
#pragma once

#include <cstdint>

namespace cowbird {

// How long one side should spin before it parks.
class SpinGovernor {
 public:
  static constexpr std::int64_t kMaxNs = 50'000;
  static constexpr std::int64_t kStartNs = 20'000;
  // Waking a sleeper on another processor costs about as much, so less is never worth saving; a
  // host's timer interrupt fits in too.
  static constexpr std::int64_t kFloorNs = 10'000;
  static constexpr unsigned kLosses = 4;  // in a row, then it parks at once
  static constexpr unsigned kMinBackoff = 8;
  static constexpr unsigned kMaxBackoff = 512;

  // The budget of the wait that begins now; 0 means to park at once. After a losing streak most
  // waits get 0 and now and then one gets a trial.
  std::int64_t begin_wait();
  // The answer came `waited_ns` after the wait began, while spinning.
  void won(std::int64_t waited_ns);
  // The budget ran out. Waits with budget 0 need not be told.
  void lost();

 private:
  std::int64_t budget_ns_ = kStartNs;
  unsigned losses_ = 0;
  unsigned skip_ = 0;
  unsigned backoff_ = kMinBackoff;
};

// Where the two sides of a hand-over run.
enum class HandOver : std::uint8_t {
  OneCpu,   // on one processor, and the waiting side sleeps
  TwoCpus,  // on two, and the waiting side spins
};

// Which of the two is faster depends on the host (how far its processors are from each other, what
// else they do) and on the guest (how long it computes), so both are tried in turn and the times
// compared. Spinning has to be clearly better, because it keeps a second processor busy.
class HandOverGovernor {
 public:
  static constexpr std::int64_t kClipNs = 25'000;  // a longer time says nothing about the hand-over
  static constexpr unsigned kWarmUp = 16;          // hand-overs after a change that are not counted
  static constexpr unsigned kTrial = 64;           // hand-overs of a trial
  static constexpr unsigned kContendedSettled = 16384;
  static constexpr unsigned kMinSettled = 1024, kMaxSettled = 65536;

  // How the hand-over that begins now is made; TwoCpus only if there is `room`.
  HandOver begin(bool room);
  // It was answered `elapsed_ns` later.
  void end(std::int64_t elapsed_ns);
  // The host took the processor from the vCPU while it spun: others need it, and who spins is the
  // first to be taken off it, for so long that the times above do not show it.
  void contended();

 private:
  std::int64_t &average(HandOver mode) { return average_ns_[mode == HandOver::TwoCpus ? 1 : 0]; }
  void enter(HandOver mode, unsigned count, bool trial);
  void decide();

  HandOver mode_ = HandOver::OneCpu, settled_ = HandOver::OneCpu;
  bool trial_ = true;
  bool forced_ = false;  // no room: this hand-over says nothing
  unsigned left_ = kTrial, warm_up_ = kWarmUp;
  unsigned settle_for_ = kMinSettled;
  unsigned spoilt_ = 0;  // how often spinning became bad since it was last good for long
  std::int64_t average_ns_[2] = {0, 0};
  std::int64_t sum_ns_ = 0, counted_ = 0;  // since the last change
};

}  // namespace cowbird
