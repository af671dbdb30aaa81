#include "engine/deaf_watch.hpp"

#include <utility>

namespace cowbird {

bool DeafWatch::look(bool asleep, std::uint64_t ran_ns) {
  if (asleep) ++asleep_;
  if (!std::exchange(seen_, true)) first_ns_ = last_ns_ = ran_ns;
  if (ran_ns - std::exchange(last_ns_, ran_ns) >= kRanNs) ++ran_;
  return asleep_ >= kLooks || (ran_ >= kLooks && ran_ns - first_ns_ >= kRanInAllNs);
}

}  // namespace cowbird
