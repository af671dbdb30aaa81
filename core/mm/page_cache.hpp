// Pages of a file (or of shared anonymous memory), by index, in physical memory: what read/write
// copy from and to, and what file and shared mappings map. A PageCache belongs to its inode (or to
// a shared anonymous mapping) and outlives it while mappings hold references.
//
// All functions need the big kernel lock; those that fill pages may sleep.
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>

#include "base/list.hpp"
#include "base/ref.hpp"
#include "base/result.hpp"
#include "mm/iov_iter.hpp"
#include "mm/phys_memory.hpp"

namespace cowbird {

class Vma;

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
  // The frame if it is cached, without a reference; never fills.
  bool find_page(std::uint64_t index, Pfn &out) const;
  std::uint64_t cached_pages() const { return pages_.size(); }

  // Copies between the object and a transfer, up to size() for reads; writes are the caller's to
  // bound and grow (set the size after). Return what was transferred; an error only when that is
  // nothing.
  Result<std::uint64_t> read(std::uint64_t offset, IovIter &to);
  Result<std::uint64_t> write(std::uint64_t offset, IovIter &from);

  void mark_dirty(std::uint64_t index);
  // Writes dirty pages of the byte range back (hostfs, block); sleeps.
  Result<void> write_back(std::uint64_t first_byte, std::uint64_t last_byte);
  // After the object shrank to `new_size`, or a hole was punched: pages that lie wholly in [first,
  // last) bytes leave the cache and every mapping; partial pages at the ends are zeroed in the
  // range.
  void truncate_range(std::uint64_t first_byte, std::uint64_t last_byte);
  // Drops clean, unmapped pages; returns how many.
  std::uint64_t drop_clean(std::uint64_t wanted);

  // Kept by mm/: the mappings of this object, for truncation.
  void add_vma(Vma &vma);
  void remove_vma(Vma &vma);

 protected:
  PageCache() = default;
  // Reads the page from where it is stored into `pfn`, which holds zeroes; sleeps. Without it pages
  // start as zeroes.
  virtual Result<void> fill_page(std::uint64_t index, Pfn pfn);
  // Stores a dirty page. Objects that live in memory only keep the default (which is never called
  // for them since memory_only() is true).
  virtual Result<void> store_page(std::uint64_t index, Pfn pfn, std::uint64_t bytes);
  // The cache is the storage: pages are never dropped by reclaim and never written back.
  virtual bool memory_only() const { return false; }
  // A new page is about to join / has left: tmpfs accounts its limit here (NoSpc).
  virtual Result<void> charge(std::uint64_t /*pages*/) { return {}; }
  virtual void uncharge(std::uint64_t /*pages*/) {}

 private:
  struct Entry {
    Pfn pfn;
    bool dirty;
    bool filling;
  };
  Result<Pfn> get_page_internal(std::uint64_t index, bool fill);
  std::unordered_map<std::uint64_t, Entry> pages_;
  std::vector<Vma *> vmas_;
};

}  // namespace cowbird
