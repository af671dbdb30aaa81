// IovIter: where the bytes of a read go to or those of a write come from: a list of ranges in guest
// or in kernel memory, consumed front to back. Needs the big kernel lock; touching guest memory may
// sleep (a page comes from a file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"

namespace cowbird {

class Mm;

class IovIter {
 public:
  struct Segment {
    std::uint64_t base;  // guest address, or kernel pointer
    std::uint64_t length;
  };

  static IovIter kernel(std::span<std::byte> bytes);
  static IovIter kernel(std::span<const std::byte> bytes);  // a source only
  // Of the current thread's address space. The range is checked when it is touched (Fault).
  static IovIter user(VirtAddr address, std::uint64_t length);
  static IovIter user(std::vector<Segment> segments);

  std::uint64_t remaining() const { return remaining_; }
  std::uint64_t consumed() const { return consumed_; }

  // Copies min(bytes.size(), remaining()) bytes and advances. Returns how many were copied, which
  // is fewer when guest memory faults on the way; Fault when it faults at the first byte. 0 only
  // for empty requests.
  Result<std::uint64_t> copy_to(std::span<const std::byte> bytes);  // into the iterator's memory
  Result<std::uint64_t> copy_from(std::span<std::byte> bytes);      // out of the iterator's memory
  Result<std::uint64_t> zero(std::uint64_t bytes);
  // Skips without touching.
  void advance(std::uint64_t bytes);
  // Goes back over bytes that were consumed but could not be used after all.
  void revert(std::uint64_t bytes);
  // Shortens what remains.
  void truncate(std::uint64_t bytes);

 private:
  IovIter(bool is_user, std::vector<Segment> segments);
  template <typename Copy>
  Result<std::uint64_t> each_piece(std::uint64_t bytes, Copy &&copy);
  bool is_user_;
  std::vector<Segment> segments_;  // at most IOV_MAX
  Segment single_{};               // the common case without an allocation
  std::size_t segment_ = 0;
  std::uint64_t offset_ = 0;  // in the current segment
  std::uint64_t remaining_ = 0;
  std::uint64_t consumed_ = 0;
};

}  // namespace cowbird
