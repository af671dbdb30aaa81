// PageTable: what one guest address space has in which page: a radix tree of four levels with 512
// entries each, as the processor's. For mm/ alone. Needs the big kernel lock; never sleeps.
//
// An entry says which frame is there (the entry owns a reference of the frame), what guest code may
// do with it now without a fault, whose frame it is, and whether the engine was told to map it. The
// engine's mapping, where there is one, has exactly the entry's permissions.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>

#include "base/units.hpp"
#include "engine/platform.hpp"

namespace cowbird {

class Pte {
 public:
  static constexpr std::uint64_t kPresent = 1;
  static constexpr std::uint64_t kRead = 2;
  static constexpr std::uint64_t kWrite = 4;
  static constexpr std::uint64_t kExec = 8;
  static constexpr std::uint64_t kAnon =
      16;  // private frame; copy-on-write while it has other refs
  static constexpr std::uint64_t kHosted = 32;  // a map order for it was queued
  static constexpr std::uint64_t kShmem = 64;   // of a cache that lives in memory only
  static constexpr std::uint64_t kPermissions = kRead | kWrite | kExec;

  Pte() = default;
  Pte(Pfn pfn, std::uint64_t flags) : value_((pfn << kPageShift) | flags | kPresent) {}

  bool present() const { return value_ & kPresent; }
  bool has(std::uint64_t flag) const { return value_ & flag; }
  Pfn pfn() const { return value_ >> kPageShift; }
  std::uint64_t flags() const { return value_ & kPageMask; }
  std::uint64_t permissions() const { return value_ & kPermissions; }
  void add(std::uint64_t flags) { value_ |= flags; }
  void remove(std::uint64_t flags) { value_ &= ~flags; }
  void set_permissions(std::uint64_t permissions) {
    value_ = (value_ & ~kPermissions) | permissions;
  }
  // The permissions as the engine takes them. What can be written or executed can be read, as on
  // the processor; asked for alone, a host with protection keys would make execution exclusive.
  Prot host_prot() const { return to_prot(permissions()); }
  static Prot to_prot(std::uint64_t permissions) {
    Prot prot = Prot::None;
    if (permissions & kRead) prot = prot | Prot::Read;
    if (permissions & kWrite) prot = prot | Prot::Write;
    if (permissions & kExec) prot = prot | Prot::Exec;
    return prot;
  }
  // What an area's protection permits at most.
  static std::uint64_t from_prot(Prot prot) {
    std::uint64_t permissions = prot == Prot::None ? 0 : kRead;
    if (cowbird::has(prot, Prot::Write)) permissions |= kWrite;
    if (cowbird::has(prot, Prot::Exec)) permissions |= kExec;
    return permissions;
  }

 private:
  std::uint64_t value_ = 0;
};

class PageTable {
 public:
  static constexpr unsigned kEntries = 512;
  struct Leaf {
    std::array<Pte, kEntries> entries{};
    unsigned present = 0;
    // Stores an entry where none was present, or the other way round, or replaces one.
    void set(unsigned index, Pte pte) {
      present +=
          static_cast<unsigned>(pte.present()) - static_cast<unsigned>(entries[index].present());
      entries[index] = pte;
    }
  };

  PageTable() = default;
  ~PageTable();
  PageTable(const PageTable &) = delete;
  PageTable &operator=(const PageTable &) = delete;

  static unsigned index_of(VirtAddr address) {
    return static_cast<unsigned>(address >> kPageShift) % kEntries;
  }

  // The leaf that covers `address`, or nullptr. Good until the next prune().
  Leaf *find_leaf(VirtAddr address) const {
    if ((address >> kLeafShift) == cached_key_) return cached_leaf_;
    return find_leaf_slow(address);
  }
  // The same, made when missing; nullptr when the guest's page tables have reached their bound.
  Leaf *ensure_leaf(VirtAddr address);

  Pte get(VirtAddr address) const {
    const Leaf *leaf = find_leaf(address);
    return leaf ? leaf->entries[index_of(address)] : Pte();
  }
  // `address` must have a leaf.
  void set(VirtAddr address, Pte pte) { find_leaf(address)->set(index_of(address), pte); }

  // Calls function(address, pte, leaf) for every present entry in [start, end), in order. The
  // function may change that entry through leaf.set(), and must not make or prune leaves.
  template <typename Function>
  void for_each(VirtAddr start, VirtAddr end, Function &&function) {
    VirtAddr address = start;
    while (address < end) {
      VirtAddr next = 0;
      Leaf *leaf = next_leaf(address, end, next);
      if (!leaf) return;
      const VirtAddr stop = std::min(end, page_of_next_leaf(next));
      for (address = next; address < stop && leaf->present != 0; address += kPageSize) {
        const Pte pte = leaf->entries[index_of(address)];
        if (pte.present()) function(address, pte, *leaf);
      }
      address = stop;
    }
  }

  // Gives back tables in [start, end) that have no present entry any more.
  void prune(VirtAddr start, VirtAddr end);

  std::uint64_t table_pages() const { return tables_; }
  // Tables of all address spaces, and their bound, which depends on the guest's memory.
  static std::uint64_t total_tables();
  static std::uint64_t max_tables();

 private:
  friend struct DebugLayout;
  static constexpr unsigned kLeafShift = 21;
  struct Node {
    std::array<void *, kEntries> children{};
    unsigned used = 0;
  };
  static VirtAddr page_of_next_leaf(VirtAddr address) {
    return ((address >> kLeafShift) + 1) << kLeafShift;
  }
  Leaf *find_leaf_slow(VirtAddr address) const;
  // The first leaf that covers something of [address, end); `found` is where its part begins.
  Leaf *next_leaf(VirtAddr address, VirtAddr end, VirtAddr &found) const;
  bool charge();
  void uncharge();
  void free_node(Node *node, unsigned level);
  void prune_node(Node *node, unsigned level, VirtAddr base, VirtAddr start, VirtAddr end);

  Node root_;
  std::uint64_t tables_ = 0;
  mutable std::uint64_t cached_key_ = ~0ull;
  mutable Leaf *cached_leaf_ = nullptr;
};

}  // namespace cowbird
