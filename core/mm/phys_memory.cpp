#include "mm/phys_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/log.hpp"
#include "mm/page_cache.hpp"
#include "mm/retire.hpp"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

namespace cowbird {

// A buddy allocator: free blocks of 2^order frames, aligned to their size, on one list per order.
// Links and orders live in side tables, because the frames themselves belong to the guest and
// writing to a frame that was never used would make the host allocate it.
struct PhysMemory::Buddy {
  static constexpr unsigned kOrders = 11;  // blocks of up to 1024 frames, 4 MiB
  static constexpr std::uint32_t kNone = ~0u;
  static constexpr std::uint8_t kNotFree = 0xff;

  struct Link {
    std::uint32_t next;
    std::uint32_t previous;
  };
  std::vector<Link> links;
  std::vector<std::uint8_t> order_of;  // of the first frame of a free block; kNotFree otherwise
  std::vector<bool> used_before;       // the host has (perhaps) a page there: not known to be zero
  std::uint32_t head[kOrders];
  std::uint64_t total;

  explicit Buddy(std::uint64_t pages)
      : links(pages), order_of(pages, kNotFree), used_before(pages, false), total(pages) {
    std::fill(std::begin(head), std::end(head), kNone);
    // Blocks are pushed from the top, so that the lowest addresses are handed out first.
    std::uint64_t end = pages;
    while (end > 0) {
      const unsigned order =
          std::min<unsigned>(kOrders - 1, static_cast<unsigned>(std::countr_zero(end)));
      end -= 1ull << order;
      push(static_cast<std::uint32_t>(end), order);
    }
  }

  void push(std::uint32_t pfn, unsigned order) {
    order_of[pfn] = static_cast<std::uint8_t>(order);
    links[pfn] = {head[order], kNone};
    if (head[order] != kNone) links[head[order]].previous = pfn;
    head[order] = pfn;
  }

  void remove(std::uint32_t pfn) {
    const unsigned order = order_of[pfn];
    const Link link = links[pfn];
    if (link.previous == kNone) {
      head[order] = link.next;
    } else {
      links[link.previous].next = link.next;
    }
    if (link.next != kNone) links[link.next].previous = link.previous;
    order_of[pfn] = kNotFree;
  }

  // A block of 2^order frames, cut from a larger one when needed.
  bool take(unsigned order, std::uint32_t &pfn) {
    unsigned found = order;
    while (found < kOrders && head[found] == kNone) ++found;
    if (found == kOrders) return false;
    pfn = head[found];
    remove(pfn);
    while (found > order) {
      --found;
      push(pfn + (1u << found), found);
    }
    return true;
  }

  void release(std::uint32_t pfn, unsigned order) {
    while (order + 1 < kOrders) {
      const std::uint32_t buddy = pfn ^ (1u << order);
      if (buddy >= total || order_of[buddy] != order) break;
      remove(buddy);
      pfn = std::min(pfn, buddy);
      ++order;
    }
    push(pfn, order);
  }

  // Gives back [first, first + count) in aligned blocks.
  void release_range(std::uint64_t first, std::uint64_t count) {
    while (count > 0) {
      unsigned order = static_cast<unsigned>(std::bit_width(count)) - 1;
      if (first != 0)
        order = std::min<unsigned>(order, static_cast<unsigned>(std::countr_zero(first)));
      order = std::min(order, kOrders - 1);
      release(static_cast<std::uint32_t>(first), order);
      first += 1ull << order;
      count -= 1ull << order;
    }
  }
};

namespace {

std::string host_error(const char *what, std::uint64_t bytes) {
  return fmt::format("The guest's memory of {} MiB cannot be had from the host: {}: {}.",
                     bytes / kMiB, what, std::strerror(errno));
}

}  // namespace

PhysMemory::PhysMemory() = default;

PhysMemory::~PhysMemory() {
  if (base_) ::munmap(base_, total_ << kPageShift);
  if (PhysMemory::current == this) PhysMemory::current = nullptr;
}

Result<std::unique_ptr<PhysMemory>> PhysMemory::create(std::uint64_t bytes, std::string &why) {
  const std::uint64_t pages = bytes >> kPageShift;
  if (pages < 16 || pages >= Buddy::kNone) {
    why = fmt::format(
        "The guest's memory is {} bytes; it must be at least 64 KiB and less than 16 TiB.", bytes);
    return Err(Errno::Inval);
  }
  std::unique_ptr<PhysMemory> memory(new PhysMemory);
  // NOEXEC_SEAL forbids executing the file, not mapping it executable; hosts before 6.3 lack it.
  int fd = ::memfd_create("cowbird-memory", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL)
    fd = ::memfd_create("cowbird-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    why = host_error("memfd_create", bytes);
    return Err(errno_from_host(errno));
  }
  memory->fd_.reset(fd);
  if (::ftruncate(fd, static_cast<off_t>(pages << kPageShift)) < 0 ||
      ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
    why = host_error("sizing the memory file", bytes);
    return Err(errno_from_host(errno));
  }
  void *base = ::mmap(nullptr, pages << kPageShift, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (base == MAP_FAILED) {
    why = host_error("mmap", bytes);
    return Err(errno_from_host(errno));
  }
  memory->base_ = static_cast<std::byte *>(base);
  memory->total_ = memory->free_ = pages;
  memory->reserve_ = std::clamp<std::uint64_t>(pages / 128, 2, 256);
  memory->refs_.assign(pages, 0);
  memory->buddy_ = std::make_unique<Buddy>(pages);
  return memory;
}

bool PhysMemory::make_available(std::uint64_t wanted, bool use_reserve) {
  const std::uint64_t floor = use_reserve ? 0 : reserve_;
  if (free_ >= floor + wanted) return true;
  // A reclaimer may itself want a frame; it gets what is there.
  if (reclaiming_) return false;
  reclaiming_ = true;
  // Some more than asked for, so that the next allocations need not come here.
  const std::uint64_t target = floor + wanted + 64;
  for (auto *reclaim : reclaimers_) {
    if (free_ >= target) break;
    reclaim(target - free_);
  }
  reclaiming_ = false;
  return free_ >= floor + wanted;
}

void PhysMemory::prepare(PageRun run, Zero zero) {
  free_ -= run.count;
  for (Pfn pfn = run.first; pfn < run.first + run.count; ++pfn) {
    KASSERT(refs_[pfn] == 0);
    refs_[pfn] = 1;
    if (!buddy_->used_before[pfn]) {
      buddy_->used_before[pfn] = true;
    } else if (zero == Zero::Yes) {
      std::memset(data(pfn), 0, kPageSize);
    }
  }
}

Result<Pfn> PhysMemory::alloc(Zero zero, bool use_reserve) {
  if (!make_available(1, use_reserve)) return Err(Errno::NoMem);
  std::uint32_t pfn = 0;
  KASSERT(buddy_->take(0, pfn));
  prepare({pfn, 1}, zero);
  return Pfn{pfn};
}

Result<PageRun> PhysMemory::alloc_run(std::uint64_t wanted, Zero zero) {
  KASSERT(wanted > 0);
  if (!make_available(1, false)) return Err(Errno::NoMem);
  wanted = std::min({wanted, free_ - reserve_, std::uint64_t{1} << (Buddy::kOrders - 1)});
  unsigned order = wanted == 1 ? 0 : static_cast<unsigned>(std::bit_width(wanted - 1));
  std::uint32_t pfn = 0;
  while (!buddy_->take(order, pfn)) {
    KASSERT(order > 0);
    --order;
  }
  const PageRun run{pfn, std::min(wanted, std::uint64_t{1} << order)};
  const std::uint64_t surplus = (std::uint64_t{1} << order) - run.count;
  if (surplus > 0) buddy_->release_range(run.first + run.count, surplus);
  prepare(run, zero);
  return run;
}

void PhysMemory::get(Pfn pfn) {
  KASSERT(pfn < total_ && refs_[pfn] != 0 && refs_[pfn] != ~0u);
  ++refs_[pfn];
}

void PhysMemory::put(Pfn pfn) {
  KASSERT(pfn < total_ && refs_[pfn] != 0);
  if (--refs_[pfn] == 0) {
    ++free_;
    buddy_->release(static_cast<std::uint32_t>(pfn), 0);
  }
}

void PhysMemory::add_reclaimer(std::uint64_t (*reclaim)(std::uint64_t wanted)) {
  reclaimers_.push_back(reclaim);
}

PhysMemory &phys() {
  KASSERT(PhysMemory::current != nullptr);
  return *PhysMemory::current;
}

constinit PhysMemory *PhysMemory::current = nullptr;

void set_phys(PhysMemory *memory) {
  PhysMemory::current = memory;
  if (!memory) return;
  memory->add_reclaimer([](std::uint64_t) { return RetireQueue::reap_all(); });
  memory->add_reclaimer(reclaim_page_cache);
}

}  // namespace cowbird
