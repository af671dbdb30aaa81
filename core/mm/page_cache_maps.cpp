// What a page cache does about the mappings of its pages, and writing back, which has to stop guest
// code from writing to a page first.
#include <algorithm>
#include <cstring>

#include "base/log.hpp"
#include "mm/mm_private.hpp"
#include "mm/page_cache.hpp"

namespace cowbird {

namespace {

// Address spaces whose engine side has to catch up before guest code of other threads has lost
// what was taken away. Waiting drops the big kernel lock.
class Laggards {
 public:
  void add(Mm &mm) {
    if (mms_.empty() || mms_.back() != &mm) mms_.emplace_back(Ref<Mm>(&mm));
  }
  void wait() {
    Thread *self = current_thread();
    for (const Ref<Mm> &mm : mms_) {
      // The caller's own thread passes the changes before it runs guest code again.
      if (self && self->active_mm == mm.get() && mm->users <= 1) continue;
      mm->host().synchronize(mm->host().sync_point());
    }
  }

 private:
  std::vector<Ref<Mm>> mms_;
};

}  // namespace

void PageCache::add_vma(Vma &vma) { mappings_.push_back(vma); }

void PageCache::remove_vma(Vma &vma) { List<CacheMapping, &CacheMapping::cache_link>::remove(vma); }

bool PageCache::has_shared_writable_mapping() {
  for (CacheMapping &mapping : mappings_) {
    const Vma &vma = static_cast<Vma &>(mapping);
    if (vma.sharing == Sharing::Shared && has(vma.max_prot, Prot::Write)) return true;
  }
  return false;
}

void PageCache::unmap_everywhere(std::uint64_t first_index, std::uint64_t end_index,
                                 bool private_copies) {
  Laggards laggards;
  for (CacheMapping &mapping : mappings_) {
    Vma &vma = static_cast<Vma &>(mapping);
    if (vma.mm->unmap_cache_pages(vma, first_index, end_index, private_copies))
      laggards.add(*vma.mm);
  }
  laggards.wait();
}

void PageCache::write_protect_everywhere(const std::vector<std::uint64_t> &indices) {
  Laggards laggards;
  for (CacheMapping &mapping : mappings_) {
    Vma &vma = static_cast<Vma &>(mapping);
    if (vma.sharing != Sharing::Shared) continue;
    bool changed = false;
    for (std::uint64_t index : indices) changed |= vma.mm->write_protect_cache_page(vma, index);
    if (changed) laggards.add(*vma.mm);
  }
  laggards.wait();
}

void PageCache::zero_partial(std::uint64_t first_byte, std::uint64_t last_byte) {
  const std::uint64_t index = first_byte >> kPageShift;
  Pfn pfn = 0;
  if (first_byte >= last_byte || !find_page(index, pfn)) return;
  std::memset(phys().data(pfn) + (first_byte & kPageMask), 0, last_byte - first_byte);
}

void PageCache::truncate_range(std::uint64_t first_byte, std::uint64_t last_byte) {
  if (first_byte >= last_byte) return;
  const std::uint64_t first = (first_byte >> kPageShift) + ((first_byte & kPageMask) != 0);
  const std::uint64_t end = last_byte >> kPageShift;
  if (first > end) {
    zero_partial(first_byte, last_byte);  // within one page
    return;
  }
  zero_partial(first_byte, first << kPageShift);
  if (last_byte != ~0ull) zero_partial(end << kPageShift, last_byte);
  if (first == end) return;
  if (end - first <= pages_.size()) {
    for (std::uint64_t index = first; index < end; ++index)
      if (auto found = pages_.find(index); found != pages_.end()) erase_entry(found);
  } else {
    for (auto it = pages_.begin(); it != pages_.end();) {
      auto current = it++;
      if (current->first >= first && current->first < end) erase_entry(current);
    }
  }
  changed_.wake_all();
  // Private copies go when the file ends before them, and stay over a hole.
  unmap_everywhere(first, end, first_byte >= size());
}

std::vector<std::uint64_t> PageCache::dirty_in(std::uint64_t first, std::uint64_t last) const {
  std::vector<std::uint64_t> indices;
  if (dirty_ == 0) return indices;
  for (const auto &[index, entry] : pages_)
    if (entry.dirty && !entry.writing && index >= first && index <= last) indices.push_back(index);
  std::sort(indices.begin(), indices.end());
  return indices;
}

Result<void> PageCache::write_back(std::uint64_t first_byte, std::uint64_t last_byte) {
  if (memory_only()) return {};
  const std::uint64_t first = first_byte >> kPageShift;
  const std::uint64_t last = last_byte >> kPageShift;
  const Ref<PageCache> keep(this);
  Result<void> result = write_back_batch(dirty_in(first, last));
  // Another thread may be storing some of the pages just now.
  auto stored = [&] {
    return std::none_of(pages_.begin(), pages_.end(), [&](const auto &page) {
      return page.second.writing && page.first >= first && page.first <= last;
    });
  };
  Result<void> waited = wait_event(changed_, stored, SleepMode::Killable, "page_write_back");
  return result ? waited : result;
}

Result<void> PageCache::write_back_batch(const std::vector<std::uint64_t> &indices) {
  if (indices.empty()) return {};
  std::vector<Pfn> frames;
  for (std::uint64_t index : indices) {
    Entry &entry = pages_.find(index)->second;
    entry.writing = true;
    set_dirty(entry, false);
    phys().get(entry.pfn);
    frames.push_back(entry.pfn);
  }
  // From here on a write through a mapping faults and makes the page dirty again.
  write_protect_everywhere(indices);
  Result<void> result;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    auto same = [&] {
      auto found = pages_.find(indices[i]);
      return found != pages_.end() && found->second.pfn == frames[i] ? found : pages_.end();
    };
    const std::uint64_t start = indices[i] << kPageShift;
    if (same() != pages_.end() && start < size()) {
      Result<void> stored = store_page(indices[i], frames[i], std::min(kPageSize, size() - start));
      if (auto found = same(); found != pages_.end() && !stored) set_dirty(found->second, true);
      if (!stored && result) result = Err(stored.error());
    }
    if (auto found = same(); found != pages_.end()) found->second.writing = false;
    phys().put(frames[i]);
  }
  changed_.wake_all();
  return result;
}

Result<void> write_back_all() {
  std::vector<Ref<PageCache>> caches;
  for (PageCache &cache : PageCache::all())
    if (cache.dirty_pages() != 0 && cache.ref_count() != 0) caches.emplace_back(&cache);
  Result<void> result;
  for (const Ref<PageCache> &cache : caches) {
    Result<void> stored = cache->write_back(0, ~0ull);
    if (!stored && result) result = Err(stored.error());
  }
  return result;
}

namespace {

class SharedMemory final : public PageCache {
 public:
  explicit SharedMemory(std::uint64_t bytes) : bytes_(bytes) {}
  ~SharedMemory() override { drop_all(); }  // while it is known to be memory only
  std::uint64_t size() const override { return bytes_; }

 protected:
  bool memory_only() const override { return true; }
  // Neighbours come with a page, for the sake of mapping them in one go.
  std::uint64_t fill_batch() const override { return kAnonAroundPages; }

 private:
  std::uint64_t bytes_;
};

}  // namespace

Ref<PageCache> make_shared_memory(std::uint64_t bytes) {
  return Ref<PageCache>::adopt(new SharedMemory(bytes));
}

}  // namespace cowbird
