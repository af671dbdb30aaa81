// Copying an address space for fork, and taking one down.
#include "base/log.hpp"
#include "mm/mm_private.hpp"

namespace cowbird {

Result<Ref<Mm>> Mm::fork() {
  Ref<Mm> child = TRY(create(private_->platform));
  child->limits = limits;
  SleepLock guard(lock_);
  Private &from = *private_;
  Private &to = *child->private_;
  to.mmap_base = from.mmap_base;
  to.search_top = from.mmap_base;
  child->brk_start = brk_start, child->brk_end = brk_end;
  child->stack_top = stack_top;
  child->code_start = code_start, child->code_end = code_end;
  child->data_start = data_start, child->data_end = data_end;
  child->arg_start = arg_start, child->arg_end = arg_end;
  child->env_start = env_start, child->env_end = env_end;
  child->auxv = auxv;
  child->exe = exe;

  bool enough = true;
  {
    HostRuns child_runs(*child->host_, kForkMapRuns);
    for (const auto &[start, area] : from.areas) {
      if (area->dont_fork) continue;
      auto copy = std::make_unique<Vma>(*static_cast<VmaFields *>(area.get()));
      copy->locked = false;  // memory locks are not inherited
      to.insert(std::move(copy));
      if (!area->wipe_on_fork) enough = enough && from.copy_entries(*area, to, child_runs);
    }
  }
  // The child must not run, nor a frame that it shares be used, before the parent has lost its
  // write access. Sleeps; lock() keeps other threads of the parent from breaking copies meanwhile.
  host_->synchronize(host_->sync_point());
  RetireQueue::reap_all();
  if (!enough) return Err(Errno::NoMem);  // ~Mm gives back what the child has got
  return child;
}

// Copies the entries of one area. Private pages become read-only on both sides: the first write of
// either makes a copy. False when there is no room for the page tables.
bool Mm::Private::copy_entries(const Vma &area, Private &child, HostRuns &child_runs) {
  const bool is_private = area.sharing == Sharing::Private;
  // One order takes write access from all of the area's pages: they have the same protection then.
  VirtAddr first_written = 0;
  VirtAddr last_written = 0;
  bool enough = true;
  table.for_each(area.start, area.end, [&](VirtAddr page, Pte pte, PageTable::Leaf &leaf) {
    if (!enough) return;
    if (is_private && pte.has(Pte::kWrite)) {
      pte.remove(Pte::kWrite);
      leaf.set(PageTable::index_of(page), pte);
      if (pte.has(Pte::kHosted)) {
        if (first_written == 0) first_written = page;
        last_written = page;
      }
    }
    Pte copy = pte;
    copy.remove(Pte::kHosted);
    if (pte.has(Pte::kHosted) && child_runs.add(page, copy)) copy.add(Pte::kHosted);
    phys().get(pte.pfn());
    enough = child.install(page, copy);
    if (!enough) phys().put(pte.pfn());
  });
  if (first_written != 0) {
    const std::uint64_t permissions = Pte::from_prot(area.prot) & ~Pte::kWrite;
    mm.host_->protect(first_written, ((last_written - first_written) >> kPageShift) + 1,
                      Pte::to_prot(permissions));
  }
  return enough;
}

void Mm::tear_down() {
  Private &p = *private_;
  if (p.areas.empty()) return;
  FrameBatch unseen;
  FrameBatch seen;
  p.table.for_each(kUserMin, kUserMax, [&](VirtAddr page, Pte pte, PageTable::Leaf &leaf) {
    (pte.has(Pte::kHosted) ? seen : unseen).add(pte.pfn());
    leaf.set(PageTable::index_of(page), Pte());
  });
  p.table.prune(kUserMin, kUserMax);
  p.resident_anon = p.resident_file = p.resident_shmem = 0;
  // The files are let go last, when no entry has a page of theirs.
  Private::Areas areas;
  while (!p.areas.empty()) {
    std::unique_ptr<Vma> area = p.take(*p.areas.begin()->second);
    areas.emplace(area->start, std::move(area));
  }
  p.next_anon = 0;
  p.search_top = p.mmap_base;
  p.largest_skipped = 0;
  if (!seen.empty()) {
    host_->unmap(kUserMin, (kUserMax - kUserMin) >> kPageShift);
    p.retired->retire(std::move(seen));
    host_->flush();
  }
  RetireQueue::reap_all();
}

}  // namespace cowbird
