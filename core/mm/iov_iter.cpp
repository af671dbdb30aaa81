#include "mm/iov_iter.hpp"

#include <algorithm>
#include <cstring>

#include "base/log.hpp"
#include "mm/user_access.hpp"

namespace cowbird {

namespace {

std::byte *kernel_pointer(std::uint64_t base, std::uint64_t offset) {
  return reinterpret_cast<std::byte *>(base + offset);
}

std::uint64_t saturating_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? ~0ull : sum;
}

}  // namespace

IovIter::IovIter(bool is_user, std::vector<Segment> segments)
    : is_user_(is_user), segments_(std::move(segments)) {
  for (const Segment &segment : segments_) remaining_ = saturating_add(remaining_, segment.length);
}

IovIter IovIter::kernel(std::span<std::byte> bytes) {
  return kernel(std::span<const std::byte>(bytes));
}

IovIter IovIter::kernel(std::span<const std::byte> bytes) {
  IovIter iter(false, {});
  iter.single_ = {reinterpret_cast<std::uint64_t>(bytes.data()), bytes.size()};
  iter.remaining_ = bytes.size();
  return iter;
}

IovIter IovIter::user(VirtAddr address, std::uint64_t length) {
  IovIter iter(true, {});
  iter.single_ = {address, length};
  iter.remaining_ = length;
  return iter;
}

IovIter IovIter::user(std::vector<Segment> segments) { return IovIter(true, std::move(segments)); }

// Calls copy(base, offset, bytes, done) -> bytes copied for each piece of contiguous memory.
template <typename Copy>
Result<std::uint64_t> IovIter::each_piece(std::uint64_t bytes, Copy &&copy) {
  const std::uint64_t wanted = std::min(bytes, remaining_);
  std::uint64_t done = 0;
  while (done < wanted) {
    const Segment &segment = segments_.empty() ? single_ : segments_[segment_];
    if (offset_ == segment.length) {
      ++segment_;
      offset_ = 0;
      continue;
    }
    const std::uint64_t piece = std::min(wanted - done, segment.length - offset_);
    const std::uint64_t copied = copy(segment.base, offset_, piece, done);
    offset_ += copied;
    done += copied;
    remaining_ -= copied;
    consumed_ += copied;
    if (copied < piece) {
      if (done == 0) return Err(Errno::Fault);
      break;
    }
  }
  return done;
}

Result<std::uint64_t> IovIter::copy_to(std::span<const std::byte> bytes) {
  return each_piece(bytes.size(),
                    [&](std::uint64_t base, std::uint64_t offset, std::uint64_t count,
                        std::uint64_t done) -> std::uint64_t {
                      if (is_user_)
                        return copy_out_partial(base + offset, bytes.data() + done, count);
                      std::memcpy(kernel_pointer(base, offset), bytes.data() + done, count);
                      return count;
                    });
}

Result<std::uint64_t> IovIter::copy_from(std::span<std::byte> bytes) {
  return each_piece(bytes.size(),
                    [&](std::uint64_t base, std::uint64_t offset, std::uint64_t count,
                        std::uint64_t done) -> std::uint64_t {
                      if (is_user_)
                        return copy_in_partial(bytes.data() + done, base + offset, count);
                      std::memcpy(bytes.data() + done, kernel_pointer(base, offset), count);
                      return count;
                    });
}

Result<std::uint64_t> IovIter::zero(std::uint64_t bytes) {
  return each_piece(bytes,
                    [&](std::uint64_t base, std::uint64_t offset, std::uint64_t count,
                        std::uint64_t) -> std::uint64_t {
                      if (is_user_) return clear_user_partial(base + offset, count);
                      std::memset(kernel_pointer(base, offset), 0, count);
                      return count;
                    });
}

void IovIter::advance(std::uint64_t bytes) {
  KASSERT(bytes <= remaining_);
  (void)each_piece(bytes, [](std::uint64_t, std::uint64_t, std::uint64_t count, std::uint64_t) {
    return count;
  });
}

void IovIter::revert(std::uint64_t bytes) {
  KASSERT(bytes <= consumed_);
  consumed_ -= bytes;
  remaining_ += bytes;
  while (bytes > offset_) {
    bytes -= offset_;
    KASSERT(segment_ > 0);
    --segment_;
    offset_ = segments_.empty() ? single_.length : segments_[segment_].length;
  }
  offset_ -= bytes;
}

void IovIter::truncate(std::uint64_t bytes) { remaining_ = std::min(remaining_, bytes); }

}  // namespace cowbird
