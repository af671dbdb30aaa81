#include <algorithm>

#include "abi/fcntl.hpp"
#include "abi/stat.hpp"
#include "base/log.hpp"
#include "mm/phys_memory.hpp"
#include "vfs/file.hpp"
#include "vfs/walker.hpp"

namespace cowbird {

// --- Path

Path::Path() = default;
Path::Path(Ref<Mount> m, Ref<Dentry> d) : mount(std::move(m)), dentry(std::move(d)) {}
Path::Path(const Path &) = default;
Path::Path(Path &&) noexcept = default;
// As in the destructor, the old dentry goes before the old mount.
Path &Path::operator=(const Path &other) {
  Path copy(other);
  std::swap(mount, copy.mount);
  std::swap(dentry, copy.dentry);
  return *this;
}
Path &Path::operator=(Path &&other) noexcept {
  Path taken(std::move(other));
  std::swap(mount, taken.mount);
  std::swap(dentry, taken.dentry);
  return *this;
}
Path::~Path() {
  // The dentry goes first: the mount keeps the file system alive.
  dentry.reset();
}
Path::operator bool() const { return static_cast<bool>(dentry); }
Inode &Path::inode() const { return *dentry->inode(); }
bool operator==(const Path &a, const Path &b) { return a.mount == b.mount && a.dentry == b.dentry; }

Ref<FsContext> FsContext::clone() const {
  auto copy = make_ref<FsContext>();
  copy->root = root;
  copy->cwd = cwd;
  copy->umask = umask;
  return copy;
}

// --- permissions

Result<void> check_permission(const Inode &inode, unsigned want, const Credentials &credentials) {
  const std::uint32_t mode = inode.mode;
  // Everybody has it: nothing else needs to be looked at.
  if ((mode & want) == want && ((mode >> 3) & want) == want && ((mode >> 6) & want) == want) {
    return {};
  }
  std::uint32_t granted = mode & 7;
  if (credentials.fsuid == inode.uid) {
    granted = (mode >> 6) & 7;
  } else if (credentials.in_group(inode.gid)) {
    granted = (mode >> 3) & 7;
  }
  if ((granted & want) == want) return {};
  if (inode.is_directory()) {
    if (credentials.capable(Capability::DacOverride)) return {};
    if (!(want & 2) && credentials.capable(Capability::DacReadSearch)) return {};
    return Err(Errno::Access);
  }
  // Even a superuser executes only what somebody may execute.
  if (credentials.capable(Capability::DacOverride) && (!(want & 1) || (mode & 0111))) return {};
  if (want == 4 && credentials.capable(Capability::DacReadSearch)) return {};
  return Err(Errno::Access);
}

Result<void> check_writable(const Path &path, const Credentials &credentials) {
  const FileType type = path.inode().type();
  const bool on_disk =
      type == FileType::Regular || type == FileType::Directory || type == FileType::Symlink;
  if (on_disk) TRY(check_mount_writable(path));
  return check_permission(path.inode(), 2, credentials);
}

Result<void> check_directory_change(const Path &directory, const Credentials &credentials) {
  TRY(check_permission(directory.inode(), 2 | 1, credentials));
  return check_mount_writable(directory);
}

Result<void> check_may_delete(const Inode &directory, const Inode &victim,
                              const Credentials &credentials) {
  if ((directory.mode & abi::kS_ISVTX) && credentials.fsuid != victim.uid &&
      credentials.fsuid != directory.uid && !credentials.capable(Capability::Fowner)) {
    return Err(Errno::Perm);
  }
  return {};
}

// --- one step

namespace {

// The cached dentry when it is still good; nullptr otherwise. May sleep (a file system asks its
// host).
Ref<Dentry> find_valid(Dentry &parent, std::string_view name) {
  Dentry *cached = dcache::find(parent, name);
  if (!cached) return {};
  Ref<Dentry> dentry(cached);
  Inode *inode = dentry->inode();
  if (!inode) {
    if (parent.inode()->cache_names()) return dentry;
    dcache::drop(*dentry);
    return {};
  }
  if (inode->cache_names() || dentry->mount_count > 0) return dentry;
  if (inode->revalidate(*parent.inode(), name)) return dentry;
  dcache::drop(*dentry);
  return {};
}

}  // namespace

Result<Ref<Dentry>> lookup_child_locked(Dentry &parent, std::string_view name) {
  if (Ref<Dentry> cached = find_valid(parent, name)) return cached;
  Result<Ref<Inode>> found = parent.inode()->lookup(name);
  if (!found && found.error() != Errno::NoEnt) return Err(found.error());
  // The file system may have slept; only the directory's lock kept others from adding the name,
  // but a drop of memory or a revalidation may have run.
  if (Dentry *now = dcache::find(parent, name)) {
    if (found && now->negative()) dcache::instantiate(*now, *std::move(found));
    return Ref<Dentry>(now);
  }
  Ref<Inode> inode;
  if (found) inode = *std::move(found);
  if (parent.unlinked()) return dcache::make_unlinked(parent, name, std::move(inode));
  return dcache::add(parent, name, std::move(inode));
}

Result<Ref<Dentry>> lookup_child(Dentry &parent, std::string_view name) {
  if (Ref<Dentry> cached = find_valid(parent, name)) return cached;
  if (name.size() > abi::kNAME_MAX) return Err(Errno::NameTooLong);
  SleepLock locked(parent.inode()->lock());
  return lookup_child_locked(parent, name);
}

// --- the walk

Walker::Walker(const WalkContext &walk, LookupFlag flags)
    : walk_(walk),
      flags_(flags),
      root_(has(flags, LookupFlag::InRoot) ? &walk.start : &walk.fs.root) {}

Result<void> Walker::begin(std::string_view name) {
  if (name.size() >= abi::kPATH_MAX) return Err(Errno::NameTooLong);
  if (name.empty()) {
    if (!has(flags_, LookupFlag::EmptyPath)) return Err(Errno::NoEnt);
    current_ = walk_.start;
    rest_ = {};
    return {};
  }
  if (name.front() == '/') {
    if (has(flags_, LookupFlag::Beneath)) return Err(Errno::XDev);
    current_ = *root_;
  } else {
    current_ = walk_.start;
    if (!current_.inode().is_directory()) return Err(Errno::NotDir);
  }
  rest_ = name;
  return {};
}

Result<void> Walker::check_search() const {
  const Inode &inode = current_.inode();
  if (!inode.is_directory()) return Err(Errno::NotDir);
  return check_permission(inode, 1, walk_.credentials);
}

Result<void> Walker::dotdot() {
  const bool contained = has(flags_, LookupFlag::Beneath);
  if (current_ == (contained ? walk_.start : *root_)) {
    if (contained) return Err(Errno::XDev);
    return {};
  }
  if (current_ == walk_.fs.root) return {};
  if (current_.dentry == current_.mount->root) {
    if (has(flags_, LookupFlag::NoXDev) && current_.mount->parent) return Err(Errno::XDev);
    // Up through stacked mounts, but not past the root.
    while (current_.dentry == current_.mount->root && current_.mount->parent) {
      Path up(current_.mount->parent, current_.mount->mountpoint);
      current_ = std::move(up);
      if (current_ == *root_) return {};
    }
  }
  if (Dentry *parent = current_.dentry->parent()) {
    current_.dentry = Ref<Dentry>(parent);
    follow_mounts(current_);
  }
  return {};
}

Result<void> Walker::step_dots(std::string_view name) {
  if (name == "..") {
    TRY(check_search());
    return dotdot();
  }
  if (name == ".") TRY(check_search());
  return {};
}

Result<Path> Walker::peek(const Ref<Dentry> &child) {
  Path next(current_.mount, child);
  if (child->mount_count > 0) {
    follow_mounts(next);
    if (has(flags_, LookupFlag::NoXDev) && !(next.mount == current_.mount)) return Err(Errno::XDev);
  }
  return next;
}

Result<void> Walker::step_into(Ref<Dentry> child) {
  if (child->mount_count == 0) {
    current_.dentry = std::move(child);
    return {};
  }
  current_ = TRY(peek(child));
  return {};
}

Result<void> Walker::follow_link(const Path &link, bool &arrived) {
  arrived = false;
  if (has(flags_, LookupFlag::NoSymlinks)) return Err(Errno::Loop);
  if (++links_ > kMaxLinks) return Err(Errno::Loop);
  Inode &inode = link.inode();
  if (inode.is_magic_link()) {
    if (has(flags_, LookupFlag::NoMagicLinks)) return Err(Errno::Loop);
    if (has(flags_, LookupFlag::Beneath) || has(flags_, LookupFlag::InRoot))
      return Err(Errno::XDev);
    Path target = TRY(inode.follow_magic());
    if (has(flags_, LookupFlag::NoXDev) && !(target.mount == current_.mount))
      return Err(Errno::XDev);
    current_ = std::move(target);
    arrived = true;
    return {};
  }
  std::string target = TRY(inode.readlink());
  if (target.empty()) return Err(Errno::NoEnt);
  if (target.size() >= abi::kPATH_MAX) return Err(Errno::NameTooLong);
  if (trailing_slash_ && rest_.empty()) target += '/';
  if (!rest_.empty()) {
    if (target.size() + rest_.size() > 16 * abi::kPATH_MAX) return Err(Errno::NameTooLong);
    target += '/';
    target += rest_;
  }
  target_ = std::move(target);
  rest_ = target_;
  if (target_.front() == '/') {
    if (has(flags_, LookupFlag::Beneath)) return Err(Errno::XDev);
    if (has(flags_, LookupFlag::NoXDev) && !(root_->mount == current_.mount))
      return Err(Errno::XDev);
    current_ = *root_;
  }
  return {};
}

Result<void> Walker::to_parent() {
  for (;;) {
    while (!rest_.empty() && rest_.front() == '/') rest_.remove_prefix(1);
    if (rest_.empty()) {
      last_ = {};
      trailing_slash_ = false;
      return {};
    }
    const std::size_t end = std::min(rest_.find('/'), rest_.size());
    const std::string_view name = rest_.substr(0, end);
    std::string_view after = rest_.substr(end);
    trailing_slash_ = !after.empty();
    while (!after.empty() && after.front() == '/') after.remove_prefix(1);
    rest_ = after;
    if (after.empty()) {
      last_ = name;
      return {};
    }
    if (name == "." || name == "..") {
      TRY(step_dots(name));
      continue;
    }
    TRY(check_search());
    Ref<Dentry> child = TRY(lookup_child(*current_.dentry, name));
    if (child->negative()) return Err(Errno::NoEnt);
    if (child->inode()->is_symlink()) {
      const Path link(current_.mount, std::move(child));
      bool arrived = false;
      TRY(follow_link(link, arrived));
      continue;
    }
    TRY(step_into(std::move(child)));
  }
}

Result<Path> walk_to(Walker &walker, std::string_view name) {
  TRY(walker.begin(name));
  for (;;) {
    TRY(walker.to_parent());
    const std::string_view last = walker.last();
    const bool directory = walker.trailing_slash() || has(walker.flags(), LookupFlag::Directory);
    if (last.empty() || last == "." || last == "..") {
      TRY(walker.step_dots(last));
      if (directory && !walker.at().inode().is_directory()) return Err(Errno::NotDir);
      return walker.at();
    }
    TRY(walker.check_search());
    Ref<Dentry> child = TRY(lookup_child(*walker.at().dentry, last));
    if (child->negative()) return Err(Errno::NoEnt);
    if (child->inode()->is_symlink() &&
        (has(walker.flags(), LookupFlag::Follow) || walker.trailing_slash())) {
      const Path link(walker.at().mount, std::move(child));
      bool arrived = false;
      TRY(walker.follow_link(link, arrived));
      if (!arrived) continue;
    } else {
      TRY(walker.step_into(std::move(child)));
    }
    if (directory && !walker.at().inode().is_directory()) return Err(Errno::NotDir);
    return walker.at();
  }
}

Result<Path> lookup(const WalkContext &walk, std::string_view name, LookupFlag flags) {
  Walker walker(walk, flags);
  return walk_to(walker, name);
}

Result<ParentLookup> lookup_parent(const WalkContext &walk, std::string_view name,
                                   LookupFlag flags) {
  Walker walker(walk, flags);
  TRY(walker.begin(name));
  TRY(walker.to_parent());
  TRY(walker.check_search());
  if (walker.last().size() > abi::kNAME_MAX) return Err(Errno::NameTooLong);
  return ParentLookup{walker.at(), std::string(walker.last()), walker.trailing_slash()};
}

// --- names of paths

std::string path_name(const Path &path, const Path &root) {
  if (path.dentry->anonymous()) return std::string(path.dentry->name());
  std::vector<std::string_view> names;
  std::vector<Ref<Dentry>> held;
  Path at = path;
  bool reached = true;
  std::size_t length = 0;
  while (!(at == root)) {
    // Directories may be nested without end; a name that no call takes is told from its end.
    if (length > abi::kPATH_MAX) {
      reached = false;
      break;
    }
    if (at.dentry == at.mount->root) {
      if (!at.mount->parent) {
        reached = false;
        break;
      }
      Path up(at.mount->parent, at.mount->mountpoint);
      at = std::move(up);
      continue;
    }
    held.push_back(at.dentry);
    names.push_back(held.back()->name());
    length += names.back().size() + 1;
    Dentry *parent = at.dentry->parent();
    if (!parent) {
      reached = false;
      break;
    }
    at.dentry = Ref<Dentry>(parent);
  }
  std::string result;
  // The top of the name space is nobody's subtree: outside of the root it has no better name.
  if (!reached) result = "(unreachable)";
  if (names.empty()) result += '/';
  std::reverse(names.begin(), names.end());
  for (const std::string_view name : names) {
    result += '/';
    result += name;
  }
  if (path.dentry->unlinked()) result += " (deleted)";
  return result;
}

void vfs_init() {
  phys().add_reclaimer([](std::uint64_t wanted) -> std::uint64_t {
    const std::uint64_t before = phys().free_pages();
    dcache::shrink(std::clamp<std::uint64_t>(wanted * 4, 256, dcache::kMaxEntries));
    const std::uint64_t after = phys().free_pages();
    return after > before ? after - before : 0;
  });
}

}  // namespace cowbird
