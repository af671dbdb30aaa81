// mremap: changing the size and the place of a mapping.
#include <algorithm>

#include "abi/mman.hpp"
#include "base/log.hpp"
#include "mm/mm_private.hpp"

namespace cowbird {

struct RemapRequest {
  VirtAddr old_address;
  std::uint64_t old_length;
  std::uint64_t new_length;
  std::uint32_t flags;
  VirtAddr new_address;

  Result<void> check() const {
    if (flags & ~(abi::kMREMAP_MAYMOVE | abi::kMREMAP_FIXED | abi::kMREMAP_DONTUNMAP))
      return Err(Errno::Inval);
    if ((flags & (abi::kMREMAP_FIXED | abi::kMREMAP_DONTUNMAP)) && !(flags & abi::kMREMAP_MAYMOVE))
      return Err(Errno::Inval);
    if ((flags & abi::kMREMAP_DONTUNMAP) && old_length != new_length) return Err(Errno::Inval);
    if (!page_aligned(old_address) || new_length == 0) return Err(Errno::Inval);
    if (old_address > kUserMax || old_length > kUserMax - old_address) return Err(Errno::Inval);
    if (!(flags & abi::kMREMAP_FIXED)) return {};
    if (!page_aligned(new_address) || new_address > kUserMax - new_length || new_address < kUserMin)
      return Err(Errno::Inval);
    if (old_address < new_address + new_length && new_address < old_address + old_length)
      return Err(Errno::Inval);
    return {};
  }
};

// A larger or additional mapping has to be within the limits.
static Result<void> check_growth(const Mm &mm, const Vma &area, std::uint64_t pages,
                                 std::uint64_t virtual_pages, std::uint64_t data_pages,
                                 std::uint64_t locked_pages) {
  if (virtual_pages + pages > mm.limits.address_space >> kPageShift) return Err(Errno::NoMem);
  if (area.is_data() && data_pages + pages > mm.limits.data >> kPageShift) return Err(Errno::NoMem);
  if (area.locked && locked_pages + pages > mm.limits.locked >> kPageShift)
    return Err(Errno::Again);
  if (area.is_data() && !area.no_reserve && pages > phys().total_pages()) return Err(Errno::NoMem);
  return {};
}

// Moves the entries of [from, from + length) to `to`. False, with nothing moved, when there is no
// room for the page tables.
bool Mm::Private::move_entries(VirtAddr from, VirtAddr to, std::uint64_t length) {
  std::vector<std::pair<VirtAddr, Pte>> moved;
  bool enough = true;
  VirtAddr first_seen = 0;
  VirtAddr last_seen = 0;
  table.for_each(from, from + length, [&](VirtAddr page, Pte pte, PageTable::Leaf &) {
    moved.emplace_back(page, pte);
    if (!pte.has(Pte::kHosted)) return;
    if (first_seen == 0) first_seen = page;
    last_seen = page;
  });
  for (const auto &[page, pte] : moved) enough = enough && table.ensure_leaf(page - from + to);
  if (!enough) {
    table.prune(to, to + length);
    return false;
  }
  if (first_seen != 0) mm.host_->unmap(first_seen, ((last_seen - first_seen) >> kPageShift) + 1);
  {
    HostRuns runs(*mm.host_, kForkMapRuns);
    for (auto &[page, pte] : moved) {
      const VirtAddr target = page - from + to;
      table.set(page, Pte());
      const bool was_hosted = pte.has(Pte::kHosted);
      pte.remove(Pte::kHosted);
      if (was_hosted && runs.add(target, pte)) pte.add(Pte::kHosted);
      table.set(target, pte);
    }
  }
  table.prune(from, from + length);
  if (first_seen != 0) flush_for_others();
  return true;
}

Result<VirtAddr> Mm::Private::move_area(const RemapRequest &request, Vma &area) {
  const VirtAddr old = request.old_address;
  const std::uint64_t kept = std::min(request.old_length, request.new_length);
  const bool stays = request.old_length == 0 || (request.flags & abi::kMREMAP_DONTUNMAP);
  const std::uint64_t more = (request.new_length - (stays ? 0 : kept)) >> kPageShift;
  TRY(check_growth(mm, area, more, virtual_pages, data_pages, locked_pages));
  if (areas.size() + 3 > kMaxAreas) return Err(Errno::NoMem);
  auto moved = std::make_unique<Vma>(static_cast<VmaFields &>(area));
  if (moved->cache) moved->offset += old - area.start;
  VirtAddr target = request.new_address;
  if (request.flags & abi::kMREMAP_FIXED) {
    TRY(unmap_range(target, target + request.new_length));
  } else {
    target = TRY(choose_address(request.new_length, request.new_address, false, 0));
  }
  moved->start = target;
  moved->end = target + request.new_length;
  insert(std::move(moved));
  if (kept != 0 && !move_entries(old, target, kept)) {
    TRY(unmap_range(target, target + request.new_length));
    return Err(Errno::NoMem);
  }
  if (!stays) {
    TRY(unmap_range(old, old + request.old_length));
  } else if (request.flags & abi::kMREMAP_DONTUNMAP) {
    // The old place stays mapped, empty, and is not locked any more.
    TRY(split_at(old));
    TRY(split_at(old + request.old_length));
    Vma &left = *find(old);
    account(left, false);
    left.locked = false;
    account(left, true);
    merge(old, old + request.old_length);
  }
  merge(target, target + request.new_length);
  return target;
}

Result<VirtAddr> Mm::Private::remap(const RemapRequest &request) {
  const VirtAddr old = request.old_address;
  Vma *area = find(old);
  if (!area) return Err(Errno::Fault);
  if (request.old_length == 0 &&
      (area->sharing != Sharing::Shared || !(request.flags & abi::kMREMAP_MAYMOVE)))
    return Err(Errno::Inval);
  if (request.old_length > area->end - old) return Err(Errno::Fault);
  if (area->cache && request.new_length > ~area->offset - (old - area->start))
    return Err(Errno::Inval);
  const VirtAddr old_end = old + request.old_length;
  if (!(request.flags & (abi::kMREMAP_FIXED | abi::kMREMAP_DONTUNMAP)) && request.old_length != 0) {
    if (request.new_length <= request.old_length) {
      TRY(unmap_range(old + request.new_length, old_end));
      return old;
    }
    const VirtAddr new_end = old + request.new_length;
    const Vma *next = find_above(area->end);
    if (old_end == area->end && new_end <= kUserMax && (!next || guarded_start(*next) >= new_end)) {
      TRY(check_growth(mm, *area, (new_end - old_end) >> kPageShift, virtual_pages, data_pages,
                       locked_pages));
      const VirtAddr start = area->start;
      resize(*area, start, new_end);
      merge(start, new_end);
      return old;
    }
    if (!(request.flags & abi::kMREMAP_MAYMOVE)) return Err(Errno::NoMem);
  }
  return move_area(request, *area);
}

Result<VirtAddr> Mm::mremap(VirtAddr old_address, std::uint64_t old_length,
                            std::uint64_t new_length, std::uint32_t flags, VirtAddr new_address) {
  if (old_length > kUserMax || new_length > kUserMax) return Err(Errno::Inval);
  const RemapRequest request{old_address, page_up(old_length), page_up(new_length), flags,
                             new_address};
  TRY(request.check());
  VirtAddr result = 0;
  bool locked = false;
  {
    SleepLock guard(lock_);
    result = TRY(private_->remap(request));
    const Vma *area = find_vma(result);
    locked = area && area->locked;
  }
  if (locked) populate(result, result + request.new_length);
  return result;
}

}  // namespace cowbird
