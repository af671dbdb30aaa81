// Dentries and their cache: names that were looked up, with the inode they lead to (or none, a
// negative dentry). For vfs/ itself and for file systems that must drop cached names; everybody
// else uses vfs/path.hpp. Needs the big kernel lock; nothing here sleeps.
//
// A hashed dentry is held by the cache with one reference. When that is the only one it is unused,
// and goes when the cache is over its bound or memory is short: a clock hand passes over the cache,
// and dentries that were used since it came by last are spared once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/list.hpp"
#include "base/ref.hpp"
#include "vfs/inode.hpp"

namespace cowbird {

class Dentry : public RefCounted<Dentry> {
 public:
  // The root of a file system; not hashed.
  static Ref<Dentry> make_root(Ref<Inode> inode);
  // A name in no directory, "pipe:[12]".
  static Ref<Dentry> make_anonymous(const std::string &name, Ref<Inode> inode);
  ~Dentry();

  Dentry *parent() const { return parent_.get(); }  // nullptr for roots and anonymous names
  std::string_view name() const { return name_; }
  Inode *inode() const { return inode_.get(); }
  bool negative() const { return !inode_; }
  bool hashed() const { return hashed_; }
  // It had a name once and has none now.
  bool unlinked() const { return unlinked_; }
  bool anonymous() const { return anonymous_; }
  // How many mounts sit on this dentry (in whatever mount).
  unsigned mount_count = 0;

 private:
  friend struct DentryCache;
  friend struct DebugLayout;
  explicit Dentry(std::string_view name) : name_(name) {}
  Ref<Dentry> parent_;
  std::string name_;
  Ref<Inode> inode_;
  std::uint64_t hash_ = 0;
  Dentry *hash_next_ = nullptr;
  bool hashed_ = false;
  bool referenced_ = false;
  bool unlinked_ = false;
  bool anonymous_ = false;
  ListNode child_link_;
  ListNode clock_link_;

 public:
  // Owned by the cache: children that are hashed.
  using Children = List<Dentry, &Dentry::child_link_>;

 private:
  Children children_;
};

namespace dcache {

inline constexpr std::size_t kMaxEntries = 32768;

// The cached dentry, or nullptr.
Dentry *find(Dentry &parent, std::string_view name);
// Adds a name; `inode` may be empty (negative). There must be none of that name.
Ref<Dentry> add(Dentry &parent, std::string_view name, Ref<Inode> inode);
// A dentry below `parent` that is not in the cache and counts as unlinked (O_TMPFILE).
Ref<Dentry> make_unlinked(Dentry &parent, std::string_view name, Ref<Inode> inode);
// A negative dentry got its object.
void instantiate(Dentry &dentry, Ref<Inode> inode);
// The name is out of date (revalidation failed): forgotten, with all cached names below.
void drop(Dentry &dentry);
// The object was removed under this name: users keep it, marked unlinked; a negative one takes its
// place.
void unlink(Dentry &dentry);
// rename: `dentry` gets a new place; what was there has been dropped or unlinked before.
void move(Dentry &dentry, Dentry &new_parent, std::string_view new_name);
void exchange(Dentry &a, Dentry &b);
// Forgets all unused names below / of a file system, as far as they are unused.
void prune_below(Dentry &dentry);
void prune_superblock(SuperBlock &sb);
// Frees up to `wanted` unused dentries; returns how many.
std::size_t shrink(std::size_t wanted);
std::size_t size();

}  // namespace dcache

}  // namespace cowbird
