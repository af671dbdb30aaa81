// Pages of a file (or of shared anonymous memory), by index, in physical memory: what read/write
// copy from and to, and what file and shared mappings map. A PageCache belongs to its inode (or to
// a shared anonymous mapping) and outlives it while mappings hold references.
//
// All functions need the big kernel lock; those that fill pages may sleep.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/list.hpp"
#include "base/ref.hpp"
#include "base/result.hpp"
#include "mm/iov_iter.hpp"
#include "mm/phys_memory.hpp"
#include "sched/wait.hpp"

namespace cowbird {

class Mm;
class Vma;

// A mapping of a cache, as the cache sees it; the base of Vma.
struct CacheMapping {
  ListNode cache_link;
};

class PageCache : public RefCounted<PageCache> {
 public:
  virtual ~PageCache();

  // Size of the object in bytes: accesses of mappings beyond its last page are SIGBUS, reads stop
  // there.
  virtual std::uint64_t size() const = 0;

  // The frame of page `index`, filled; the caller gets a reference of its own. Sleeps while another
  // thread fills the same page. Io, NoMem, NoSpc (a memory file system over its limit).
  Result<Pfn> get_page(std::uint64_t index);
  // As get_page, but a page that is about to be overwritten whole is not filled.
  Result<Pfn> get_page_for_overwrite(std::uint64_t index);
  // The frame if it is cached and filled, without a reference; never fills.
  bool find_page(std::uint64_t index, Pfn &out) const;
  std::uint64_t cached_pages() const { return pages_.size(); }
  // The lowest cached index >= `from`; false when there is none. Linear in the cached pages.
  bool next_cached(std::uint64_t from, std::uint64_t &out) const;

  // Copies between the object and a transfer, up to size() for reads; writes are the caller's to
  // bound and grow (set the size after). Return what was transferred; an error only when that is
  // nothing.
  Result<std::uint64_t> read(std::uint64_t offset, IovIter &to);
  Result<std::uint64_t> write(std::uint64_t offset, IovIter &from);

  void mark_dirty(std::uint64_t index);
  // Writes dirty pages of the byte range back (hostfs, block); sleeps. Pages that another thread
  // is writing back are waited for. The first error, after all pages were tried.
  Result<void> write_back(std::uint64_t first_byte, std::uint64_t last_byte);
  // After the object shrank to `new_size`, or a hole was punched: pages that lie wholly in [first,
  // last) bytes leave the cache and every mapping; partial pages at the ends are zeroed in the
  // range.
  void truncate_range(std::uint64_t first_byte, std::uint64_t last_byte);
  // Drops clean, unmapped pages, those that were not used since the last call first met them;
  // returns how many. Never sleeps.
  std::uint64_t drop_clean(std::uint64_t wanted);
  // Dirty pages of this object.
  std::uint64_t dirty_pages() const { return dirty_; }
  bool is_dirty(std::uint64_t index) const;
  // The pages live here only (tmpfs, shared memory).
  bool is_memory_only() const { return memory_only(); }

  // Kept by mm/: the mappings of this object, for truncation.
  void add_vma(Vma &vma);
  void remove_vma(Vma &vma);
  // Somebody may write through a shared mapping, now or after mprotect (memfd's F_SEAL_WRITE).
  bool has_shared_writable_mapping();

 protected:
  PageCache();
  // Reads the page from where it is stored into `pfn`, which holds zeroes; sleeps. Without it pages
  // start as zeroes.
  virtual Result<void> fill_page(std::uint64_t index, Pfn pfn);
  // Reads `pages` pages at once into frames that lie side by side (the kernel sees them as one
  // piece of memory): at most fill_batch() of them. Objects for which one large read is cheaper
  // than many small ones override both.
  virtual Result<void> fill_pages(std::uint64_t index, Pfn first, std::uint64_t pages);
  virtual std::uint64_t fill_batch() const { return 1; }
  // Stores the first `bytes` bytes of a dirty page. Objects that live in memory only keep the
  // default (which is never called for them since memory_only() is true).
  virtual Result<void> store_page(std::uint64_t index, Pfn pfn, std::uint64_t bytes);
  // The cache is the storage: pages are never dropped by reclaim and never written back.
  virtual bool memory_only() const { return false; }
  // Pages that are not cached are known to be zero, so that reading them needs no frame.
  virtual bool holes_read_as_zero() const { return memory_only(); }
  // A new page is about to join / has left: tmpfs accounts its limit here (NoSpc).
  virtual Result<void> charge(std::uint64_t /*pages*/) { return {}; }
  virtual void uncharge(std::uint64_t /*pages*/) {}
  // Lets all pages go, also dirty ones. A class that overrides uncharge() calls it in its
  // destructor; the base's destructor cannot reach the override any more.
  void drop_all();

 private:
  friend std::uint64_t reclaim_page_cache(std::uint64_t wanted);
  friend Result<void> write_back_all();
  struct Entry {
    Pfn pfn;
    bool dirty = false;
    bool filling = false;     // not to be used yet; waiters sleep on changed_
    bool writing = false;     // being stored
    bool referenced = false;  // used since reclaim last looked
  };
  using Pages = std::unordered_map<std::uint64_t, Entry>;

  Result<Pfn> get_page_internal(std::uint64_t index, bool fill);
  Result<Pfn> add_pages(std::uint64_t index, bool fill, bool &again);
  struct Window {
    std::uint64_t first, count;
  };
  Window fill_window(std::uint64_t index, bool fill) const;
  void finish_fill(std::uint64_t index, PageRun run, bool ok);
  Result<std::uint64_t> write_piece(std::uint64_t index, std::uint64_t in_page, std::uint64_t bytes,
                                    IovIter &from);
  Result<std::uint64_t> write_new_page(std::uint64_t index, IovIter &from);
  Result<void> balance_dirty();
  Result<void> write_back_batch(const std::vector<std::uint64_t> &indices);
  std::vector<std::uint64_t> dirty_in(std::uint64_t first, std::uint64_t last) const;
  void set_dirty(Entry &entry, bool dirty);
  void erase_entry(Pages::iterator entry);
  void zero_partial(std::uint64_t first_byte, std::uint64_t last_byte);
  void unmap_everywhere(std::uint64_t first_index, std::uint64_t end_index, bool private_copies);
  void write_protect_everywhere(const std::vector<std::uint64_t> &indices);

  Pages pages_;
  std::uint64_t dirty_ = 0;
  List<CacheMapping, &CacheMapping::cache_link> mappings_;
  WaitQueue changed_;  // a fill or a store has ended
  ListNode all_link_;  // every page cache

  using All = List<PageCache, &PageCache::all_link_>;
  static All &all();
};

// Drops clean page-cache pages of all objects; the reclaimer of PhysMemory. Never sleeps.
std::uint64_t reclaim_page_cache(std::uint64_t wanted);
// Stores all dirty pages of all objects (sync(2), shortage of memory); sleeps. The first error.
Result<void> write_back_all();
// Pages of all caches and dirty ones among them, for /proc/meminfo.
struct PageCacheTotals {
  std::uint64_t pages, memory_only_pages, dirty_pages;
};
PageCacheTotals page_cache_totals();

}  // namespace cowbird
