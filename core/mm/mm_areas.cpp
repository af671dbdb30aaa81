// The areas of an address space: finding, placing, splitting and joining them, and the system calls
// that make, remove and change them.
#include <algorithm>

#include "base/log.hpp"
#include "mm/mm_private.hpp"

namespace cowbird {

namespace {

constexpr VirtAddr kLow2G = 0x8000'0000;

bool same_backing(const Vma &low, const Vma &high) {
  if (low.cache.get() != high.cache.get() || !(low.file == high.file)) return false;
  return !low.cache || low.offset + (low.end - low.start) == high.offset;
}

bool can_join(const Vma &low, const Vma &high) {
  return low.end == high.start && low.prot == high.prot && low.max_prot == high.max_prot &&
         low.sharing == high.sharing && low.kind == high.kind &&
         low.grows_down == high.grows_down && low.no_reserve == high.no_reserve &&
         low.dont_fork == high.dont_fork && low.wipe_on_fork == high.wipe_on_fork &&
         low.dont_dump == high.dont_dump && low.random_access == high.random_access &&
         low.locked == high.locked && same_backing(low, high);
}

// The range of a call that takes an address and a length.
Result<VirtAddr> range_end(VirtAddr address, std::uint64_t length, Errno outside) {
  if (!page_aligned(address)) return Err(Errno::Inval);
  if (length > kUserMax || address > kUserMax || page_up(length) > kUserMax - address)
    return Err(outside);
  return address + page_up(length);
}

}  // namespace

// --- the list

Vma *Mm::Private::find_above(VirtAddr address) const {
  auto it = areas.upper_bound(address);
  if (it != areas.begin()) {
    auto before = std::prev(it);
    if (before->second->end > address) return before->second.get();
  }
  return it == areas.end() ? nullptr : it->second.get();
}

Vma *Mm::Private::find(VirtAddr address) const {
  Vma *area = find_above(address);
  return area && area->start <= address ? area : nullptr;
}

bool Mm::Private::overlaps(VirtAddr start, VirtAddr end) const {
  const Vma *area = find_above(start);
  return area && area->start < end;
}

VirtAddr Mm::Private::guarded_start(const Vma &area) {
  const std::uint64_t gap = area.grows_down ? kStackGuardPages << kPageShift : 0;
  return area.start > gap ? area.start - gap : 0;
}

void Mm::Private::account(const Vma &area, bool added) {
  const std::uint64_t pages = added ? area.pages() : ~area.pages() + 1;
  virtual_pages += pages;
  if (area.is_data()) data_pages += pages;
  if (area.locked) locked_pages += pages;
  peak_virtual = std::max(peak_virtual, virtual_pages);
}

Vma &Mm::Private::insert(std::unique_ptr<Vma> area) {
  Vma &inserted = *area;
  inserted.mm = &mm;
  if (inserted.cache) inserted.cache->add_vma(inserted);
  account(inserted, true);
  const bool fresh = areas.emplace(inserted.start, std::move(area)).second;
  KASSERT(fresh);
  return inserted;
}

std::unique_ptr<Vma> Mm::Private::take(Vma &area) {
  auto it = areas.find(area.start);
  KASSERT(it != areas.end() && it->second.get() == &area);
  std::unique_ptr<Vma> taken = std::move(it->second);
  areas.erase(it);
  if (taken->cache) taken->cache->remove_vma(*taken);
  account(*taken, false);
  return taken;
}

void Mm::Private::resize(Vma &area, VirtAddr start, VirtAddr end) {
  std::unique_ptr<Vma> taken = take(area);
  if (taken->cache) taken->offset += start - taken->start;
  taken->start = start;
  taken->end = end;
  insert(std::move(taken));
}

Result<void> Mm::Private::split_at(VirtAddr address) {
  Vma *area = find(address);
  if (!area || area->start == address) return {};
  if (areas.size() >= kMaxAreas) return Err(Errno::NoMem);
  auto high = std::make_unique<Vma>(*static_cast<VmaFields *>(area));
  high->start = address;
  if (high->cache) high->offset += address - area->start;
  resize(*area, area->start, address);
  insert(std::move(high));
  return {};
}

void Mm::Private::merge(VirtAddr start, VirtAddr end) {
  auto it = areas.upper_bound(start);
  if (it != areas.begin()) --it;
  if (it != areas.begin()) --it;
  while (it != areas.end() && it->second->start <= end) {
    auto next = std::next(it);
    if (next == areas.end()) return;
    if (!can_join(*it->second, *next->second)) {
      it = next;
      continue;
    }
    const VirtAddr low = it->second->start;
    const VirtAddr high_end = next->second->end;
    take(*next->second);
    resize(*areas.find(low)->second, low, high_end);
    it = areas.find(low);
  }
}

// --- where a mapping goes

Result<VirtAddr> Mm::Private::choose_address(std::uint64_t length, VirtAddr hint, bool below_2g,
                                             std::uint64_t guard) {
  const VirtAddr limit = below_2g ? kLow2G : kUserMax;
  hint = page_down(hint);
  if (hint >= kUserMin && hint < limit && length <= limit - hint) {
    const Vma *next = find_above(hint);
    if (!next || guarded_start(*next) >= hint + length) {
      const Vma *below = guard != 0 && hint > guard ? find_above(hint - guard) : nullptr;
      if (!below || below->start >= hint) return hint;
    }
  }
  if (mmap_base == 0) {
    // As Linux places it: room for the stack to grow to its limit and for the stack's own random
    // offset (16 GiB), then 28 random bits of pages.
    constexpr std::uint64_t kStackRandom = 16 * kGiB;
    const std::uint64_t room = std::clamp<std::uint64_t>(
        page_up(std::min(mm.limits.stack, kUserMax)), 128 * kMiB, kUserMax / 6 * 5);
    const std::uint64_t random = (mm_random() & ((1ull << 28) - 1)) << kPageShift;
    mmap_base = page_down(kUserMax - room - kStackRandom - random);
    search_top = mmap_base;
  }
  const VirtAddr base = below_2g ? kLow2G : mmap_base;
  VirtAddr top = base;
  if (!below_2g && length > largest_skipped) {
    top = search_top;
  } else if (!below_2g) {
    largest_skipped = 0;
  }
  // Downwards, hole by hole.
  std::uint64_t skipped = below_2g ? 0 : largest_skipped;
  auto it = areas.lower_bound(top);
  VirtAddr hole_end = top;
  if (it != areas.end()) hole_end = std::min(hole_end, guarded_start(*it->second));
  for (;;) {
    const VirtAddr hole_start =
        it == areas.begin() ? kUserMin : std::max(kUserMin, std::prev(it)->second->end + guard);
    if (hole_end > hole_start && hole_end - hole_start >= length) {
      const VirtAddr found = hole_end - length;
      if (!below_2g) {
        search_top = found;
        largest_skipped = skipped;
      }
      return found;
    }
    if (hole_end > hole_start) skipped = std::max(skipped, hole_end - hole_start);
    if (it == areas.begin()) break;
    --it;
    hole_end = std::min(hole_end, guarded_start(*it->second));
  }
  if (below_2g) return Err(Errno::NoMem);
  // Nothing below: what is above the base, upwards from the lowest address.
  forget_holes(kUserMax);
  VirtAddr at = kUserMin;
  for (const auto &[start, area] : areas) {
    const VirtAddr free_end = guarded_start(*area);
    if (free_end > at && free_end - at >= length) return at;
    at = std::max(at, area->end + guard);
  }
  if (kUserMax > at && kUserMax - at >= length) return at;
  return Err(Errno::NoMem);
}

// Something that ended at `end` went away. The search goes on below search_top only while nothing
// was freed above it.
void Mm::Private::forget_holes(VirtAddr end) {
  if (end < search_top) return;
  search_top = mmap_base;
  largest_skipped = 0;
}

Result<VirtAddr> Mm::Private::place(const MmapRequest &request, std::uint64_t length) {
  const std::uint64_t guard = request.grows_down ? kStackGuardPages << kPageShift : 0;
  if (!request.fixed && !request.fixed_noreplace)
    return choose_address(length, request.hint, request.below_4g, guard);
  if (!page_aligned(request.hint)) return Err(Errno::Inval);
  if (request.hint > kUserMax - length) return Err(Errno::NoMem);
  if (request.hint < kUserMin) return Err(Errno::Perm);  // vm.mmap_min_addr
  if (request.fixed_noreplace && overlaps(request.hint, request.hint + length))
    return Err(Errno::Exist);
  return request.hint;
}

Result<void> Mm::Private::check_limits(const MmapRequest &request, VirtAddr address,
                                       std::uint64_t pages) {
  std::uint64_t replaced = 0;
  if (request.fixed) {
    const VirtAddr end = address + (pages << kPageShift);
    (void)for_range(address, end, false, [&](Vma &, VirtAddr from, VirtAddr to) -> Result<void> {
      replaced += (to - from) >> kPageShift;
      return {};
    });
  }
  const std::uint64_t total = virtual_pages - replaced + pages;
  if (total > mm.limits.address_space >> kPageShift) return Err(Errno::NoMem);
  const bool writable = has(request.prot, Prot::Write);
  const bool is_private = request.sharing == Sharing::Private;
  if (is_private && writable && !request.grows_down &&
      data_pages + pages > mm.limits.data >> kPageShift)
    return Err(Errno::NoMem);
  if ((request.locked || lock_future) && locked_pages + pages > mm.limits.locked >> kPageShift)
    return Err(Errno::Again);
  // Overcommit as Linux's mode 0: only what can never be there is refused.
  const bool needs_memory = is_private ? writable : !request.cache;
  if (needs_memory && !request.no_reserve && pages > phys().total_pages()) return Err(Errno::NoMem);
  if (areas.size() >= kMaxAreas) return Err(Errno::NoMem);
  return {};
}

Result<VirtAddr> Mm::Private::map_area(MmapRequest &request) {
  if (request.length == 0) return Err(Errno::Inval);
  if (request.length > kUserMax) return Err(Errno::NoMem);
  const std::uint64_t length = page_up(request.length);
  if (!page_aligned(request.offset)) return Err(Errno::Inval);
  if (request.cache && request.offset + length < request.offset) return Err(Errno::Overflow);
  if (!has(request.max_prot, request.prot)) return Err(Errno::Access);
  const VirtAddr address = TRY(place(request, length));
  TRY(check_limits(request, address, length >> kPageShift));
  if (request.fixed) TRY(unmap_range(address, address + length));

  auto area = std::make_unique<Vma>();
  area->start = address;
  area->end = address + length;
  area->prot = request.prot;
  area->max_prot = request.max_prot;
  area->sharing = request.sharing;
  area->kind = request.kind;
  area->grows_down = request.grows_down;
  area->no_reserve = request.no_reserve;
  area->locked = request.locked || lock_future;
  area->cache = std::move(request.cache);
  area->offset = area->cache ? request.offset : 0;
  area->file = std::move(request.file);
  if (!area->cache && area->sharing == Sharing::Shared) {
    area->cache = make_shared_memory(length);
    area->offset = 0;
  }
  insert(std::move(area));
  merge(address, address + length);
  return address;
}

Result<void> Mm::Private::unmap_range(VirtAddr start, VirtAddr end) {
  if (!overlaps(start, end)) return {};
  TRY(split_at(start));
  TRY(split_at(end));
  // The areas' files must outlive the removal of the entries, and are let go after it.
  std::vector<std::unique_ptr<Vma>> gone;
  while (Vma *area = find_above(start)) {
    if (area->start >= end) break;
    gone.push_back(take(*area));
  }
  const bool seen = zap(start, end);
  table.prune(start, end);
  forget_holes(end);
  if (seen) flush_for_others();
  retired->reap();
  return {};
}

// The area above `page` grows down to it, if that is a stack and there is room.
bool Mm::Private::grow_stack(VirtAddr page) {
  Vma *area = find_above(page);
  if (!area || !area->grows_down || area->start <= page) return false;
  const std::uint64_t limit = page_up(std::min(mm.limits.stack, kUserMax));
  if (area->end - page > limit) return false;
  auto below = areas.find(area->start);
  VirtAddr lowest = kUserMin;
  if (below != areas.begin()) {
    const Vma &neighbour = *std::prev(below)->second;
    const bool guarded = neighbour.prot != Prot::None && !neighbour.grows_down;
    lowest = neighbour.end + (guarded ? kStackGuardPages << kPageShift : 0);
  }
  if (area->end > limit) lowest = std::max(lowest, area->end - limit);
  if (page < lowest) return false;
  // A little further than asked for, so that a deep recursion does not fault at every page.
  const VirtAddr wanted = page & ~((kStackGrowPages << kPageShift) - 1);
  const VirtAddr start = std::max(wanted, page_up(lowest));
  const std::uint64_t pages = (area->start - start) >> kPageShift;
  if (virtual_pages + pages > mm.limits.address_space >> kPageShift) return false;
  if (area->locked && locked_pages + pages > mm.limits.locked >> kPageShift) return false;
  resize(*area, start, area->end);
  return true;
}

// --- system calls

Result<VirtAddr> Mm::mmap(MmapRequest request) {
  const std::uint64_t length = request.length;
  bool fill = request.populate || request.locked;
  VirtAddr address = 0;
  {
    SleepLock guard(lock_);
    fill |= private_->lock_future;
    address = TRY(private_->map_area(request));
  }
  if (fill) populate(address, address + page_up(length));
  return address;
}

Result<void> Mm::munmap(VirtAddr address, std::uint64_t length) {
  if (length == 0) return Err(Errno::Inval);
  const VirtAddr end = TRY(range_end(address, length, Errno::Inval));
  SleepLock guard(lock_);
  return private_->unmap_range(address, end);
}

// Makes the entries of an area's part follow its new protection. True when something was taken away
// from what guest code may do.
static bool apply_protection(PageTable &table, AddressSpace &host, const Vma &area, VirtAddr start,
                             VirtAddr end) {
  const std::uint64_t granted = Pte::from_prot(area.prot);
  bool weaker = false;
  ProtectRuns runs(host);
  table.for_each(start, end, [&](VirtAddr page, Pte pte, PageTable::Leaf &leaf) {
    std::uint64_t permissions = granted;
    // Write access that a fault has to grant (copy, or note that the page is dirty) stays away.
    const bool own = pte.has(Pte::kAnon) ? phys().refs(pte.pfn()) == 1
                                         : area.sharing == Sharing::Shared && pte.has(Pte::kShmem);
    if (!pte.has(Pte::kWrite) && !own) permissions &= ~Pte::kWrite;
    if (permissions == pte.permissions()) {
      if (pte.has(Pte::kHosted)) runs.pass(permissions);
      return;
    }
    if (pte.permissions() & ~permissions) weaker = true;
    pte.set_permissions(permissions);
    leaf.set(PageTable::index_of(page), pte);
    if (pte.has(Pte::kHosted)) runs.add(page, permissions);
  });
  return weaker;
}

Result<void> Mm::mprotect(VirtAddr address, std::uint64_t length, Prot prot) {
  const VirtAddr end = TRY(range_end(address, length, Errno::NoMem));
  if (length == 0) return {};
  SleepLock guard(lock_);
  Private &p = *private_;
  bool weaker = false;
  auto change = [&](Vma &area, VirtAddr from, VirtAddr to) -> Result<void> {
    if (!has(area.max_prot, prot)) return Err(Errno::Access);
    if (area.prot == prot) return {};
    const bool becomes_data = area.sharing == Sharing::Private && has(prot, Prot::Write) &&
                              !has(area.prot, Prot::Write) && !area.grows_down;
    if (becomes_data && p.data_pages + ((to - from) >> kPageShift) > limits.data >> kPageShift)
      return Err(Errno::NoMem);
    TRY(p.split_at(from));
    TRY(p.split_at(to));
    Vma &part = *p.find(from);
    p.account(part, false);
    part.prot = prot;
    p.account(part, true);
    weaker |= apply_protection(p.table, *host_, part, from, to);
    return {};
  };
  Result<void> result = p.for_range(address, end, false, change);
  p.merge(address, end);
  if (weaker) p.flush_for_others();
  return result;
}

VirtAddr Mm::brk(VirtAddr new_break) {
  SleepLock guard(lock_);
  Private &p = *private_;
  if (new_break < brk_start || new_break >= kUserMax) return brk_end;
  const VirtAddr old_top = page_up(brk_end);
  const VirtAddr new_top = page_up(new_break);
  if (new_top < old_top) {
    if (!p.unmap_range(new_top, old_top)) return brk_end;
  } else if (new_top > old_top) {
    // RLIMIT_DATA counts the program's data segment and the heap.
    if ((new_break - brk_start) + (data_end - data_start) > limits.data) return brk_end;
    const Vma *next = p.find_above(old_top);
    if (next && Private::guarded_start(*next) < new_top) return brk_end;
    MmapRequest request;
    request.hint = old_top;
    request.length = new_top - old_top;
    request.prot = Prot::Read | Prot::Write;
    request.fixed = true;
    request.kind = VmaKind::Heap;
    if (!p.map_area(request)) return brk_end;
  }
  brk_end = new_break;
  return brk_end;
}

}  // namespace cowbird
