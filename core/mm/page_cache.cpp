#include "mm/page_cache.hpp"

#include <algorithm>
#include <cstring>

#include "base/log.hpp"
#include "mm/mm_private.hpp"

namespace cowbird {

namespace {

PageCacheTotals totals;

}  // namespace

PageCacheTotals page_cache_totals() { return totals; }

PageCache::All &PageCache::all() {
  static All list;
  return list;
}

PageCache::PageCache() { all().push_back(*this); }

PageCache::~PageCache() {
  KASSERT(mappings_.empty());
  drop_all();
}

void PageCache::drop_all() {
  while (!pages_.empty()) erase_entry(pages_.begin());
}

void PageCache::set_dirty(Entry &entry, bool dirty) {
  if (entry.dirty == dirty) return;
  entry.dirty = dirty;
  // As on Linux, who writes is charged when the page becomes one that must be stored.
  if (Thread *writer = dirty ? current_thread() : nullptr) {
    writer->io.storage_written_bytes += kPageSize;
  }
  dirty_ += dirty ? 1 : ~0ull;
  totals.dirty_pages += dirty ? 1 : ~0ull;
}

void PageCache::erase_entry(Pages::iterator entry) {
  set_dirty(entry->second, false);
  phys().put(entry->second.pfn);
  pages_.erase(entry);
  --totals.pages;
  if (memory_only()) --totals.memory_only_pages;
  uncharge(1);
}

bool PageCache::find_page(std::uint64_t index, Pfn &out) const {
  auto found = pages_.find(index);
  if (found == pages_.end() || found->second.filling) return false;
  const_cast<Entry &>(found->second).referenced = true;
  out = found->second.pfn;
  return true;
}

bool PageCache::next_cached(std::uint64_t from, std::uint64_t &out) const {
  bool found = false;
  for (const auto &[index, entry] : pages_) {
    if (index < from || (found && index >= out)) continue;
    out = index;
    found = true;
  }
  return found;
}

bool PageCache::is_dirty(std::uint64_t index) const {
  auto found = pages_.find(index);
  return found != pages_.end() && found->second.dirty;
}

void PageCache::mark_dirty(std::uint64_t index) {
  if (memory_only()) return;
  auto found = pages_.find(index);
  if (found != pages_.end()) set_dirty(found->second, true);
}

Result<void> PageCache::fill_page(std::uint64_t, Pfn) { return {}; }

Result<void> PageCache::fill_pages(std::uint64_t index, Pfn first, std::uint64_t pages) {
  for (std::uint64_t i = 0; i < pages; ++i) TRY(fill_page(index + i, first + i));
  return {};
}

Result<void> PageCache::store_page(std::uint64_t, Pfn, std::uint64_t) {
  return Err(Errno::Io);  // not memory_only(), and nowhere to store
}

Result<Pfn> PageCache::get_page(std::uint64_t index) { return get_page_internal(index, true); }

Result<Pfn> PageCache::get_page_for_overwrite(std::uint64_t index) {
  return get_page_internal(index, false);
}

Result<Pfn> PageCache::get_page_internal(std::uint64_t index, bool fill) {
  bool relieved = false;
  for (;;) {
    auto found = pages_.find(index);
    if (found == pages_.end()) {
      bool again = false;
      Result<Pfn> added = add_pages(index, fill, again);
      if (again) continue;
      if (!added.is(Errno::NoMem) || relieved) return added;
      relieved = true;
      if (!relieve_shortage()) return added;
    } else if (!found->second.filling) {
      found->second.referenced = true;
      phys().get(found->second.pfn);
      return found->second.pfn;
    } else {
      auto filled = [this, index] {
        auto entry = pages_.find(index);
        return entry == pages_.end() || !entry->second.filling;
      };
      TRY(wait_event(changed_, filled, SleepMode::Killable, "page_fill"));
    }
  }
}

// The pages to read together with one that is not cached: its aligned batch, as far as that is not
// cached either. Aligned, so that a program's pages, asked for in any order, come to lie in few
// runs of frames: each run costs an order to the engine whenever it is mapped.
PageCache::Window PageCache::fill_window(std::uint64_t index, bool fill) const {
  const std::uint64_t end = (size() + kPageMask) >> kPageShift;
  const std::uint64_t batch = std::max<std::uint64_t>(fill_batch(), 1);
  if (!fill || index >= end || !phys().plentiful(batch)) return {index, 1};
  const std::uint64_t low = index - index % batch;
  const std::uint64_t high = std::min(low + batch, end);
  std::uint64_t first = index;
  while (first > low && !pages_.contains(first - 1)) --first;
  std::uint64_t after = index + 1;
  while (after < high && !pages_.contains(after)) ++after;
  return {first, after - first};
}

// Makes the page, filled, with a reference for the caller. `again` when it has gone meanwhile.
Result<Pfn> PageCache::add_pages(std::uint64_t index, bool fill, bool &again) {
  const bool stored = index < ((size() + kPageMask) >> kPageShift);
  Window window = fill_window(index, fill);
  Result<void> charged = charge(window.count);
  if (!charged && window.count > 1) {
    window = {index, 1};
    charged = charge(1);
  }
  if (!charged) return Err(charged.error());
  Result<PageRun> allocated = phys().alloc_run(window.count, Zero::Yes);
  if (!allocated) {
    uncharge(window.count);
    return Err(allocated.error());
  }
  const PageRun run = *allocated;
  if (run.count < window.count) uncharge(window.count - run.count);
  // Fewer frames than asked for: those pages that end with the wanted one.
  const std::uint64_t first = std::max(window.first, index + 1 - std::min(index + 1, run.count));
  const Pfn wanted = run.first + (index - first);
  const bool reads = fill && stored;
  for (std::uint64_t i = 0; i < run.count; ++i) {
    Entry entry{run.first + i};
    entry.filling = reads;
    entry.referenced = first + i == index;
    pages_.emplace(first + i, entry);
    phys().get(run.first + i);  // ours, while the cache may lose the page
  }
  totals.pages += run.count;
  if (memory_only()) totals.memory_only_pages += run.count;
  Result<void> filled;
  if (reads) {
    filled = run.count == 1 ? fill_page(first, run.first) : fill_pages(first, run.first, run.count);
    finish_fill(first, run, filled.ok());
    Thread *reader = filled && !memory_only() ? current_thread() : nullptr;
    if (reader) reader->io.storage_read_bytes += run.count * kPageSize;
  }
  const auto kept = pages_.find(index);
  again = filled.ok() && (kept == pages_.end() || kept->second.pfn != wanted);
  for (std::uint64_t i = 0; i < run.count; ++i) {
    if (run.first + i != wanted) phys().put(run.first + i);
  }
  if (filled && !again) return wanted;
  phys().put(wanted);
  return Err(filled ? Errno::Again : filled.error());
}

void PageCache::finish_fill(std::uint64_t index, PageRun run, bool ok) {
  for (std::uint64_t i = 0; i < run.count; ++i) {
    auto entry = pages_.find(index + i);
    // Truncation may have taken the page, and somebody may have begun a new one in its place.
    if (entry == pages_.end() || entry->second.pfn != run.first + i) continue;
    if (!ok) {
      erase_entry(entry);
      continue;
    }
    entry->second.filling = false;
    // What is stored may reach beyond the end, when the object shrank while it was read.
    const std::uint64_t end = size();
    const std::uint64_t start = (index + i) << kPageShift;
    if (end < start + kPageSize) {
      const std::uint64_t keep = end > start ? end - start : 0;
      std::memset(phys().data(run.first + i) + keep, 0, kPageSize - keep);
    }
  }
  changed_.wake_all();
}

Result<std::uint64_t> PageCache::read(std::uint64_t offset, IovIter &to) {
  std::uint64_t done = 0;
  while (to.remaining() > 0) {
    const std::uint64_t end = size();
    if (offset + done < offset || offset + done >= end) break;
    const std::uint64_t at = offset + done;
    const std::uint64_t in_page = at & kPageMask;
    const std::uint64_t bytes = std::min({kPageSize - in_page, end - at, to.remaining()});
    Pfn pfn = 0;
    Result<std::uint64_t> copied = std::uint64_t{0};
    if (!find_page(at >> kPageShift, pfn) && holes_read_as_zero() &&
        !pages_.contains(at >> kPageShift)) {
      copied = to.zero(bytes);
    } else {
      Result<Pfn> page = get_page(at >> kPageShift);
      if (!page) return done ? Result<std::uint64_t>(done) : Err(page.error());
      copied = to.copy_to(phys().bytes(*page).subspan(in_page, bytes));
      phys().put(*page);
    }
    if (!copied) return done ? Result<std::uint64_t>(done) : Err(copied.error());
    done += *copied;
    if (*copied < bytes) break;
  }
  return done;
}

Result<std::uint64_t> PageCache::write(std::uint64_t offset, IovIter &from) {
  std::uint64_t done = 0;
  while (from.remaining() > 0) {
    if (offset + done < offset) break;
    const std::uint64_t at = offset + done;
    const std::uint64_t in_page = at & kPageMask;
    const std::uint64_t bytes = std::min(kPageSize - in_page, from.remaining());
    Result<std::uint64_t> copied = write_piece(at >> kPageShift, in_page, bytes, from);
    if (!copied) return done ? Result<std::uint64_t>(done) : Err(copied.error());
    done += *copied;
    if (*copied < bytes) break;
  }
  // An error of the store shows at fsync, as the pages stay dirty.
  if (!memory_only()) (void)balance_dirty();
  return done;
}

Result<std::uint64_t> PageCache::write_piece(std::uint64_t index, std::uint64_t in_page,
                                             std::uint64_t bytes, IovIter &from) {
  if (bytes == kPageSize && !pages_.contains(index)) return write_new_page(index, from);
  const Pfn pfn = TRY(get_page(index));
  Result<std::uint64_t> copied = from.copy_from(phys().bytes(pfn).subspan(in_page, bytes));
  phys().put(pfn);
  if (copied && *copied > 0) mark_dirty(index);
  return copied;
}

// A whole page that is not cached: the bytes go to a frame that nobody else sees until it is
// complete, so that neither a fault on the way nor a reader finds a page that is half filled.
Result<std::uint64_t> PageCache::write_new_page(std::uint64_t index, IovIter &from) {
  TRY(charge(1));
  Result<Pfn> allocated = phys().alloc(Zero::No);
  if (allocated.is(Errno::NoMem) && relieve_shortage()) allocated = phys().alloc(Zero::No);
  if (!allocated) {
    uncharge(1);
    return Err(allocated.error());
  }
  const Pfn pfn = *allocated;
  Result<std::uint64_t> copied = from.copy_from(phys().bytes(pfn));
  if (copied && *copied == kPageSize && !pages_.contains(index)) {
    Entry entry{pfn};
    entry.referenced = true;
    auto added = pages_.emplace(index, entry).first;
    ++totals.pages;
    if (memory_only()) {
      ++totals.memory_only_pages;
    } else {
      set_dirty(added->second, true);
    }
    return copied;
  }
  uncharge(1);
  if (copied && *copied > 0) {
    Result<Pfn> page = get_page(index);
    if (page) {
      std::memcpy(phys().data(*page), phys().data(pfn), *copied);
      phys().put(*page);
      mark_dirty(index);
    } else {
      from.revert(*copied);
      copied = Err(page.error());
    }
  }
  phys().put(pfn);
  return copied;
}

// A writer that makes pages dirty faster than they are stored does the storing itself.
Result<void> PageCache::balance_dirty() {
  if (totals.dirty_pages <= std::max<std::uint64_t>(phys().total_pages() / 5, 64)) return {};
  return write_back(0, ~0ull);
}

std::uint64_t PageCache::drop_clean(std::uint64_t wanted) {
  if (memory_only()) return 0;
  std::uint64_t dropped = 0;
  for (auto it = pages_.begin(); it != pages_.end() && dropped < wanted;) {
    Entry &entry = it->second;
    auto current = it++;
    if (entry.dirty || entry.filling || entry.writing || phys().refs(entry.pfn) != 1) continue;
    if (entry.referenced) {
      entry.referenced = false;
      continue;
    }
    erase_entry(current);
    ++dropped;
  }
  return dropped;
}

std::uint64_t reclaim_page_cache(std::uint64_t wanted) {
  auto &list = PageCache::all();
  std::uint64_t dropped = 0;
  // The second round takes also what was used lately.
  for (int round = 0; round < 2 && dropped < wanted; ++round) {
    for (std::size_t left = list.size(); left > 0 && dropped < wanted; --left) {
      PageCache &cache = *list.front();
      PageCache::All::remove(cache);
      list.push_back(cache);
      dropped += cache.drop_clean(wanted - dropped);
    }
  }
  return dropped;
}

bool relieve_shortage() {
  if (RetireQueue::wait_all() > 0) return true;
  if (totals.dirty_pages == 0) return false;
  (void)write_back_all();  // what could not be stored stays dirty, and is reported at fsync
  return reclaim_page_cache(256) > 0;
}

}  // namespace cowbird
