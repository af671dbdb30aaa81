#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <set>

#include "unit/mm_support.hpp"

using namespace cowbird;
using namespace cowbird::mm_test;

MM_TEST("physical memory is a sealed file of the right size") {
  Machine machine(64);
  CHECK(phys().total_pages() == 64);
  CHECK(phys().free_pages() == 64);
  CHECK(::ftruncate(phys().fd(), 4096) != 0);
  const int seals = ::fcntl(phys().fd(), F_GET_SEALS);
  CHECK((seals & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW));
  // The engine maps it executable.
  void *code = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, phys().fd(), 0);
  CHECK(code != MAP_FAILED);
  ::munmap(code, 4096);
}

MM_TEST("too little memory is refused with a sentence") {
  std::string why;
  CHECK(PhysMemory::create(4096, why).is(Errno::Inval));
  CHECK(why.find("64 KiB") != std::string::npos);
}

MM_TEST("frames are handed out once, zeroed when asked, and come back") {
  Machine machine(200);
  std::set<Pfn> frames;
  for (;;) {
    Result<Pfn> pfn = phys().alloc(Zero::Yes);
    if (!pfn) break;
    CHECK(frames.insert(*pfn).second);
    CHECK(std::all_of(phys().bytes(*pfn).begin(), phys().bytes(*pfn).end(),
                      [](std::byte b) { return b == std::byte{0}; }));
    std::memset(phys().data(*pfn), 0xaa, kPageSize);
  }
  CHECK(frames.size() == 200 - phys().reserve_pages());
  CHECK(phys().alloc(Zero::No).is(Errno::NoMem));
  Result<Pfn> last = phys().alloc(Zero::No, true);
  REQUIRE(last);
  phys().put(*last);
  for (Pfn pfn : frames) phys().put(pfn);
  CHECK(phys().free_pages() == 200);
  // All joined again: a run as long as the largest block is to be had, and it is zero.
  Result<PageRun> run = phys().alloc_run(128, Zero::Yes);
  REQUIRE(run);
  CHECK(run->count == 128);
  for (Pfn pfn = run->first; pfn < run->first + run->count; ++pfn)
    CHECK(phys().data(pfn)[17] == std::byte{0});
}

MM_TEST("runs are contiguous and take what is left") {
  Machine machine(256);
  Result<PageRun> odd = phys().alloc_run(11, Zero::No);
  REQUIRE(odd);
  CHECK(odd->count == 11);
  CHECK(phys().free_pages() == 256 - 11);
  std::uint64_t got = 0;
  while (Result<PageRun> run = phys().alloc_run(64, Zero::No)) got += run->count;
  CHECK(got == 256 - 11 - phys().reserve_pages());
}

MM_TEST("references keep a frame; reclaim is asked when memory is short") {
  Machine machine(64);
  Result<Pfn> pfn = phys().alloc(Zero::No);
  REQUIRE(pfn);
  phys().get(*pfn);
  phys().put(*pfn);
  CHECK(phys().refs(*pfn) == 1);
  static Pfn hoard = 0;
  hoard = *pfn;
  phys().add_reclaimer([](std::uint64_t) -> std::uint64_t {
    if (hoard == ~0ull) return 0;
    phys().put(hoard);
    hoard = ~0ull;
    return 1;
  });
  while (hoard != ~0ull) REQUIRE(phys().alloc(Zero::No));
}

MM_TEST("the buddy allocator agrees with a model") {
  Machine machine(512);
  std::mt19937 random(7);
  std::vector<PageRun> held;
  std::vector<bool> used(512, false);
  std::uint64_t in_use = 0;
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 == 0) {
      Result<PageRun> run = phys().alloc_run(1 + random() % 40, Zero::No);
      if (!run) continue;
      for (Pfn pfn = run->first; pfn < run->first + run->count; ++pfn) {
        REQUIRE(!used[pfn]);
        used[pfn] = true;
      }
      in_use += run->count;
      held.push_back(*run);
    } else if (!held.empty()) {
      const std::size_t i = random() % held.size();
      for (Pfn pfn = held[i].first; pfn < held[i].first + held[i].count; ++pfn) {
        phys().put(pfn);
        used[pfn] = false;
      }
      in_use -= held[i].count;
      held[i] = held.back();
      held.pop_back();
    }
    REQUIRE(phys().free_pages() == 512 - in_use);
  }
}
