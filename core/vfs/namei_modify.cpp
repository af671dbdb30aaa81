// The calls that change names: mknod, mkdir, symlink, link, unlink, rmdir, rename.
#include "abi/fcntl.hpp"
#include "abi/inotify.hpp"
#include "abi/stat.hpp"
#include "vfs/notify.hpp"
#include "vfs/walker.hpp"

namespace cowbird {

namespace {

// Renames between directories run one at a time, so that the ancestry they checked stays true.
// Taken before any inode's lock.
SleepMutex &rename_mutex() {
  static SleepMutex *mutex = new SleepMutex("rename");
  return *mutex;
}

bool is_dots(std::string_view name) { return name.empty() || name == "." || name == ".."; }

// `ancestor` is `dentry` or one of the directories above it.
bool is_ancestor(const Dentry *ancestor, const Dentry *dentry) {
  for (; dentry; dentry = dentry->parent()) {
    if (dentry == ancestor) return true;
  }
  return false;
}

// Finds where a new name goes, checks that it is free and may be made, and calls `make` with the
// directory's lock held; its result becomes the dentry's inode.
template <typename Make>
Result<void> create_name(const WalkContext &walk, std::string_view name, bool is_directory,
                         Make &&make) {
  Walker walker(walk, LookupFlag::None);
  TRY(walker.begin(name));
  TRY(walker.to_parent());
  if (is_dots(walker.last())) return Err(Errno::Exist);
  TRY(walker.check_search());
  const Path &directory = walker.at();
  const std::string_view last = walker.last();
  if (last.size() > abi::kNAME_MAX) return Err(Errno::NameTooLong);
  SleepLock locked(directory.inode().lock());
  Ref<Dentry> child = TRY(lookup_child_locked(*directory.dentry, last));
  if (!child->negative()) return Err(Errno::Exist);
  // A name with a slash at its end can only become a directory.
  if (walker.trailing_slash() && !is_directory) return Err(Errno::NoEnt);
  if (directory.dentry->unlinked()) return Err(Errno::NoEnt);
  TRY(check_directory_change(directory, walk.credentials));
  Ref<Inode> inode = TRY(make(directory, last));
  if (child->hashed() || child->unlinked()) {
    dcache::instantiate(*child, std::move(inode));
  } else if (Dentry *now = dcache::find(*directory.dentry, last)) {
    if (now->negative()) dcache::instantiate(*now, std::move(inode));
  } else {
    dcache::add(*directory.dentry, last, std::move(inode));
  }
  notify_name(directory.inode(), abi::kIN_CREATE, last, is_directory);
  return {};
}

}  // namespace

Result<void> make_node(const WalkContext &walk, std::string_view name, std::uint32_t mode,
                       DeviceNumber device) {
  const std::uint32_t type = (mode & abi::kS_IFMT) ? (mode & abi::kS_IFMT) : abi::kS_IFREG;
  switch (type) {
    case abi::kS_IFREG:
    case abi::kS_IFIFO:
    case abi::kS_IFSOCK:
      device = DeviceNumber{};
      break;
    case abi::kS_IFCHR:
    case abi::kS_IFBLK:
      if (!walk.credentials.capable(Capability::Mknod)) return Err(Errno::Perm);
      break;
    case abi::kS_IFDIR:
      return Err(Errno::Perm);
    default:
      return Err(Errno::Inval);
  }
  const std::uint32_t full = type | (mode & abi::kS_IALLUGO & ~walk.fs.umask);
  return create_name(walk, name, false, [&](const Path &directory, std::string_view last) {
    return directory.inode().create(last, full, device, walk.credentials);
  });
}

Result<void> make_directory(const WalkContext &walk, std::string_view name, std::uint32_t mode) {
  const std::uint32_t full = abi::kS_IFDIR | (mode & (0777 | abi::kS_ISVTX) & ~walk.fs.umask);
  return create_name(walk, name, true, [&](const Path &directory, std::string_view last) {
    return directory.inode().mkdir(last, full, walk.credentials);
  });
}

Result<void> make_symlink(const WalkContext &walk, std::string_view target, std::string_view name) {
  if (target.empty()) return Err(Errno::NoEnt);
  if (target.size() >= abi::kPATH_MAX) return Err(Errno::NameTooLong);
  return create_name(walk, name, false, [&](const Path &directory, std::string_view last) {
    return directory.inode().symlink(last, target, walk.credentials);
  });
}

Result<void> make_link(const WalkContext & /*old_walk*/, const Path &target,
                       const WalkContext &new_walk, std::string_view new_name) {
  const Ref<Inode> inode(&target.inode());
  TRY(create_name(new_walk, new_name, false,
                  [&](const Path &directory, std::string_view last) -> Result<Ref<Inode>> {
                    if (!(directory.mount == target.mount)) return Err(Errno::XDev);
                    if (inode->is_directory()) return Err(Errno::Perm);
                    if (&inode->sb() != &directory.inode().sb()) return Err(Errno::XDev);
                    TRY(directory.inode().link(last, *inode));
                    return inode;
                  }));
  notify_inode(*inode, abi::kIN_ATTRIB);
  return {};
}

namespace {

struct Victim {
  Path directory;
  std::string name;
  bool trailing_slash;
};

Result<Victim> find_victim(const WalkContext &walk, std::string_view name) {
  Walker walker(walk, LookupFlag::None);
  TRY(walker.begin(name));
  TRY(walker.to_parent());
  TRY(walker.check_search());
  if (walker.last().size() > abi::kNAME_MAX) return Err(Errno::NameTooLong);
  return Victim{walker.at(), std::string(walker.last()), walker.trailing_slash()};
}

}  // namespace

namespace {

// `wanted` says whether the inode is the one that is to go.
template <typename Wanted>
Result<void> unlink_if(const WalkContext &walk, std::string_view name, const Wanted &wanted) {
  const Victim victim = TRY(find_victim(walk, name));
  if (is_dots(victim.name)) return Err(Errno::IsDir);
  Inode &directory = victim.directory.inode();
  Ref<Inode> inode;  // let go after the lock: it may be the last reference
  Ref<Dentry> child;
  {
    SleepLock locked(directory.lock());
    child = TRY(lookup_child_locked(*victim.directory.dentry, victim.name));
    if (child->negative()) return Err(Errno::NoEnt);
    inode = Ref<Inode>(child->inode());
    if (!wanted(*inode)) return Err(Errno::NoEnt);
    if (victim.trailing_slash) {
      return Err(inode->is_directory() ? Errno::IsDir : Errno::NotDir);
    }
    TRY(check_directory_change(victim.directory, walk.credentials));
    TRY(check_may_delete(directory, *inode, walk.credentials));
    if (inode->is_directory()) return Err(Errno::IsDir);
    if (child->mount_count > 0) return Err(Errno::Busy);
    TRY(directory.unlink(victim.name, *inode));
    dcache::unlink(*child);
  }
  notify_name(directory, abi::kIN_DELETE, victim.name, false);
  notify_inode(*inode, abi::kIN_ATTRIB);
  if (inode->nlink == 0) notify_inode(*inode, abi::kIN_DELETE_SELF);
  return {};
}

}  // namespace

Result<void> remove_name(const WalkContext &walk, std::string_view name) {
  return unlink_if(walk, name, [](const Inode &) { return true; });
}

Result<void> remove_device_node(const WalkContext &walk, std::string_view name, std::uint32_t mode,
                                DeviceNumber device) {
  return unlink_if(walk, name, [&](const Inode &inode) {
    return ((inode.mode ^ mode) & abi::kS_IFMT) == 0 && inode.rdev == device;
  });
}

Result<void> remove_directory(const WalkContext &walk, std::string_view name) {
  const Victim victim = TRY(find_victim(walk, name));
  if (victim.name == ".") return Err(Errno::Inval);
  if (victim.name == "..") return Err(Errno::NotEmpty);
  if (victim.name.empty()) return Err(Errno::Busy);
  Inode &directory = victim.directory.inode();
  Ref<Inode> inode;
  Ref<Dentry> child;
  {
    SleepLock locked(directory.lock());
    child = TRY(lookup_child_locked(*victim.directory.dentry, victim.name));
    if (child->negative()) return Err(Errno::NoEnt);
    inode = Ref<Inode>(child->inode());
    TRY(check_directory_change(victim.directory, walk.credentials));
    TRY(check_may_delete(directory, *inode, walk.credentials));
    if (!inode->is_directory()) return Err(Errno::NotDir);
    // A directory that the host shows once more inside itself.
    if (child->mount_count > 0 || inode.get() == &directory) return Err(Errno::Busy);
    // Nobody may create a name in it between the test for emptiness and its end.
    SleepLock child_locked(inode->lock());
    TRY(directory.rmdir(victim.name, *inode));
    dcache::unlink(*child);
  }
  notify_name(directory, abi::kIN_DELETE, victim.name, true);
  notify_inode(*inode, abi::kIN_DELETE_SELF);
  return {};
}

// --- rename

namespace {

// Both parents' locks, ancestors first, else by address.
class RenameLocks {
 public:
  RenameLocks(const Path &a, const Path &b) : same_(a.dentry == b.dentry) {
    Inode *first = &a.inode();
    Inode *second = &b.inode();
    if (same_ || first == second) {
      first->lock().lock();
      first_ = first;
      return;
    }
    rename_mutex().lock();
    const bool b_above_a = is_ancestor(b.dentry.get(), a.dentry.get());
    const bool a_above_b = is_ancestor(a.dentry.get(), b.dentry.get());
    if (b_above_a || (!a_above_b && second < first)) std::swap(first, second);
    first->lock().lock();
    second->lock().lock();
    first_ = first;
    second_ = second;
    global_ = true;
  }
  ~RenameLocks() {
    if (second_) second_->lock().unlock();
    first_->lock().unlock();
    if (global_) rename_mutex().unlock();
  }
  RenameLocks(const RenameLocks &) = delete;
  RenameLocks &operator=(const RenameLocks &) = delete;

 private:
  bool same_;
  bool global_ = false;
  Inode *first_ = nullptr;
  Inode *second_ = nullptr;
};

struct RenamePlan {
  const Victim &from;
  const Victim &to;
  Ref<Dentry> old_dentry;
  Ref<Dentry> new_dentry;
  bool exchange;
  bool no_replace;
};

// The rules of rename(2) that do not depend on the file system.
Result<void> check_rename(const RenamePlan &plan, const Credentials &credentials) {
  const Inode *moved = plan.old_dentry->inode();
  const Inode *replaced = plan.new_dentry->inode();
  if (!moved) return Err(Errno::NoEnt);
  if (plan.no_replace && replaced) return Err(Errno::Exist);
  if (plan.exchange && !replaced) return Err(Errno::NoEnt);
  if (!moved->is_directory()) {
    if (plan.from.trailing_slash) return Err(Errno::NotDir);
    if (!plan.exchange && plan.to.trailing_slash) return Err(Errno::NotDir);
  }
  if (is_ancestor(plan.old_dentry.get(), plan.to.directory.dentry.get())) return Err(Errno::Inval);
  if (replaced && is_ancestor(plan.new_dentry.get(), plan.from.directory.dentry.get()))
    return Err(plan.exchange ? Errno::Inval : Errno::NotEmpty);
  TRY(check_directory_change(plan.from.directory, credentials));
  TRY(check_directory_change(plan.to.directory, credentials));
  TRY(check_may_delete(plan.from.directory.inode(), *moved, credentials));
  if (replaced) {
    TRY(check_may_delete(plan.to.directory.inode(), *replaced, credentials));
    if (!plan.exchange) {
      if (moved->is_directory() && !replaced->is_directory()) return Err(Errno::NotDir);
      if (!moved->is_directory() && replaced->is_directory()) return Err(Errno::IsDir);
    }
  } else if (plan.to.directory.dentry->unlinked()) {
    return Err(Errno::NoEnt);
  }
  // A directory that gets another parent has its ".." written.
  if (!(plan.from.directory.dentry == plan.to.directory.dentry)) {
    if (moved->is_directory()) TRY(check_permission(*moved, 2, credentials));
    if (plan.exchange && replaced->is_directory()) TRY(check_permission(*replaced, 2, credentials));
  }
  if (plan.old_dentry->mount_count > 0 || plan.new_dentry->mount_count > 0) return Err(Errno::Busy);
  return {};
}

void notify_rename(const RenamePlan &plan, Inode &moved, Inode *replaced) {
  const std::uint32_t cookie = next_notify_cookie();
  const bool directory = moved.is_directory();
  notify_name(plan.from.directory.inode(), abi::kIN_MOVED_FROM, plan.from.name, directory, cookie);
  notify_name(plan.to.directory.inode(), abi::kIN_MOVED_TO, plan.to.name, directory, cookie);
  notify_inode(moved, abi::kIN_MOVE_SELF);
  if (replaced && !plan.exchange) notify_inode(*replaced, abi::kIN_DELETE_SELF);
}

}  // namespace

Result<void> rename_path(const WalkContext &old_walk, std::string_view old_name,
                         const WalkContext &new_walk, std::string_view new_name,
                         std::uint32_t flags) {
  const bool exchange = flags & abi::kRENAME_EXCHANGE;
  const bool no_replace = flags & abi::kRENAME_NOREPLACE;
  if ((flags & ~(abi::kRENAME_EXCHANGE | abi::kRENAME_NOREPLACE)) || (exchange && no_replace))
    return Err(Errno::Inval);
  const Victim from = TRY(find_victim(old_walk, old_name));
  const Victim to = TRY(find_victim(new_walk, new_name));
  if (!(from.directory.mount == to.directory.mount)) return Err(Errno::XDev);
  if (is_dots(from.name)) return Err(Errno::Busy);
  if (is_dots(to.name)) return Err(no_replace ? Errno::Exist : Errno::Busy);
  Ref<Inode> moved, replaced;  // let go after the locks
  const RenameLocks locks(from.directory, to.directory);
  RenamePlan plan{from, to, {}, {}, exchange, no_replace};
  plan.old_dentry = TRY(lookup_child_locked(*from.directory.dentry, from.name));
  plan.new_dentry = TRY(lookup_child_locked(*to.directory.dentry, to.name));
  TRY(check_rename(plan, old_walk.credentials));
  moved = Ref<Inode>(plan.old_dentry->inode());
  replaced = Ref<Inode>(plan.new_dentry->inode());
  if (moved == replaced) return {};  // two links to one file: nothing to do
  TRY(from.directory.inode().rename(from.name, *moved, to.directory.inode(), to.name,
                                    replaced.get(), exchange));
  if (exchange) {
    dcache::exchange(*plan.old_dentry, *plan.new_dentry);
  } else {
    if (replaced) {
      dcache::unlink(*plan.new_dentry);
    } else {
      dcache::drop(*plan.new_dentry);
    }
    dcache::move(*plan.old_dentry, *to.directory.dentry, to.name);
  }
  notify_rename(plan, *moved, replaced.get());
  return {};
}

}  // namespace cowbird
