// Life of an address space, its page table entries, and what the rest of the kernel asks it.
#include "mm/mm.hpp"

#include <sys/random.h>

#include <algorithm>

#include "base/log.hpp"
#include "mm/mm_private.hpp"

namespace cowbird {

namespace {

std::uint64_t host_random() {
  std::uint64_t bits = 0;
  // Eight bytes come whole and never block once the host has booted.
  KASSERT(::getrandom(&bits, sizeof bits, 0) == sizeof bits);
  return bits;
}

std::uint64_t (*random_source)() = host_random;

std::uint64_t needed_permission(FaultAccess access) {
  switch (access) {
    case FaultAccess::Read:
      return Pte::kRead;
    case FaultAccess::Write:
      return Pte::kWrite;
    case FaultAccess::Exec:
      return Pte::kExec;
  }
  return Pte::kPermissions;
}

}  // namespace

void set_mm_random(std::uint64_t (*source)()) { random_source = source ? source : host_random; }

std::uint64_t mm_random() { return random_source(); }

Mm::Mm() = default;

Result<Ref<Mm>> Mm::create(Platform &platform) {
  Ref<Mm> mm = Ref<Mm>::adopt(new Mm);
  auto space = platform.new_address_space();
  if (space.is(Errno::Again)) {
    // Those of programs that have ended may not have been given back yet.
    RetireQueue::wait_all();
    space = platform.new_address_space();
  }
  mm->host_ = TRY(std::move(space));
  mm->private_ = std::make_unique<Private>(*mm, platform);
  static std::uint64_t last_id = 0;
  mm->id = ++last_id;
  return mm;
}

Mm::~Mm() {
  if (!private_) return;
  tear_down();
  RetireQueue::abandon(std::move(private_->retired), std::move(host_));
}

void Mm::reap_retired() {
  if (!private_->retired->empty()) private_->retired->reap();
}

// --- entries

void Mm::Private::count(Pte pte, std::int64_t by) {
  std::uint64_t &figure = pte.has(Pte::kAnon)    ? resident_anon
                          : pte.has(Pte::kShmem) ? resident_shmem
                                                 : resident_file;
  figure += static_cast<std::uint64_t>(by);
  peak_resident = std::max(peak_resident, resident_anon + resident_file + resident_shmem);
}

bool Mm::Private::install(VirtAddr page, Pte pte) {
  PageTable::Leaf *leaf = table.ensure_leaf(page);
  if (!leaf) return false;
  leaf->set(PageTable::index_of(page), pte);
  count(pte, 1);
  return true;
}

bool Mm::Private::zap(VirtAddr start, VirtAddr end, bool private_copies) {
  FrameBatch unseen;  // by guest code, so free at once
  FrameBatch seen;
  VirtAddr run_start = 0;
  VirtAddr run_end = 0;  // 0: no run of pages to unmap
  bool any = false;
  auto flush = [&] {
    if (run_end != 0) mm.host_->unmap(run_start, (run_end - run_start) >> kPageShift);
    any |= run_end != 0;
    run_end = 0;
  };
  table.for_each(start, end, [&](VirtAddr page, Pte pte, PageTable::Leaf &leaf) {
    if (!private_copies && pte.has(Pte::kAnon)) {
      flush();
      return;
    }
    if (pte.has(Pte::kHosted)) {
      if (run_end == 0) run_start = page;
      run_end = page + kPageSize;
      seen.add(pte.pfn());
    } else {
      unseen.add(pte.pfn());
    }
    count(pte, -1);
    leaf.set(PageTable::index_of(page), Pte());
  });
  flush();
  retired->retire(std::move(seen));
  return any;
}

void Mm::for_each_page(const Vma &vma, VirtAddr start, VirtAddr end,
                       const std::function<void(VirtAddr, const MappedPage &)> &function) const {
  start = std::max(start, vma.start);
  end = std::min(end, vma.end);
  if (start >= end) return;
  private_->table.for_each(start, end, [&](VirtAddr at, Pte pte, PageTable::Leaf &) {
    MappedPage page;
    page.pfn = pte.pfn();
    page.anonymous = pte.has(Pte::kAnon);
    page.in_memory_only = pte.has(Pte::kShmem);
    // The page cache holds a reference of its own.
    const std::uint64_t refs = phys().refs(page.pfn) - (page.anonymous ? 0u : 1u);
    page.mappings = std::max<std::uint64_t>(refs, 1);
    page.dirty = page.anonymous || page.in_memory_only ||
                 (vma.cache && vma.cache->is_dirty(vma.index_of(at)));
    function(at, page);
  });
}

bool Mm::lookup_page(VirtAddr address, FaultAccess access, Pfn &out) const {
  const Pte pte = private_->table.get(address);
  if (!pte.present() || !pte.has(needed_permission(access))) return false;
  out = pte.pfn();
  return true;
}

bool Mm::unmap_cache_pages(const Vma &vma, std::uint64_t first, std::uint64_t end,
                           bool private_copies) {
  const std::uint64_t vma_first = vma.offset >> kPageShift;
  const std::uint64_t vma_end = vma_first + vma.pages();
  first = std::max(first, vma_first);
  end = std::min(end, vma_end);
  if (first >= end) return false;
  return private_->zap(vma.start + ((first - vma_first) << kPageShift),
                       vma.start + ((end - vma_first) << kPageShift), private_copies);
}

bool Mm::write_protect_cache_page(const Vma &vma, std::uint64_t index) {
  const std::uint64_t vma_first = vma.offset >> kPageShift;
  if (index < vma_first || index - vma_first >= vma.pages()) return false;
  const VirtAddr page = vma.start + ((index - vma_first) << kPageShift);
  Pte pte = private_->table.get(page);
  if (!pte.present() || !pte.has(Pte::kWrite) || pte.has(Pte::kAnon)) return false;
  pte.remove(Pte::kWrite);
  private_->table.set(page, pte);
  if (!pte.has(Pte::kHosted)) return false;
  host_->protect(page, 1, pte.host_prot());
  return true;
}

// --- questions

const Vma *Mm::find_vma(VirtAddr address) const { return private_->find(address); }

void Mm::for_each_vma(const std::function<void(const Vma &)> &function) const {
  for (const auto &[start, area] : private_->areas) function(*area);
}

MmUsage Mm::usage() const {
  const Private &p = *private_;
  MmUsage usage{};
  usage.virtual_pages = p.virtual_pages;
  usage.resident_anon = p.resident_anon;
  usage.resident_file = p.resident_file;
  usage.resident_shared = p.resident_shmem;
  usage.locked_pages = p.locked_pages;
  usage.page_table_pages = p.table.table_pages();
  usage.peak_virtual = p.peak_virtual;
  usage.peak_resident = p.peak_resident;
  for (const auto &[start, area] : p.areas) {
    if (area->grows_down || area->kind == VmaKind::Stack) {
      usage.stack_pages += area->pages();
    } else if (area->is_data()) {
      usage.data_pages += area->pages();
    } else if (has(area->prot, Prot::Exec)) {
      usage.exec_pages += area->pages();
    }
  }
  return usage;
}

}  // namespace cowbird
