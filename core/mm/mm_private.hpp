// The inside of Mm, shared by the files mm_*.cpp. Nobody else includes it.
//
// Who may change what: the list of areas changes under Mm::lock() and the big kernel lock together;
// page table entries under the big kernel lock alone, since a truncated file takes pages away
// without the address space's lock. So after every sleep entries must be looked up again, and areas
// too unless lock() was held across it.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <memory>

#include "mm/mm.hpp"
#include "mm/page_table.hpp"
#include "mm/phys_memory.hpp"
#include "mm/retire.hpp"

namespace cowbird {

// --- what was chosen by measurement or may be changed by it
inline constexpr std::uint64_t kAnonAroundPages = 16;      // zero pages given at a first fault
inline constexpr std::uint64_t kAnonAroundMaxPages = 256;  // the same when faults go upwards
inline constexpr std::uint64_t kFileAroundPages = 32;      // cached pages mapped at a fault
inline constexpr std::uint64_t kRehostPages = 64;          // known pages mapped again at a fault
inline constexpr std::uint64_t kReuseAroundPages = 16;     // own pages made writable at a fault
inline constexpr std::uint64_t kStackGrowPages = 16;       // a stack grows by so many, if it may
inline constexpr unsigned kForkMapRuns = 64;               // map orders given for a fork's child
inline constexpr std::uint64_t kStackGuardPages = 256;     // below an area that grows down

inline constexpr unsigned kForkLearns = 16;  // faults after a fork that teach it

// The pages that were written soon after earlier forks, by the parent or by the child: whoever came
// first needed a copy. The next fork makes it beforehand, because a fault costs thirty times a
// copy. Shared by a family of address spaces until one of them executes another program.
class ForkHistory : public RefCounted<ForkHistory> {
 public:
  static constexpr std::size_t kPages = 32;
  void add(VirtAddr page) {
    if (std::find(pages_.begin(), pages_.end(), page) != pages_.end()) return;
    pages_[next_++ % kPages] = page;
  }
  std::array<VirtAddr, kPages> sorted() const {
    auto pages = pages_;
    std::sort(pages.begin(), pages.end());
    return pages;
  }

 private:
  std::array<VirtAddr, kPages> pages_{};
  std::size_t next_ = 0;
};

// One fork's view of the history: asked for ascending pages.
class PagesToCopy {
 public:
  PagesToCopy(const ForkHistory &history, bool enabled) : pages_(history.sorted()) {
    if (!enabled) next_ = pages_.size();
  }
  bool contains(VirtAddr page) {
    while (next_ < pages_.size() && pages_[next_] < page) ++next_;
    return next_ < pages_.size() && pages_[next_] == page;
  }

 private:
  std::array<VirtAddr, ForkHistory::kPages> pages_;
  std::size_t next_ = 0;
};

// Collects pages that are to be mapped into one order per contiguous run.
class HostRuns {
 public:
  HostRuns(AddressSpace &host, unsigned max_orders = ~0u) : host_(host), left_(max_orders) {}
  ~HostRuns() { flush(); }
  HostRuns(const HostRuns &) = delete;
  HostRuns &operator=(const HostRuns &) = delete;
  // False when the bound on orders is reached: the page will not be mapped.
  bool add(VirtAddr address, Pte pte) {
    if (pages_ != 0 && address == address_ + (pages_ << kPageShift) &&
        pte.pfn() == first_ + pages_ && pte.permissions() == permissions_) {
      ++pages_;
      return true;
    }
    flush();
    if (left_ == 0) return false;
    --left_;
    address_ = address;
    first_ = pte.pfn();
    permissions_ = pte.permissions();
    pages_ = 1;
    return true;
  }
  void flush() {
    if (pages_ != 0) host_.map(address_, first_, pages_, Pte::to_prot(permissions_), true);
    pages_ = 0;
  }

 private:
  AddressSpace &host_;
  unsigned left_;
  VirtAddr address_ = 0;
  Pfn first_ = 0;
  std::uint64_t permissions_ = 0;
  std::uint64_t pages_ = 0;
};

// The same for changes of protection. Pages between two of a run may be skipped when the engine has
// nothing mapped there.
class ProtectRuns {
 public:
  explicit ProtectRuns(AddressSpace &host) : host_(host) {}
  ~ProtectRuns() { flush(); }
  ProtectRuns(const ProtectRuns &) = delete;
  ProtectRuns &operator=(const ProtectRuns &) = delete;
  void add(VirtAddr address, std::uint64_t permissions) {
    if (end_ == 0 || permissions != permissions_) {
      flush();
      start_ = address;
      permissions_ = permissions;
    }
    end_ = address + kPageSize;
  }
  // A mapped page that keeps its protection.
  void pass(std::uint64_t permissions) {
    if (end_ != 0 && permissions != permissions_) flush();
  }
  void flush() {
    if (end_ != 0) host_.protect(start_, (end_ - start_) >> kPageShift, Pte::to_prot(permissions_));
    end_ = 0;
  }

 private:
  AddressSpace &host_;
  VirtAddr start_ = 0;
  VirtAddr end_ = 0;
  std::uint64_t permissions_ = 0;
};

// What a fault needs before it can be tried again.
struct FaultNeed {
  Ref<PageCache> cache;  // this page of it, read in
  std::uint64_t index = 0;
};

struct RemapRequest;

struct Mm::Private {
  Private(Mm &owner, Platform &machine)
      : mm(owner), platform(machine), retired(new RetireQueue(*owner.host_)) {}

  using Areas = std::map<VirtAddr, std::unique_ptr<Vma>>;

  Mm &mm;
  Platform &platform;
  PageTable table;
  Areas areas;
  std::unique_ptr<RetireQueue> retired;
  bool lock_future = false;  // mlockall(MCL_FUTURE)
  bool was_taken = false;    // take_from_killed()

  // Figures, in pages.
  std::uint64_t virtual_pages = 0, data_pages = 0, locked_pages = 0, peak_virtual = 0;
  std::uint64_t resident_anon = 0, resident_file = 0, resident_shmem = 0, peak_resident = 0;

  // Placement: below mmap_base, downwards. Below search_top a hole of `largest_skipped` pages and
  // more was not looked for yet.
  VirtAddr mmap_base = 0;
  VirtAddr search_top = 0;
  std::uint64_t largest_skipped = 0;

  // Fault-around: a fault at `next_anon` continues the last one.
  VirtAddr next_anon = 0;
  std::uint64_t anon_window = kAnonAroundPages;

  Ref<ForkHistory> fork_history = make_ref<ForkHistory>();
  unsigned fork_learns = 0;  // faults that go into the history

  // --- mm_areas.cpp: the list of areas
  Vma *find(VirtAddr address) const;
  // The first area that ends above the address.
  Vma *find_above(VirtAddr address) const;
  bool overlaps(VirtAddr start, VirtAddr end) const;
  // Lowest address that a neighbour below `area` may use up to.
  static VirtAddr guarded_start(const Vma &area);
  Vma &insert(std::unique_ptr<Vma> area);
  std::unique_ptr<Vma> take(Vma &area);
  void resize(Vma &area, VirtAddr start, VirtAddr end);
  Result<void> split_at(VirtAddr address);
  // Joins equal neighbours within and at the edges of [start, end].
  void merge(VirtAddr start, VirtAddr end);
  // Calls function(area) for the areas in [start, end), cut to it; NoMem when there is a hole.
  template <typename Function>
  Result<void> for_range(VirtAddr start, VirtAddr end, bool split, Function &&function);
  Result<VirtAddr> choose_address(std::uint64_t length, VirtAddr hint, bool below_2g,
                                  std::uint64_t guard);
  Result<VirtAddr> map_area(MmapRequest &request);
  Result<VirtAddr> place(const MmapRequest &request, std::uint64_t length);
  Result<void> check_limits(const MmapRequest &request, VirtAddr address, std::uint64_t pages);
  Result<void> unmap_range(VirtAddr start, VirtAddr end);
  void forget_holes(VirtAddr end);
  void account(const Vma &area, bool added);
  bool grow_stack(VirtAddr page);

  // --- mm_fault.cpp
  FaultOutcome fault_once(VirtAddr page, FaultAccess access, bool forced, FaultNeed &need);
  FaultOutcome fault_present(Vma &area, VirtAddr page, Pte pte, FaultAccess access, bool forced);
  FaultOutcome fault_anon(Vma &area, VirtAddr page);
  FaultOutcome fault_cache(Vma &area, VirtAddr page, FaultAccess access, FaultNeed &need);
  void map_cached_around(Vma &area, VirtAddr page, FaultAccess access);
  FaultOutcome copy_page(Vma &area, VirtAddr page, Pfn source, Pte old);
  FaultOutcome make_own(Vma &area, VirtAddr page, Pte pte, bool forced);
  void reuse_around(Vma &area, VirtAddr page);
  FaultOutcome make_shared_writable(Vma &area, VirtAddr page, Pte pte);
  void rehost(Vma &area, VirtAddr page);

  // --- mm_remap.cpp
  Result<VirtAddr> remap(const RemapRequest &request);
  Result<VirtAddr> move_area(const RemapRequest &request, Vma &area);
  bool move_entries(VirtAddr from, VirtAddr to, std::uint64_t length);

  // --- mm_fork.cpp
  bool copy_entries(const Vma &area, Private &child, PagesToCopy &to_copy, HostRuns &child_runs);
  // Gives the child a writable copy of its own: false when there is no memory for it.
  static bool copy_now(const Vma &area, VirtAddr page, Pte pte, Private &child,
                       HostRuns &child_runs);
  void learn_from_fault(VirtAddr page) {
    if (fork_learns == 0) return;
    --fork_learns;
    fork_history->add(page);
  }

  // --- entries, with their figures
  bool install(VirtAddr page, Pte pte);  // false: no room for a page table
  void count(Pte pte, std::int64_t by);
  // Takes the entries of [start, end) away; private copies only when told. True when a host mapping
  // went, which guest code that runs now may use until the engine has caught up.
  bool zap(VirtAddr start, VirtAddr end, bool private_copies = true);
  // Waits for the engine when another thread of the program could still see the old state. Sleeps.
  void flush_for_others() {
    if (mm.users > 1) mm.host_->synchronize(mm.host_->sync_point());
  }
};

// Frees memory by means that sleep: waits for frames on their way out of address spaces, then
// writes dirty pages back. True when it freed something.
bool relieve_shortage();

template <typename Function>
Result<void> Mm::Private::for_range(VirtAddr start, VirtAddr end, bool split, Function &&function) {
  if (split) {
    if (overlaps(start, end)) {
      TRY(split_at(start));
      TRY(split_at(end));
    }
  }
  VirtAddr at = start;
  bool hole = false;
  while (at < end) {
    Vma *area = find_above(at);
    if (!area || area->start >= end) {
      hole = true;
      break;
    }
    if (area->start > at) hole = true;
    const VirtAddr stop = std::min(end, area->end);
    TRY(function(*area, std::max(at, area->start), stop));
    at = stop;
  }
  if (hole) return Err(Errno::NoMem);
  return {};
}

}  // namespace cowbird
