#include "vfs/dentry.hpp"

#include <vector>

#include "base/log.hpp"

namespace cowbird {

// The hash table and the clock over all hashed dentries. Protected by the big kernel lock.
struct DentryCache {
  static constexpr std::size_t kBuckets = 16384;
  std::vector<Dentry *> buckets = std::vector<Dentry *>(kBuckets, nullptr);
  List<Dentry, &Dentry::clock_link_> clock;
  std::size_t count = 0;

  static DentryCache &get() {
    static DentryCache *cache = new DentryCache;  // lives as long as the guest
    return *cache;
  }

  static std::uint64_t hash_of(const Dentry *parent, std::string_view name) {
    std::uint64_t h = reinterpret_cast<std::uintptr_t>(parent) * 0x9e3779b97f4a7c15ull;
    const char *p = name.data();
    std::size_t n = name.size();
    while (n >= 8) {
      std::uint64_t word;
      __builtin_memcpy(&word, p, 8);
      h = (h ^ word) * 0xff51afd7ed558ccdull;
      h ^= h >> 32;
      p += 8;
      n -= 8;
    }
    std::uint64_t tail = n;
    for (std::size_t i = 0; i < n; ++i) tail = (tail << 8) | static_cast<unsigned char>(p[i]);
    h = (h ^ tail) * 0xc4ceb9fe1a85ec53ull;
    return h ^ (h >> 29);
  }
  Dentry *&bucket(std::uint64_t hash) { return buckets[hash & (kBuckets - 1)]; }

  // Puts a dentry with parent, name and hash under the table; takes over one reference.
  void link(Dentry &dentry) {
    Dentry *&head = bucket(dentry.hash_);
    dentry.hash_next_ = head;
    head = &dentry;
    dentry.hashed_ = true;
    dentry.referenced_ = true;
    dentry.parent_->children_.push_back(dentry);
    clock.push_back(dentry);
    ++count;
    dentry.ref();
  }

  // The caller gets the cache's reference.
  Ref<Dentry> unlink(Dentry &dentry) {
    KASSERT(dentry.hashed_);
    Dentry **slot = &bucket(dentry.hash_);
    while (*slot != &dentry) slot = &(*slot)->hash_next_;
    *slot = dentry.hash_next_;
    dentry.hashed_ = false;
    Dentry::Children::remove(dentry);
    List<Dentry, &Dentry::clock_link_>::remove(dentry);
    --count;
    return Ref<Dentry>::adopt(&dentry);
  }

  void set_place(Dentry &dentry, Dentry &parent, std::string_view name) {
    dentry.parent_ = Ref<Dentry>(&parent);
    dentry.name_ = std::string(name);
    dentry.hash_ = hash_of(&parent, name);
  }

  Dentry *find(const Dentry &parent, std::string_view name) {
    const std::uint64_t hash = hash_of(&parent, name);
    for (Dentry *d = bucket(hash); d; d = d->hash_next_) {
      if (d->hash_ == hash && d->parent_.get() == &parent && d->name_ == name) {
        d->referenced_ = true;
        return d;
      }
    }
    return nullptr;
  }

  static Ref<Dentry> make(std::string_view name) { return Ref<Dentry>::adopt(new Dentry(name)); }
  static void set_inode(Dentry &dentry, Ref<Inode> inode) { dentry.inode_ = std::move(inode); }
  static void mark_unlinked(Dentry &dentry) { dentry.unlinked_ = true; }
  static void mark_anonymous(Dentry &dentry) { dentry.anonymous_ = true; }
  static Dentry::Children &children(Dentry &dentry) { return dentry.children_; }
  static bool test_and_clear_referenced(Dentry &dentry) {
    return std::exchange(dentry.referenced_, false);
  }
};

Ref<Dentry> Dentry::make_root(Ref<Inode> inode) {
  Ref<Dentry> root = DentryCache::make("/");
  root->inode_ = std::move(inode);
  return root;
}

Ref<Dentry> Dentry::make_anonymous(const std::string &name, Ref<Inode> inode) {
  Ref<Dentry> dentry = DentryCache::make(name);
  dentry->inode_ = std::move(inode);
  dentry->anonymous_ = true;
  return dentry;
}

Dentry::~Dentry() {
  // A long chain of removed directories must not recurse: each parent is taken out of its owner
  // before that goes.
  Ref<Dentry> parent = std::move(parent_);
  while (parent && parent->ref_count() == 1) {
    Ref<Dentry> next = std::move(parent->parent_);
    parent = std::move(next);
  }
}

namespace dcache {

Dentry *find(Dentry &parent, std::string_view name) {
  return DentryCache::get().find(parent, name);
}

Ref<Dentry> add(Dentry &parent, std::string_view name, Ref<Inode> inode) {
  DentryCache &cache = DentryCache::get();
  Ref<Dentry> dentry = DentryCache::make(name);
  cache.set_place(*dentry, parent, name);
  DentryCache::set_inode(*dentry, std::move(inode));
  cache.link(*dentry);
  if (cache.count > kMaxEntries) shrink(cache.count - kMaxEntries + kMaxEntries / 16);
  return dentry;
}

Ref<Dentry> make_unlinked(Dentry &parent, std::string_view name, Ref<Inode> inode) {
  DentryCache &cache = DentryCache::get();
  Ref<Dentry> dentry = DentryCache::make(name);
  cache.set_place(*dentry, parent, name);
  DentryCache::set_inode(*dentry, std::move(inode));
  DentryCache::mark_unlinked(*dentry);
  return dentry;
}

void instantiate(Dentry &dentry, Ref<Inode> inode) {
  KASSERT(dentry.negative());
  DentryCache::set_inode(dentry, std::move(inode));
}

void drop(Dentry &dentry) {
  if (!dentry.hashed()) return;
  prune_below(dentry);
  DentryCache::get().unlink(dentry);
}

void unlink(Dentry &dentry) {
  prune_below(dentry);
  DentryCache::mark_unlinked(dentry);
  if (!dentry.hashed()) return;
  Ref<Dentry> held = DentryCache::get().unlink(dentry);
  if (Dentry *parent = dentry.parent(); parent && parent->inode()->cache_names()) {
    add(*parent, held->name(), nullptr);
  }
}

void move(Dentry &dentry, Dentry &new_parent, std::string_view new_name) {
  DentryCache &cache = DentryCache::get();
  Ref<Dentry> held(&dentry);
  if (dentry.hashed()) cache.unlink(dentry);
  if (Dentry *there = find(new_parent, new_name)) drop(*there);
  cache.set_place(dentry, new_parent, new_name);
  cache.link(dentry);
}

void exchange(Dentry &a, Dentry &b) {
  DentryCache &cache = DentryCache::get();
  Ref<Dentry> held_a(&a), held_b(&b);
  Ref<Dentry> parent_a(a.parent()), parent_b(b.parent());
  const std::string name_a(a.name()), name_b(b.name());
  if (a.hashed()) cache.unlink(a);
  if (b.hashed()) cache.unlink(b);
  cache.set_place(a, *parent_b, name_b);
  cache.set_place(b, *parent_a, name_a);
  cache.link(a);
  cache.link(b);
}

void prune_below(Dentry &dentry) {
  // Depth first without recursion: go down to a leaf, drop it, start again at its parent. What is
  // in use stays.
  DentryCache &cache = DentryCache::get();
  std::vector<Ref<Dentry>> work;
  auto push_children = [&](Dentry &d) {
    for (Dentry &child : DentryCache::children(d)) work.emplace_back(&child);
  };
  push_children(dentry);
  std::vector<Ref<Dentry>> order;
  while (!work.empty()) {
    Ref<Dentry> next = std::move(work.back());
    work.pop_back();
    push_children(*next);
    order.push_back(std::move(next));
  }
  while (!order.empty()) {
    Ref<Dentry> last = std::move(order.back());
    order.pop_back();
    if (last->hashed() && last->ref_count() == 2 && last->mount_count == 0) cache.unlink(*last);
  }
}

void prune_superblock(SuperBlock &sb) {
  DentryCache &cache = DentryCache::get();
  for (bool again = true; again;) {
    again = false;
    Dentry *next = cache.clock.front();
    for (std::size_t left = cache.count; left > 0 && next; --left) {
      Dentry &d = *next;
      cache.clock.remove(d);
      cache.clock.push_back(d);
      next = cache.clock.front();
      const SuperBlock *own = d.inode()
                                  ? &d.inode()->sb()
                                  : (d.parent()->inode() ? &d.parent()->inode()->sb() : nullptr);
      if (own == &sb && d.ref_count() == 1) {
        cache.unlink(d);
        again = true;  // its parent may be unused now
        next = cache.clock.front();
      }
    }
  }
}

std::size_t shrink(std::size_t wanted) {
  DentryCache &cache = DentryCache::get();
  std::size_t freed = 0;
  for (std::size_t left = 2 * cache.count; left > 0 && freed < wanted && cache.count > 0; --left) {
    Dentry &d = *cache.clock.front();
    if (d.ref_count() == 1 && !DentryCache::test_and_clear_referenced(d)) {
      cache.unlink(d);
      ++freed;
      continue;
    }
    cache.clock.remove(d);
    cache.clock.push_back(d);
  }
  return freed;
}

std::size_t size() { return DentryCache::get().count; }

}  // namespace dcache

}  // namespace cowbird
