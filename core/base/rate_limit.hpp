// Keeps what a guest can provoke at will from filling the kernel log: so many messages in a row,
// one for each interval, and the next one says how many were left out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace cowbird {

// Not thread-safe: under the lock of who logs.
class RateLimit {
 public:
  constexpr RateLimit(unsigned burst, std::int64_t interval_ns)
      : burst_(burst), interval_ns_(interval_ns), left_(burst) {}

  // How many messages were left out since the last one when this one may be written; nothing when
  // it may not. `now_ns`: any clock that does not go back.
  std::optional<std::uint64_t> pass(std::int64_t now_ns) {
    const std::int64_t intervals = (now_ns - since_ns_) / interval_ns_;
    if (intervals > 0) {
      left_ = static_cast<unsigned>(std::min<std::int64_t>(burst_, left_ + intervals));
      since_ns_ += intervals * interval_ns_;
    }
    if (left_ == 0) {
      ++missed_;
      return std::nullopt;
    }
    --left_;
    const std::uint64_t missed = missed_;
    missed_ = 0;
    return missed;
  }

 private:
  unsigned burst_;
  std::int64_t interval_ns_;
  unsigned left_;
  std::int64_t since_ns_ = 0;
  std::uint64_t missed_ = 0;
};

}  // namespace cowbird
