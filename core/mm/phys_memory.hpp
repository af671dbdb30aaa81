// The guest's physical memory: one memfd, mapped whole into the kernel, and the page frames in it.
// Frames are reference counted; a frame whose count falls to zero is free. A frame that guest code
// could reach through a stub is put back only after the engine proved that it cannot any more
// (mm/mm.hpp does that).
//
// All functions need the big kernel lock. Functions that allocate do not sleep.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "base/units.hpp"

namespace cowbird {

struct PageRun {
  Pfn first = 0;
  std::uint64_t count = 0;
};

enum class Zero : bool { No, Yes };

class PhysMemory {
 public:
  // Fails with the host's error in `why` (a sentence).
  static Result<std::unique_ptr<PhysMemory>> create(std::uint64_t bytes, std::string &why);
  ~PhysMemory();

  int fd() const { return fd_.get(); }
  std::uint64_t total_pages() const { return total_; }
  std::uint64_t free_pages() const { return free_; }
  // Frames that only callers with `use_reserve` get.
  std::uint64_t reserve_pages() const { return reserve_; }
  // So many frames are free that speculative allocations (fault-around) of `wanted` are welcome.
  bool plentiful(std::uint64_t wanted) const { return free_ > reserve_ + total_ / 16 + wanted; }

  // The kernel's own view of a frame.
  std::byte *data(Pfn pfn) { return base_ + (pfn << kPageShift); }
  std::span<std::byte> bytes(Pfn pfn) { return {data(pfn), kPageSize}; }

  // One frame with one reference. NoMem when none is left even after reclaim. The last few frames
  // are kept for `reserve` users (fork and exit paths, page cache of the kernel itself).
  Result<Pfn> alloc(Zero zero, bool use_reserve = false);
  // Up to `wanted` frames that lie side by side (at least one); each has one reference of its own.
  Result<PageRun> alloc_run(std::uint64_t wanted, Zero zero);
  void get(Pfn pfn);
  void put(Pfn pfn);
  std::uint32_t refs(Pfn pfn) const { return refs_[pfn]; }

  // Called when memory is short, before an allocation fails: frees what can be had again (clean
  // page cache) and returns how many frames it freed. Must not sleep.
  void add_reclaimer(std::uint64_t (*reclaim)(std::uint64_t wanted));

  static PhysMemory *current;  // what phys() gives; of set_phys()

 private:
  friend struct DebugLayout;
  struct Buddy;
  PhysMemory();
  bool make_available(std::uint64_t wanted, bool use_reserve);
  void prepare(PageRun run, Zero zero);
  UniqueFd fd_;
  std::byte *base_ = nullptr;
  std::uint64_t total_ = 0;
  std::uint64_t free_ = 0;
  std::uint64_t reserve_ = 0;
  std::vector<std::uint32_t> refs_;
  std::unique_ptr<Buddy> buddy_;
  std::vector<std::uint64_t (*)(std::uint64_t)> reclaimers_;
  bool reclaiming_ = false;
};

// The one physical memory of this guest; set at boot (and by unit tests).
PhysMemory &phys();
void set_phys(PhysMemory *memory);

}  // namespace cowbird
