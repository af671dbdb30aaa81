#include "mm/balloon.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "mm/page_cache.hpp"
#include "mm/phys_memory.hpp"
#include "mm/retire.hpp"
#include "sched/bkl.hpp"

namespace cowbird::balloon {

namespace {

// The frames, in the order in which they were taken; each run is one hole. Protected by the big
// kernel lock.
std::vector<PageRun> &runs() {
  static auto *const list = new std::vector<PageRun>;
  return *list;
}

// What grow() leaves for the guest to go on with, above what the allocator keeps for itself.
std::uint64_t spared_pages() {
  return phys().reserve_pages() + std::clamp<std::uint64_t>(phys().total_pages() / 64, 16, 1024);
}

// Nobody else knows the frames now, so the lock is not needed.
int punch(PageRun run) {
  const BklReleased released;
  const int done = ::fallocate(phys().fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               static_cast<off_t>(run.first << kPageShift),
                               static_cast<off_t>(run.count << kPageShift));
  return done == 0 ? 0 : errno;
}

void put_run(PageRun run) {
  for (Pfn pfn = run.first; pfn < run.first + run.count; ++pfn) phys().put(pfn);
}

std::uint64_t take_free(std::uint64_t wanted, std::string &error) {
  std::uint64_t taken = 0;
  while (taken < wanted && error.empty()) {
    // alloc_run() would reclaim by itself, but only when nothing is left at all.
    const std::uint64_t spared = spared_pages();
    std::uint64_t free = phys().free_pages();
    if (free <= spared) {
      reclaim_page_cache(wanted - taken + spared - free);
      free = phys().free_pages();
    }
    if (free <= spared) break;
    const auto run = phys().alloc_run(std::min(wanted - taken, free - spared), Zero::No);
    if (!run) break;
    if (const int why = punch(*run); why != 0) {
      put_run(*run);
      error = fmt::format("The host does not take the memory back: {}.",
                          errno_text(errno_from_host(why)));
      break;
    }
    runs().push_back(*run);
    taken += run->count;
  }
  return taken;
}

}  // namespace

std::uint64_t pages() {
  std::uint64_t count = 0;
  for (const PageRun &run : runs()) count += run.count;
  return count;
}

std::uint64_t grow(std::uint64_t wanted, std::string &error) {
  std::uint64_t taken = take_free(wanted, error);
  if (taken == wanted || !error.empty()) return taken;
  // What is dirty can be dropped once it is stored, and what left an address space once the engine
  // has proved it. A file that cannot be stored keeps its pages; that is told to who wrote them.
  static_cast<void>(write_back_all());
  RetireQueue::wait_all();
  // Pages that were used of late are met twice before they go.
  for (int round = 0; round < 2 && taken < wanted && error.empty(); ++round) {
    taken += take_free(wanted - taken, error);
  }
  return taken;
}

std::uint64_t shrink(std::uint64_t wanted) {
  std::uint64_t given = 0;
  while (given < wanted && !runs().empty()) {
    PageRun &last = runs().back();
    const std::uint64_t count = std::min(wanted - given, last.count);
    last.count -= count;
    put_run({last.first + last.count, count});
    given += count;
    if (last.count == 0) runs().pop_back();
  }
  return given;
}

}  // namespace cowbird::balloon
