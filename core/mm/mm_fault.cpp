// Page faults: finding out what an access needs, and giving it with as few orders to the engine as
// possible, since an order costs far more than a page.
#include <algorithm>
#include <cstring>

#include "base/log.hpp"
#include "mm/mm_private.hpp"

namespace cowbird {

namespace {

// The aligned window of `pages` pages around `page`, cut to the area.
struct Window {
  VirtAddr start;
  VirtAddr end;
};

Window window_around(const Vma &area, VirtAddr page, std::uint64_t pages) {
  const std::uint64_t bytes = pages << kPageShift;
  const VirtAddr start = page & ~(bytes - 1);
  return {std::max(start, area.start), std::min(start + bytes, area.end)};
}

bool permitted(const Vma &area, FaultAccess access) {
  switch (access) {
    case FaultAccess::Read:
      return area.prot != Prot::None;
    case FaultAccess::Write:
      return has(area.prot, Prot::Write);
    case FaultAccess::Exec:
      return has(area.prot, Prot::Exec);
  }
  return false;
}

// A page that keeps vanishing while it is read in (its file is truncated and grown again) gives the
// access back to the program after so many tries; it faults again.
constexpr int kTries = 16;

}  // namespace

FaultOutcome Mm::handle_fault(VirtAddr address, FaultAccess access) {
  return resolve_fault(address, access, false);
}

FaultOutcome Mm::resolve_fault(VirtAddr address, FaultAccess access, bool forced) {
  if (address < kUserMin || address >= kUserMax) return FaultOutcome::NoMapping;
  const VirtAddr page = page_down(address);
  bool relieved = false;
  bool major = false;
  for (int i = 0; i < kTries; ++i) {
    FaultNeed need;
    FaultOutcome outcome;
    {
      SleepLock guard(lock_);
      // What was there must not be taken for zeros.
      if (private_->was_taken) return FaultOutcome::Interrupted;
      outcome = private_->fault_once(page, access, forced, need);
    }
    if (outcome == FaultOutcome::OutOfMemory && !relieved) {
      relieved = true;
      relieve_shortage();
      continue;
    }
    if (outcome != FaultOutcome::Resolved || !need.cache) {
      if (outcome == FaultOutcome::Resolved) ++(major ? major_faults : minor_faults);
      return outcome;
    }
    // The page has to be read in, without the lock; everything is looked up again after.
    major |= !need.cache->is_memory_only();
    Result<Pfn> read = need.cache->get_page(need.index);
    if (read) {
      // Its reference may go: should reclaim be faster than we are, it is read once more.
      phys().put(*read);
      continue;
    }
    switch (read.error()) {
      case Errno::NoMem:
        return FaultOutcome::OutOfMemory;
      case Errno::Intr:
      case Errno::RestartSys:
        return FaultOutcome::Interrupted;
      default:
        return FaultOutcome::IoError;
    }
  }
  return FaultOutcome::Resolved;
}

// One try under lock(). Resolved with `need` filled in: that page first.
FaultOutcome Mm::Private::fault_once(VirtAddr page, FaultAccess access, bool forced,
                                     FaultNeed &need) {
  Vma *area = find(page);
  if (!area && grow_stack(page)) area = find(page);
  if (!area) return FaultOutcome::NoMapping;
  if (!permitted(*area, access)) {
    // Shared memory shows a forced write to others; a read harms nobody.
    if (!forced || (access == FaultAccess::Write && area->sharing == Sharing::Shared))
      return FaultOutcome::NoAccess;
  }
  const Pte pte = table.get(page);
  if (pte.present()) return fault_present(*area, page, pte, access, forced);
  if (!area->cache) return fault_anon(*area, page);
  return fault_cache(*area, page, access, need);
}

FaultOutcome Mm::Private::fault_present(Vma &area, VirtAddr page, Pte pte, FaultAccess access,
                                        bool forced) {
  if (access == FaultAccess::Write && !pte.has(Pte::kWrite)) {
    if (area.sharing == Sharing::Shared) return make_shared_writable(area, page, pte);
    return make_own(area, page, pte, forced);
  }
  // All is well in our tables: the engine does not have the page, or has not had it yet.
  rehost(area, page);
  return FaultOutcome::Resolved;
}

// --- anonymous memory

FaultOutcome Mm::Private::fault_anon(Vma &area, VirtAddr page) {
  if (page == next_anon) {
    anon_window = std::min(anon_window * 2, kAnonAroundMaxPages);
  } else {
    anon_window = kAnonAroundPages;
  }
  Window window{page, page + kPageSize};
  if (phys().plentiful(anon_window)) {
    window = anon_window == kAnonAroundPages
                 ? window_around(area, page, anon_window)
                 : Window{page, std::min(area.end, page + (anon_window << kPageShift))};
  }
  VirtAddr start = page;
  while (start > window.start && !table.get(start - kPageSize).present()) start -= kPageSize;
  VirtAddr end = page + kPageSize;
  while (end < window.end && !table.get(end).present()) end += kPageSize;

  Result<PageRun> run = phys().alloc_run((end - start) >> kPageShift, Zero::Yes);
  if (!run) return FaultOutcome::OutOfMemory;
  // Fewer frames than asked for: those from the faulting page on.
  if (run->count < (end - start) >> kPageShift) {
    start = std::min(page, end - (run->count << kPageShift));
    end = start + (run->count << kPageShift);
  }
  const std::uint64_t flags = Pte::from_prot(area.prot) | Pte::kAnon | Pte::kHosted;
  std::uint64_t installed = 0;
  while (installed < run->count &&
         install(start + (installed << kPageShift), Pte(run->first + installed, flags)))
    ++installed;
  if (installed != 0) mm.host_->map(start, run->first, installed, Pte::to_prot(flags), true);
  for (std::uint64_t i = installed; i < run->count; ++i) phys().put(run->first + i);
  if (start + (installed << kPageShift) <= page) return FaultOutcome::OutOfMemory;
  next_anon = end;
  return FaultOutcome::Resolved;
}

// --- files and shared memory

FaultOutcome Mm::Private::fault_cache(Vma &area, VirtAddr page, FaultAccess access,
                                      FaultNeed &need) {
  PageCache &cache = *area.cache;
  const std::uint64_t index = area.index_of(page);
  if (index >= (cache.size() + kPageMask) >> kPageShift) return FaultOutcome::BeyondEnd;
  Pfn pfn = 0;
  if (!cache.find_page(index, pfn)) {
    need.cache = area.cache;
    need.index = index;
    return FaultOutcome::Resolved;
  }
  if (access == FaultAccess::Write && area.sharing == Sharing::Private)
    return copy_page(area, page, pfn, Pte());
  if (access == FaultAccess::Write) cache.mark_dirty(index);
  map_cached_around(area, page, access);
  return table.get(page).present() ? FaultOutcome::Resolved : FaultOutcome::OutOfMemory;
}

// Maps the page and those of its neighbours that are cached already.
void Mm::Private::map_cached_around(Vma &area, VirtAddr page, FaultAccess access) {
  PageCache &cache = *area.cache;
  const std::uint64_t pages = area.random_access ? 1 : kFileAroundPages;
  const Window window = window_around(area, page, pages);
  const std::uint64_t cache_end = (cache.size() + kPageMask) >> kPageShift;
  const bool memory_only = cache.is_memory_only();
  const bool shared = area.sharing == Sharing::Shared;
  HostRuns runs(*mm.host_);
  for (VirtAddr at = window.start; at < window.end; at += kPageSize) {
    const std::uint64_t index = area.index_of(at);
    Pfn pfn = 0;
    if (index >= cache_end || table.get(at).present() || !cache.find_page(index, pfn)) continue;
    std::uint64_t flags = Pte::from_prot(area.prot) | Pte::kHosted;
    if (memory_only) flags |= Pte::kShmem;
    // A page of a file may be written only once it is known to be dirty.
    const bool may_write = shared && (memory_only || cache.is_dirty(index) ||
                                      (at == page && access == FaultAccess::Write));
    if (!may_write) flags &= ~Pte::kWrite;
    phys().get(pfn);
    if (!install(at, Pte(pfn, flags))) {
      phys().put(pfn);
      return;
    }
    runs.add(at, Pte(pfn, flags));
  }
}

FaultOutcome Mm::Private::make_shared_writable(Vma &area, VirtAddr page, Pte pte) {
  area.cache->mark_dirty(area.index_of(page));
  pte.add(Pte::kWrite);
  table.set(page, pte);
  if (pte.has(Pte::kHosted)) {
    mm.host_->protect(page, 1, pte.host_prot());
  } else {
    rehost(area, page);
  }
  return FaultOutcome::Resolved;
}

// --- copy on write

// Gives the area a copy of `source` at `page`, in place of `old` when that is present.
FaultOutcome Mm::Private::copy_page(Vma &area, VirtAddr page, Pfn source, Pte old) {
  Result<Pfn> own = phys().alloc(Zero::No);
  if (!own) return FaultOutcome::OutOfMemory;
  std::memcpy(phys().data(*own), phys().data(source), kPageSize);
  const std::uint64_t flags = Pte::from_prot(area.prot) | Pte::kAnon | Pte::kHosted;
  if (old.present()) {
    count(old, -1);
    table.set(page, Pte());
  }
  if (!install(page, Pte(*own, flags))) {
    phys().put(*own);
    return FaultOutcome::OutOfMemory;
  }
  mm.host_->map(page, *own, 1, Pte::to_prot(flags), true);
  if (!old.present()) return FaultOutcome::Resolved;
  FrameBatch replaced;
  replaced.add(old.pfn());
  if (old.has(Pte::kHosted)) {
    retired->retire(std::move(replaced));
    // Another thread must not go on reading the old page after this one has written.
    flush_for_others();
  }
  return FaultOutcome::Resolved;
}

// Write access to a private page that is present without it. `forced`: for a debugger, where the
// program itself may not write; the page becomes its own but stays read-only for it.
FaultOutcome Mm::Private::make_own(Vma &area, VirtAddr page, Pte pte, bool forced) {
  if (pte.has(Pte::kAnon)) {
    learn_from_fault(page);
    // The other references may be those of a child that has exited.
    if (phys().refs(pte.pfn()) > 1 && !RetireQueue::all_empty()) RetireQueue::reap_all();
    if (phys().refs(pte.pfn()) == 1) {
      if (!forced || has(area.prot, Prot::Write)) reuse_around(area, page);
      return FaultOutcome::Resolved;
    }
  }
  return copy_page(area, page, pte.pfn(), pte);
}

// Pages of the program alone, write-protected by a fork whose child is gone: the faulting one and
// its neighbours become writable again.
void Mm::Private::reuse_around(Vma &area, VirtAddr page) {
  const Window window = window_around(area, page, kReuseAroundPages);
  bool hosted = false;
  {
    ProtectRuns runs(*mm.host_);
    table.for_each(window.start, window.end, [&](VirtAddr at, Pte pte, PageTable::Leaf &leaf) {
      const bool own = pte.has(Pte::kAnon) && phys().refs(pte.pfn()) == 1;
      if (!own || pte.has(Pte::kWrite)) {
        if (pte.has(Pte::kHosted)) runs.pass(pte.permissions());
        return;
      }
      pte.add(Pte::kWrite);
      leaf.set(PageTable::index_of(at), pte);
      if (pte.has(Pte::kHosted)) runs.add(at, pte.permissions());
      if (at == page) hosted = pte.has(Pte::kHosted);
    });
  }
  if (!hosted) rehost(area, page);
}

// --- the engine's side

// Maps the page, which our tables have, and neighbours that the engine was not told of.
void Mm::Private::rehost(Vma &area, VirtAddr page) {
  const Window window = window_around(area, page, kRehostPages);
  // Told but not there: the engine has dropped mappings, so the neighbours are mapped again too.
  const bool dropped = table.get(page).has(Pte::kHosted);
  HostRuns runs(*mm.host_);
  table.for_each(window.start, window.end, [&](VirtAddr at, Pte pte, PageTable::Leaf &leaf) {
    if (pte.has(Pte::kHosted) && !dropped) return;
    pte.add(Pte::kHosted);
    leaf.set(PageTable::index_of(at), pte);
    runs.add(at, pte);
  });
}

// --- for the kernel's own accesses

Result<Pfn> Mm::pin_page(VirtAddr address, FaultAccess access) {
  for (int i = 0; i < kTries; ++i) {
    Pfn pfn = 0;
    if (lookup_page(address, access, pfn)) {
      phys().get(pfn);
      return pfn;
    }
    switch (handle_fault(address, access)) {
      case FaultOutcome::Resolved:
        break;
      case FaultOutcome::OutOfMemory:
        return Err(Errno::NoMem);
      case FaultOutcome::Interrupted:
        return Err(Errno::Intr);
      default:
        return Err(Errno::Fault);
    }
  }
  return Err(Errno::Fault);
}

Result<Pfn> Mm::pin_page_forced(VirtAddr address) {
  const Vma *area = find_vma(address);
  if (!area) return Err(Errno::Fault);
  if (has(area->prot, Prot::Write) || area->sharing == Sharing::Shared)
    return pin_page(address, FaultAccess::Write);
  for (int i = 0; i < kTries; ++i) {
    // Only a frame that is the program's alone may change.
    const Pte pte = private_->table.get(address);
    if (pte.present() && pte.has(Pte::kAnon) && phys().refs(pte.pfn()) == 1) {
      phys().get(pte.pfn());
      return pte.pfn();
    }
    const FaultOutcome outcome = resolve_fault(address, FaultAccess::Write, true);
    if (outcome == FaultOutcome::OutOfMemory) return Err(Errno::NoMem);
    if (outcome != FaultOutcome::Resolved) return Err(Errno::Fault);
  }
  return Err(Errno::Fault);
}

Result<Pfn> Mm::pin_page_to_peek(VirtAddr address) {
  for (int i = 0; i < kTries; ++i) {
    const Pte pte = private_->table.get(page_down(address));
    if (pte.present()) {
      phys().get(pte.pfn());
      return pte.pfn();
    }
    const FaultOutcome outcome = resolve_fault(address, FaultAccess::Read, true);
    if (outcome == FaultOutcome::OutOfMemory) return Err(Errno::NoMem);
    if (outcome != FaultOutcome::Resolved) return Err(Errno::Fault);
  }
  return Err(Errno::Fault);
}

// Makes the pages of a range present, as far as that goes; errors show at the access. The range is
// the guest's and may be the whole address space: what is not mapped, or cannot be present, is
// passed over area by area.
void Mm::populate(VirtAddr start, VirtAddr end) {
  for (VirtAddr page = start; page < end;) {
    const Vma *area = private_->find_above(page);
    if (!area) return;
    page = std::max(page, area->start);
    const VirtAddr area_end = area->end;
    if (page >= end) return;
    if (area->prot == Prot::None) {
      page = area_end;
      continue;
    }
    const bool copy = area->sharing == Sharing::Private && has(area->prot, Prot::Write);
    const FaultAccess access = copy ? FaultAccess::Write : FaultAccess::Read;
    Pfn pfn = 0;
    if (lookup_page(page, access, pfn)) {
      page += kPageSize;
      continue;
    }
    switch (handle_fault(page, access)) {
      case FaultOutcome::Resolved:
        page += kPageSize;
        break;
      case FaultOutcome::OutOfMemory:
      case FaultOutcome::Interrupted:
        return;
      default:  // the rest of this area is beyond the file's end, or as bad
        page = area_end;
        break;
    }
    const Thread *self = current_thread();
    if (self && self->fatal_signal_pending()) return;
  }
}

}  // namespace cowbird
