// madvise, msync, mlock and mincore.
#include <algorithm>

#include "abi/mman.hpp"
#include "base/log.hpp"
#include "mm/mm_private.hpp"

namespace cowbird {

namespace {

// Readahead that one MADV_WILLNEED may ask for.
constexpr std::uint64_t kWillNeedPages = 1024;

Result<VirtAddr> checked_end(VirtAddr address, std::uint64_t length, Errno outside) {
  if (!page_aligned(address)) return Err(Errno::Inval);
  if (length > kUserMax || address > kUserMax || page_up(length) > kUserMax - address)
    return Err(outside);
  return address + page_up(length);
}

bool is_private_anonymous(const Vma &area) {
  return area.sharing == Sharing::Private && !area.cache;
}

// Advice that sets a property of areas. False when it is another kind.
bool set_property(VmaFields &fields, int advice) {
  switch (advice) {
    case abi::kMADV_NORMAL:
    case abi::kMADV_SEQUENTIAL:
      fields.random_access = false;
      return true;
    case abi::kMADV_RANDOM:
      fields.random_access = true;
      return true;
    case abi::kMADV_DONTFORK:
    case abi::kMADV_DOFORK:
      fields.dont_fork = advice == abi::kMADV_DONTFORK;
      return true;
    case abi::kMADV_DONTDUMP:
    case abi::kMADV_DODUMP:
      fields.dont_dump = advice == abi::kMADV_DONTDUMP;
      return true;
    case abi::kMADV_WIPEONFORK:
    case abi::kMADV_KEEPONFORK:
      fields.wipe_on_fork = advice == abi::kMADV_WIPEONFORK;
      return true;
    default:
      return false;
  }
}

// A part of a file that somebody wants to read, write back or punch.
struct FilePart {
  Ref<PageCache> cache;
  std::uint64_t first;
  std::uint64_t end;
};

FilePart file_part(const Vma &area, VirtAddr from, VirtAddr to) {
  return {area.cache, area.offset + (from - area.start), area.offset + (to - area.start)};
}

void read_ahead(const std::vector<FilePart> &parts) {
  std::uint64_t left = kWillNeedPages;
  for (const FilePart &part : parts) {
    const std::uint64_t size = part.cache->size();
    for (std::uint64_t at = part.first; at < std::min(part.end, size) && left > 0;
         at += kPageSize, --left) {
      Result<Pfn> page = part.cache->get_page(at >> kPageShift);
      if (!page) return;  // it was only advice
      phys().put(*page);
    }
  }
}

}  // namespace

Result<void> Mm::madvise(VirtAddr address, std::uint64_t length, int advice) {
  const bool populates = advice == abi::kMADV_POPULATE_READ || advice == abi::kMADV_POPULATE_WRITE;
  const bool known = (advice >= abi::kMADV_NORMAL && advice <= abi::kMADV_DONTNEED) ||
                     (advice >= abi::kMADV_FREE && advice <= abi::kMADV_DOFORK) ||
                     (advice >= abi::kMADV_DONTDUMP && advice <= abi::kMADV_POPULATE_WRITE);
  if (!known) return Err(Errno::Inval);
  const VirtAddr end = TRY(checked_end(address, length, Errno::Inval));
  if (length == 0) return {};
  if (populates) {
    const FaultAccess access =
        advice == abi::kMADV_POPULATE_WRITE ? FaultAccess::Write : FaultAccess::Read;
    for (VirtAddr page = address; page < end; page += kPageSize) {
      Result<Pfn> pinned = pin_page(page, access);
      if (!pinned) {
        if (!find_vma(page)) return Err(Errno::NoMem);
        return Err(pinned.error());
      }
      phys().put(*pinned);
    }
    return {};
  }

  std::vector<FilePart> wanted;
  std::vector<FilePart> holes;
  Result<void> result;
  {
    SleepLock guard(lock_);
    Private &p = *private_;
    bool seen = false;
    auto advise = [&](Vma &area, VirtAddr from, VirtAddr to) -> Result<void> {
      if ((advice == abi::kMADV_FREE || advice == abi::kMADV_WIPEONFORK) &&
          !is_private_anonymous(area))
        return Err(Errno::Inval);
      VmaFields changed = area;
      if (set_property(changed, advice)) {
        TRY(p.split_at(from));
        TRY(p.split_at(to));
        set_property(*p.find(from), advice);
        return {};
      }
      if (advice == abi::kMADV_WILLNEED) {
        if (area.cache) wanted.push_back(file_part(area, from, to));
        return {};
      }
      if (area.locked) return Err(Errno::Inval);
      if (advice == abi::kMADV_REMOVE) {
        if (!area.cache || area.sharing != Sharing::Shared || !has(area.max_prot, Prot::Write))
          return Err(area.cache ? Errno::Access : Errno::Inval);
        if (!area.cache->is_memory_only()) return Err(Errno::OpNotSupp);
        holes.push_back(file_part(area, from, to));
      } else if (advice == abi::kMADV_DONTNEED || advice == abi::kMADV_FREE) {
        seen |= p.zap(from, to);
      } else if (area.cache) {
        // COLD and PAGEOUT: there is no swap, so only pages of files can be let go of.
        seen |= p.zap(from, to, false);
      }
      return {};
    };
    result = p.for_range(address, end, false, advise);
    p.merge(address, end);
    if (seen) {
      p.flush_for_others();
      p.retired->reap();
    }
  }
  read_ahead(wanted);
  for (const FilePart &hole : holes) hole.cache->truncate_range(hole.first, hole.end);
  return result;
}

Result<void> Mm::msync(VirtAddr address, std::uint64_t length, int flags) {
  if (flags & ~(abi::kMS_ASYNC | abi::kMS_INVALIDATE | abi::kMS_SYNC)) return Err(Errno::Inval);
  if ((flags & abi::kMS_ASYNC) && (flags & abi::kMS_SYNC)) return Err(Errno::Inval);
  const VirtAddr end = TRY(checked_end(address, length, Errno::NoMem));
  if (length == 0) return {};
  std::vector<FilePart> parts;
  Result<void> mapped;
  {
    SleepLock guard(lock_);
    auto collect = [&](Vma &area, VirtAddr from, VirtAddr to) -> Result<void> {
      if ((flags & abi::kMS_INVALIDATE) && area.locked) return Err(Errno::Busy);
      if ((flags & abi::kMS_SYNC) && area.cache && area.sharing == Sharing::Shared)
        parts.push_back(file_part(area, from, to));
      return {};
    };
    mapped = private_->for_range(address, end, false, collect);
  }
  // A hole is reported after what is mapped was stored.
  for (const FilePart &part : parts) TRY(part.cache->write_back(part.first, part.end - 1));
  return mapped;
}

Result<void> Mm::mlock(VirtAddr address, std::uint64_t length, bool lock, bool on_fault) {
  const std::uint64_t in_page = address & kPageMask;
  if (length > kUserMax) return Err(Errno::NoMem);
  const VirtAddr start = address - in_page;
  const VirtAddr end = TRY(checked_end(start, length + in_page, Errno::NoMem));
  if (length == 0) return {};
  Result<void> result;
  {
    SleepLock guard(lock_);
    Private &p = *private_;
    if (lock) {
      std::uint64_t fresh = 0;
      (void)p.for_range(start, end, false, [&](Vma &area, VirtAddr from, VirtAddr to) {
        if (!area.locked) fresh += (to - from) >> kPageShift;
        return Result<void>();
      });
      if (limits.locked == 0) return Err(Errno::Perm);
      if (p.locked_pages + fresh > limits.locked >> kPageShift) return Err(Errno::NoMem);
    }
    auto change = [&](Vma &area, VirtAddr from, VirtAddr to) -> Result<void> {
      if (area.locked == lock) return {};
      TRY(p.split_at(from));
      TRY(p.split_at(to));
      Vma &part = *p.find(from);
      p.account(part, false);
      part.locked = lock;
      p.account(part, true);
      return {};
    };
    result = p.for_range(start, end, false, change);
    p.merge(start, end);
  }
  if (lock && !on_fault) populate(start, end);
  return result;
}

Result<void> Mm::mlock_all(bool current, bool future, bool on_fault) {
  {
    SleepLock guard(lock_);
    Private &p = *private_;
    if (limits.locked == 0) return Err(Errno::Perm);
    if (current && p.virtual_pages > limits.locked >> kPageShift) return Err(Errno::NoMem);
    p.lock_future = future;
    if (!current) return {};
    for (auto &[start, area] : p.areas) {
      p.account(*area, false);
      area->locked = true;
      p.account(*area, true);
    }
    p.merge(kUserMin, kUserMax);
  }
  if (on_fault) return {};
  // The areas may change while pages are read in.
  for (VirtAddr at = kUserMin; const Vma *area = private_->find_above(at);) {
    at = area->end;
    populate(area->start, area->end);
  }
  return {};
}

void Mm::munlock_all() {
  SleepLock guard(lock_);
  Private &p = *private_;
  p.lock_future = false;
  for (auto &[start, area] : p.areas) {
    p.account(*area, false);
    area->locked = false;
    p.account(*area, true);
  }
  p.merge(kUserMin, kUserMax);
}

Result<void> Mm::mincore(VirtAddr address, std::uint64_t length, std::vector<std::uint8_t> &out) {
  const VirtAddr end = TRY(checked_end(address, length, Errno::NoMem));
  SleepLock guard(lock_);
  out.clear();
  Private &p = *private_;
  return p.for_range(address, end, false, [&](Vma &area, VirtAddr from, VirtAddr to) {
    for (VirtAddr page = from; page < to; page += kPageSize) {
      Pfn pfn = 0;
      const bool resident = p.table.get(page).present() ||
                            (area.cache && area.cache->find_page(area.index_of(page), pfn));
      out.push_back(resident ? 1 : 0);
    }
    return Result<void>();
  });
}

}  // namespace cowbird
