// Whether a guest thread that does not answer the kernel's signal has arranged not to hear it,
// which only forged signal frames can do, or just waits for a processor of a busy host. Signals are
// also blocked in the stub's own handler, through which every hand-over goes; there a thread needs
// moments of processor time and sleeps only when it has answered or waits for orders. How long it
// takes by the clock says nothing: the host may give it no processor for as long as it likes.
#pragma once

#include <cstdint>

namespace cowbird {

// Fed with looks at one thread, each when the thread has signals blocked, has not answered, and has
// nothing to wait for. Used by StubContext; not thread-safe.
class DeafWatch {
 public:
  // Looks that must speak against the thread.
  static constexpr unsigned kLooks = 4;
  // Processor time since the look before that a thread in the handler does not need...
  static constexpr std::uint64_t kRanNs = 1'000'000;
  // ...and what it must have had in all. One look may be wrong even about that: where the host is
  // itself a guest, its processor may stand still at any instruction and the time is still counted.
  static constexpr std::uint64_t kRanInAllNs = 100'000'000;

  // The thread has been seen with its signals open.
  void heard() { *this = DeafWatch(); }
  // Takes a look into account; true when the thread is deaf.
  bool look(bool asleep, std::uint64_t ran_ns);

 private:
  unsigned asleep_ = 0, ran_ = 0;
  bool seen_ = false;
  std::uint64_t first_ns_ = 0, last_ns_ = 0;
};

}  // namespace cowbird
