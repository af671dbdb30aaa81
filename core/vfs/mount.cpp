#include "vfs/mount.hpp"

#include <algorithm>

#include "abi/mount.hpp"
#include "base/log.hpp"
#include "vfs/file.hpp"
#include "vfs/mount_table.hpp"

namespace cowbird {

namespace {

MountTable &table() {
  static MountTable *const mounts = MountTable::made = new MountTable;
  return *mounts;
}

inline constexpr std::size_t kMaxMounts = 100000;  // fs.mount-max

void attach(const Ref<Mount> &mount, const Path &where) {
  mount->parent = where.mount;
  mount->mountpoint = where.dentry;
  mount->attached = true;
  ++where.dentry->mount_count;
  table().by_point[{where.mount.get(), where.dentry.get()}] = mount.get();
  table().all.push_back(mount);
}

void detach(Mount &mount) {
  const Ref<Mount> held(&mount);
  if (mount.mountpoint) {
    table().by_point.erase({mount.parent.get(), mount.mountpoint.get()});
    --mount.mountpoint->mount_count;
  }
  mount.parent.reset();
  mount.mountpoint.reset();
  mount.attached = false;
  std::erase_if(table().all, [&](const Ref<Mount> &m) { return m.get() == &mount; });
}

bool has_children(const Mount &mount) {
  return std::any_of(table().all.begin(), table().all.end(),
                     [&](const Ref<Mount> &m) { return m->parent.get() == &mount; });
}

// `dentry` is `ancestor` or lies below it, within one file system.
bool is_below(const Dentry *dentry, const Dentry *ancestor) {
  for (; dentry; dentry = dentry->parent()) {
    if (dentry == ancestor) return true;
  }
  return false;
}

bool mount_is_below(const Mount *mount, const Mount *ancestor) {
  for (; mount; mount = mount->parent.get()) {
    if (mount == ancestor) return true;
  }
  return false;
}

Result<void> check_mountpoint(const Path &where, bool directory) {
  if (table().all.size() >= kMaxMounts) return Err(Errno::NoSpc);
  if (where.dentry->unlinked() || where.dentry->negative()) return Err(Errno::NoEnt);
  if (where.inode().is_directory() != directory) return Err(Errno::NotDir);
  if (!where.mount->attached) return Err(Errno::Inval);
  return {};
}

}  // namespace

constinit MountTable *MountTable::made = nullptr;

Mount::Mount(Ref<SuperBlock> superblock, Ref<Dentry> root_dentry, std::string source_name,
             std::uint32_t mount_flags)
    : sb(std::move(superblock)),
      root(std::move(root_dentry)),
      source(std::move(source_name)),
      type(sb->type_name()),
      flags(mount_flags),
      id(table().next_id++) {
  ++table().users[sb.get()].mounts;
}

Mount::~Mount() {
  root.reset();
  auto users = table().users.find(sb.get());
  if (--users->second.mounts == 0) {
    table().users.erase(users);
    dcache::prune_superblock(*sb);
  }
}

Mount *mount_on(const Path &path) {
  if (path.dentry->mount_count == 0) return nullptr;
  auto found = table().by_point.find({path.mount.get(), path.dentry.get()});
  return found == table().by_point.end() ? nullptr : found->second;
}

void follow_mounts(Path &path) {
  while (Mount *mount = mount_on(path)) {
    path.mount = Ref<Mount>(mount);
    path.dentry = mount->root;
  }
}

bool follow_up(Path &path) {
  bool moved = false;
  while (path.dentry == path.mount->root && path.mount->parent) {
    Path up(path.mount->parent, path.mount->mountpoint);
    path = std::move(up);
    moved = true;
  }
  return moved;
}

Ref<Dentry> root_dentry_of(SuperBlock &sb) {
  Ref<Dentry> &root = table().users[&sb].root;
  if (!root) root = Dentry::make_root(sb.root());
  return root;
}

Ref<Mount> make_internal_mount(Ref<SuperBlock> sb) {
  Ref<Dentry> root = root_dentry_of(*sb);
  return make_ref<Mount>(std::move(sb), std::move(root), "none", 0u);
}

Result<void> check_mount_writable(const Path &path) {
  if (path.mount->read_only()) return Err(Errno::RoFs);
  return {};
}

Result<void> mount_at(const Path &where, Ref<SuperBlock> sb, std::string source,
                      std::uint32_t flags) {
  Path point = where;
  follow_mounts(point);
  TRY(check_mountpoint(point, sb->root()->is_directory()));
  Ref<Dentry> root = root_dentry_of(*sb);
  auto mount = make_ref<Mount>(std::move(sb), std::move(root), std::move(source), flags);
  attach(mount, point);
  return {};
}

Result<Path> mount_root(Ref<SuperBlock> sb, std::string source, std::uint32_t flags) {
  if (!sb->root()->is_directory()) return Err(Errno::NotDir);
  Ref<Dentry> root = root_dentry_of(*sb);
  auto mount = make_ref<Mount>(std::move(sb), std::move(root), std::move(source), flags);
  mount->attached = true;
  table().all.push_back(mount);
  return Path(mount, mount->root);
}

Result<void> bind_mount(const Path &where, const Path &what, bool recursive) {
  Path point = where;
  follow_mounts(point);
  TRY(check_mountpoint(point, what.inode().is_directory()));
  if (what.dentry->anonymous()) return Err(Errno::Inval);
  // The copies are collected first, so that a bind below itself does not copy its own copies.
  const std::vector<Ref<Mount>> sources = table().all;
  auto top = make_ref<Mount>(what.mount->sb, what.dentry, what.mount->source, what.mount->flags);
  attach(top, point);
  if (!recursive) return {};
  std::unordered_map<const Mount *, Ref<Mount>> copies{{what.mount.get(), top}};
  for (const Ref<Mount> &source : sources) {  // parents come before their children
    auto parent = copies.find(source->parent.get());
    if (!source->parent || parent == copies.end()) continue;
    if (source->parent == what.mount && !is_below(source->mountpoint.get(), what.dentry.get()))
      continue;
    auto copy = make_ref<Mount>(source->sb, source->root, source->source, source->flags);
    attach(copy, Path(parent->second, source->mountpoint));
    copies.emplace(source.get(), copy);
  }
  return {};
}

Result<void> unmount(const Path &where, bool detach_lazily) {
  if (where.dentry != where.mount->root || !where.mount->attached) return Err(Errno::Inval);
  Mount &mount = *where.mount;
  if (!mount.parent) return Err(Errno::Busy);  // the root of the name space
  if (!detach_lazily) {
    if (has_children(mount)) return Err(Errno::Busy);
    dcache::prune_superblock(*mount.sb);
    // Held by the table, by our caller's path, and by nobody else.
    if (mount.ref_count() > 2) return Err(Errno::Busy);
    TRY(mount.sb->sync());
    if (!mount.attached) return Err(Errno::Inval);
    detach(mount);
    return {};
  }
  // Everything below goes too, the last mounted first.
  const std::vector<Ref<Mount>> all = table().all;
  std::vector<Ref<Mount>> leaving;
  for (const Ref<Mount> &m : all) {
    if (mount_is_below(m.get(), &mount)) leaving.push_back(m);
  }
  std::reverse(leaving.begin(), leaving.end());
  for (const Ref<Mount> &m : leaving) detach(*m);
  return {};
}

Result<void> move_mount(const Path &from, const Path &to) {
  if (from.dentry != from.mount->root || !from.mount->attached || !from.mount->parent)
    return Err(Errno::Inval);
  Path point = to;
  follow_mounts(point);
  TRY(check_mountpoint(point, from.inode().is_directory()));
  if (mount_is_below(point.mount.get(), from.mount.get())) return Err(Errno::Loop);
  const Ref<Mount> mount = from.mount;
  detach(*mount);
  attach(mount, point);
  return {};
}

Result<void> remount(const Path &where, std::string_view options, std::uint32_t flags,
                     bool mount_only) {
  if (where.dentry != where.mount->root) return Err(Errno::Inval);
  Mount &mount = *where.mount;
  if (!mount_only) {
    const bool read_only = flags & kMountReadOnly;
    if (read_only) TRY(mount.sb->sync());
    TRY(mount.sb->remount(options, read_only));
  }
  mount.flags = flags;
  return {};
}

Result<void> pivot_root(const Path &new_root, const Path &put_old, FsContext &fs) {
  if (new_root.dentry != new_root.mount->root || !new_root.mount->attached)
    return Err(Errno::Inval);
  if (!new_root.inode().is_directory() || !put_old.inode().is_directory())
    return Err(Errno::NotDir);
  const Path old_root = fs.root;
  if (old_root.dentry != old_root.mount->root) return Err(Errno::Inval);
  if (new_root.mount == old_root.mount || put_old.mount == old_root.mount) return Err(Errno::Busy);
  if (!mount_is_below(put_old.mount.get(), new_root.mount.get())) return Err(Errno::Inval);
  // From inside a chroot, the new root might be above the old one: the mounts would form a ring.
  if (!mount_is_below(new_root.mount.get(), old_root.mount.get())) return Err(Errno::Inval);
  if (!new_root.mount->parent) return Err(Errno::Inval);
  const Ref<Mount> top = new_root.mount;
  const Ref<Mount> old = old_root.mount;
  detach(*top);
  if (old->parent) {
    const Path old_point(old->parent, old->mountpoint);
    detach(*old);
    attach(top, old_point);
  } else {
    detach(*old);
    top->attached = true;
    table().all.insert(table().all.begin(), top);
  }
  attach(old, put_old);
  return {};
}

std::uint32_t mount_flags(const Path &path) { return path.mount->flags; }
int mount_id(const Path &path) { return path.mount->id; }
bool is_mount_root(const Path &path) { return path.dentry == path.mount->root; }

std::vector<MountInfo> list_mounts(const Path &root) {
  std::vector<MountInfo> result;
  for (const Ref<Mount> &m : table().all) {
    if (!mount_is_below(m.get(), root.mount.get())) continue;
    std::string where = path_name(Path(m, m->root), root);
    if (where.starts_with("(unreachable)")) continue;
    MountInfo info;
    info.id = m->id;
    info.parent_id = m->parent ? m->parent->id : m->id;
    info.source = m->source;
    info.mount_point = std::move(where);
    info.type = std::string(m->sb->type_name());
    info.options = m->sb->show_options();
    info.flags = m->flags | (m->sb->read_only() ? kMountReadOnly : 0u);
    info.device = m->sb->device;
    for (const Dentry *d = m->root.get(); d && d->parent(); d = d->parent()) {
      info.root_in_fs = "/" + std::string(d->name()) + info.root_in_fs;
    }
    if (info.root_in_fs.empty()) info.root_in_fs = "/";
    result.push_back(std::move(info));
  }
  return result;
}

void sync_all() {
  const std::vector<Ref<Mount>> all = table().all;
  std::vector<const SuperBlock *> done;
  for (const Ref<Mount> &m : all) {
    if (std::find(done.begin(), done.end(), m->sb.get()) != done.end()) continue;
    done.push_back(m->sb.get());
    if (auto synced = m->sb->sync(); !synced) {
      log_warn("{}: could not be written back: {}", m->source, errno_text(synced.error()));
    }
  }
}

std::size_t emergency_remount() {
  std::size_t changed = 0;
  const std::vector<Ref<Mount>> all = table().all;
  for (const Ref<Mount> &m : all) {
    const FileSystemType *type = find_filesystem(m->sb->type_name());
    const bool keeps_data = m->sb->type_name() == "hostfs" || (type && !type->no_device);
    if (!keeps_data || m->read_only()) continue;
    m->flags |= kMountReadOnly;
    ++changed;
    auto done = m->sb->sync();
    if (done) done = m->sb->remount("", true);
    if (!done) log_warn("{}: could not be made read-only: {}", m->source, errno_text(done.error()));
  }
  return changed;
}

}  // namespace cowbird
