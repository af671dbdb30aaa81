// Copying an address space for fork, and taking one down.
#include <cstring>

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
    // Another thread of the parent could write while a page is copied.
    PagesToCopy to_copy(*from.fork_history, users <= 1 && phys().plentiful(ForkHistory::kPages));
    to.fork_history = from.fork_history;
    from.fork_learns = to.fork_learns = kForkLearns;
    for (const auto &[start, area] : from.areas) {
      if (area->dont_fork) continue;
      auto copy = std::make_unique<Vma>(*static_cast<VmaFields *>(area.get()));
      copy->locked = false;  // memory locks are not inherited
      to.insert(std::move(copy));
      if (!area->wipe_on_fork) enough = enough && from.copy_entries(*area, to, to_copy, child_runs);
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
bool Mm::Private::copy_entries(const Vma &area, Private &child, PagesToCopy &to_copy,
                               HostRuns &child_runs) {
  const bool is_private = area.sharing == Sharing::Private;
  // Few of the pages that the child may write are read first, and they lie apart in memory: an
  // order for each costs more than the faults that it saves.
  const bool map_in_child = !is_private || !has(area.prot, Prot::Write);
  ProtectRuns protects(*mm.host_);
  bool enough = true;
  table.for_each(area.start, area.end, [&](VirtAddr page, Pte pte, PageTable::Leaf &leaf) {
    if (!enough) return;
    const bool writable = is_private && pte.has(Pte::kWrite);
    // A page that is still the file's goes on showing what the file gets.
    if (!map_in_child && pte.has(Pte::kAnon) && to_copy.contains(page) &&
        copy_now(area, page, pte, child, child_runs)) {
      if (pte.has(Pte::kHosted)) protects.pass(pte.permissions());
      return;
    }
    if (writable) {
      pte.remove(Pte::kWrite);
      leaf.set(PageTable::index_of(page), pte);
      if (pte.has(Pte::kHosted)) protects.add(page, pte.permissions());
    } else if (pte.has(Pte::kHosted)) {
      protects.pass(pte.permissions());
    }
    Pte copy = pte;
    copy.remove(Pte::kHosted);
    if (map_in_child && pte.has(Pte::kHosted) && child_runs.add(page, copy)) copy.add(Pte::kHosted);
    phys().get(pte.pfn());
    enough = child.install(page, copy);
    if (!enough) phys().put(pte.pfn());
  });
  return enough;
}

bool Mm::Private::copy_now(const Vma &area, VirtAddr page, Pte pte, Private &child,
                           HostRuns &child_runs) {
  if (!child.table.ensure_leaf(page)) return false;
  const Result<Pfn> own = phys().alloc(Zero::No);
  if (!own) return false;
  std::memcpy(phys().data(*own), phys().data(pte.pfn()), kPageSize);
  Pte copy(*own, Pte::from_prot(area.prot) | Pte::kAnon);
  if (child_runs.add(page, copy)) copy.add(Pte::kHosted);
  return child.install(page, copy);
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

bool Mm::take_from_killed() {
  if (!lock_.try_lock()) return false;
  const SleepUnlock guard(lock_);
  private_->was_taken = true;
  for (const auto &[start, area] : private_->areas) {
    if (area->sharing == Sharing::Private) private_->zap(area->start, area->end);
  }
  host_->flush();
  return true;
}

bool Mm::taken_from_killed() const { return private_->was_taken; }

}  // namespace cowbird
