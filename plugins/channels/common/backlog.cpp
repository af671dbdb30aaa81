#include "common/backlog.hpp"

#include <utility>

namespace channels {

void Backlog::add(std::span<const std::byte> data) {
  if (data.size() > kSize) {
    data = data.last(kSize);
    lost_ = true;
    bytes_.clear();
  }
  bytes_.append(reinterpret_cast<const char *>(data.data()), data.size());
  // Trimmed at twice the size, so that a byte is not moved for each byte that comes.
  if (bytes_.size() >= 2 * kSize) {
    bytes_.erase(0, bytes_.size() - kSize);
    lost_ = true;
  }
}

std::string Backlog::take() {
  if (bytes_.size() > kSize) {
    bytes_.erase(0, bytes_.size() - kSize);
    lost_ = true;
  }
  if (lost_) {
    const std::size_t end = bytes_.find('\n');
    if (end != std::string::npos) bytes_.erase(0, end + 1);
  }
  lost_ = false;
  return std::exchange(bytes_, {});
}

}  // namespace channels
