#include "mm/page_table.hpp"

#include <new>

#include "mm/phys_memory.hpp"

namespace cowbird {

namespace {

std::uint64_t all_tables = 0;

// Levels: 3 is the root (512 GiB an entry), 2 (1 GiB), 1 (2 MiB, its children are leaves).
constexpr unsigned shift_of(unsigned level) { return 12 + 9 * level; }

unsigned slot(VirtAddr address, unsigned level) {
  return static_cast<unsigned>(address >> shift_of(level)) % PageTable::kEntries;
}

}  // namespace

std::uint64_t PageTable::total_tables() { return all_tables; }

std::uint64_t PageTable::max_tables() {
  // Tables are the kernel's own memory, not frames, but a guest may not have more of them than if
  // they were taken from an eighth of its memory.
  return std::max<std::uint64_t>(4096, phys().total_pages() / 8);
}

bool PageTable::charge() {
  if (all_tables >= max_tables()) return false;
  ++all_tables;
  ++tables_;
  return true;
}

void PageTable::uncharge() {
  --all_tables;
  --tables_;
}

PageTable::~PageTable() {
  for (void *child : root_.children)
    if (child) free_node(static_cast<Node *>(child), 2);
}

void PageTable::free_node(Node *node, unsigned level) {
  for (void *child : node->children) {
    if (!child) continue;
    if (level == 1) {
      delete static_cast<Leaf *>(child);
      uncharge();
    } else {
      free_node(static_cast<Node *>(child), level - 1);
    }
  }
  delete node;
  uncharge();
}

PageTable::Leaf *PageTable::find_leaf_slow(VirtAddr address) const {
  const Node *node = &root_;
  for (unsigned level = 3; level > 1; --level) {
    node = static_cast<const Node *>(node->children[slot(address, level)]);
    if (!node) return nullptr;
  }
  auto *leaf = static_cast<Leaf *>(node->children[slot(address, 1)]);
  if (leaf) {
    cached_key_ = address >> kLeafShift;
    cached_leaf_ = leaf;
  }
  return leaf;
}

PageTable::Leaf *PageTable::ensure_leaf(VirtAddr address) {
  if (Leaf *leaf = find_leaf(address)) return leaf;
  Node *node = &root_;
  for (unsigned level = 3; level > 1; --level) {
    void *&child = node->children[slot(address, level)];
    if (!child) {
      if (!charge()) return nullptr;
      child = new Node;
      ++node->used;
    }
    node = static_cast<Node *>(child);
  }
  if (!charge()) return nullptr;
  auto *leaf = new Leaf;
  node->children[slot(address, 1)] = leaf;
  ++node->used;
  cached_key_ = address >> kLeafShift;
  cached_leaf_ = leaf;
  return leaf;
}

PageTable::Leaf *PageTable::next_leaf(VirtAddr address, VirtAddr end, VirtAddr &found) const {
  while (address < end) {
    const Node *node = &root_;
    unsigned level = 3;
    for (; level > 1; --level) {
      const auto *child = static_cast<const Node *>(node->children[slot(address, level)]);
      if (!child) break;
      node = child;
    }
    if (level == 1) {
      if (auto *leaf = static_cast<Leaf *>(node->children[slot(address, 1)])) {
        found = address;
        return leaf;
      }
    }
    // Nothing in the whole range of this entry: go on behind it.
    address = ((address >> shift_of(level)) + 1) << shift_of(level);
  }
  return nullptr;
}

void PageTable::prune_node(Node *node, unsigned level, VirtAddr base, VirtAddr start,
                           VirtAddr end) {
  const VirtAddr span = 1ull << shift_of(level);
  const unsigned first = start > base ? static_cast<unsigned>((start - base) / span) : 0;
  for (unsigned i = first; i < kEntries && node->used != 0; ++i) {
    const VirtAddr child_base = base + i * span;
    if (child_base >= end) break;
    void *&child = node->children[i];
    if (!child) continue;
    if (level == 1) {
      auto *leaf = static_cast<Leaf *>(child);
      if (leaf->present != 0) continue;
      delete leaf;
    } else {
      auto *inner = static_cast<Node *>(child);
      prune_node(inner, level - 1, child_base, start, end);
      if (inner->used != 0) continue;
      delete inner;
    }
    child = nullptr;
    --node->used;
    uncharge();
  }
}

void PageTable::prune(VirtAddr start, VirtAddr end) {
  cached_key_ = ~0ull;
  cached_leaf_ = nullptr;
  prune_node(&root_, 3, 0, start, end);
}

}  // namespace cowbird
