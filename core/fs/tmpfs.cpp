#include "fs/tmpfs.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <unordered_map>
#include <vector>

#include "abi/fcntl.hpp"
#include "abi/stat.hpp"
#include "abi/statfs.hpp"
#include "base/log.hpp"
#include "fs/tmpfs_inode.hpp"
#include "mm/phys_memory.hpp"
#include "vfs/path.hpp"

namespace cowbird {

// --- pages

TmpfsPages::~TmpfsPages() { drop_all(); }

Result<void> TmpfsPages::charge(std::uint64_t pages) {
  if (budget_->used_pages + pages > budget_->max_pages) return Err(Errno::NoSpc);
  budget_->used_pages += pages;
  return {};
}

void TmpfsPages::uncharge(std::uint64_t pages) { budget_->used_pages -= pages; }

// --- inodes

namespace {

// Of all instances. A guest's root may mount as many as it likes, and what is not page frames is
// the kernel's own memory: it is bounded by the guest's once more.
std::uint64_t all_inodes = 0;
std::uint64_t all_xattr_bytes = 0;

std::uint64_t max_all_xattr_bytes() {
  return std::max<std::uint64_t>(kMiB, phys().total_pages() * kPageSize / 32);
}

}  // namespace

TmpfsInode::TmpfsInode(TmpfsSuperBlock &sb, std::uint64_t number, std::uint32_t full_mode)
    : Inode(sb, number), budget_(sb.budget()) {
  mode = full_mode;
  ++budget_->used_inodes;
  ++all_inodes;
  atime = mtime = ctime = birth_ = current_time();
  if (is_regular()) pages_ = make_ref<TmpfsPages>(budget_);
}

TmpfsInode::~TmpfsInode() {
  --budget_->used_inodes;
  --all_inodes;
  for (const auto &[name, value] : xattrs_) charge_xattr(0, name.size() + value.size());
  // A deep tree must not recurse: children whose only owner this is are taken apart by the list.
  std::vector<Ref<TmpfsInode>> work;
  auto take_children = [&work](TmpfsInode &node) {
    for (auto &[offset, entry] : node.entries_) work.push_back(std::move(entry.inode));
    node.entries_.clear();
    node.by_name_.clear();
  };
  take_children(*this);
  while (!work.empty()) {
    const Ref<TmpfsInode> child = std::move(work.back());
    work.pop_back();
    if (child && child->ref_count() == 1) take_children(*child);
  }
}

TmpfsSuperBlock &TmpfsInode::tmpfs() const { return static_cast<TmpfsSuperBlock &>(sb()); }

std::uint64_t TmpfsInode::size() const {
  if (pages_) return pages_->size();
  if (is_directory()) return 40 + 20 * entries_.size();
  return target_.size();
}

Result<FileStat> TmpfsInode::getattr() {
  FileStat stat = TRY(Inode::getattr());
  stat.blocks = pages_ ? pages_->cached_pages() * (kPageSize / 512) : 0;
  stat.btime = birth_;
  return stat;
}

Result<void> TmpfsInode::setattr(const SetAttr &change) {
  if (change.size) {
    if (!pages_) return Err(Errno::Inval);
    const std::uint64_t old_size = pages_->size();
    pages_->set_size(*change.size);
    if (*change.size < old_size) pages_->truncate_range(*change.size, ~0ull);
    mtime = current_time();
  }
  SetAttr rest = change;
  rest.size.reset();
  return Inode::setattr(rest);
}

Result<void> TmpfsInode::extend(std::uint64_t new_size) {
  pages_->set_size(new_size);
  return {};
}

// --- directories

TmpfsInode *TmpfsInode::find(std::string_view name) {
  auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : entries_.at(found->second).inode.get();
}

void TmpfsInode::insert(std::string_view name, Ref<TmpfsInode> inode) {
  const std::uint64_t offset = next_offset_++;
  auto [entry, added] = entries_.emplace(offset, Entry{std::string(name), std::move(inode)});
  by_name_.emplace(entry->second.name, offset);
}

void TmpfsInode::erase(std::string_view name) {
  auto found = by_name_.find(name);
  const std::uint64_t offset = found->second;
  by_name_.erase(found);  // its key lives in the entry
  entries_.erase(offset);
}

void TmpfsInode::changed() { mtime = ctime = current_time(); }

Result<Ref<Inode>> TmpfsInode::lookup(std::string_view name) {
  TmpfsInode *found = find(name);
  if (!found) return Err(Errno::NoEnt);
  return Ref<Inode>(found);
}

Result<Ref<TmpfsInode>> TmpfsInode::make_child(std::uint32_t full_mode, const Credentials &owner) {
  Ref<TmpfsInode> child = TRY(tmpfs().make_inode(full_mode));
  child->uid = owner.fsuid;
  child->gid = owner.fsgid;
  if (mode & abi::kS_ISGID) {
    child->gid = gid;
    if (child->is_directory()) child->mode |= abi::kS_ISGID;
  }
  return child;
}

Result<Ref<Inode>> TmpfsInode::create(std::string_view name, std::uint32_t full_mode,
                                      DeviceNumber number, const Credentials &owner) {
  Ref<TmpfsInode> child = TRY(make_child(full_mode, owner));
  child->rdev = number;
  insert(name, child);
  changed();
  return Ref<Inode>(std::move(child));
}

Result<Ref<Inode>> TmpfsInode::mkdir(std::string_view name, std::uint32_t full_mode,
                                     const Credentials &owner) {
  Ref<TmpfsInode> child = TRY(make_child(full_mode, owner));
  child->nlink = 2;
  insert(name, child);
  ++nlink;
  changed();
  return Ref<Inode>(std::move(child));
}

Result<Ref<Inode>> TmpfsInode::symlink(std::string_view name, std::string_view target,
                                       const Credentials &owner) {
  Ref<TmpfsInode> child = TRY(make_child(abi::kS_IFLNK | 0777, owner));
  child->target_ = std::string(target);
  insert(name, child);
  changed();
  return Ref<Inode>(std::move(child));
}

Result<Ref<Inode>> TmpfsInode::tmpfile(std::uint32_t full_mode, const Credentials &owner) {
  Ref<TmpfsInode> child = TRY(make_child(full_mode, owner));
  child->nlink = 0;
  child->linkable_ = true;
  return Ref<Inode>(std::move(child));
}

Result<void> TmpfsInode::link(std::string_view name, Inode &target) {
  auto &inode = static_cast<TmpfsInode &>(target);
  if (inode.nlink == 0 && !inode.linkable_) return Err(Errno::NoEnt);
  if (inode.nlink >= kMaxLinks) return Err(Errno::MLink);
  insert(name, Ref<TmpfsInode>(&inode));
  ++inode.nlink;
  inode.ctime = current_time();
  changed();
  return {};
}

Result<void> TmpfsInode::unlink(std::string_view name, Inode &victim) {
  const Ref<Inode> held(&victim);
  erase(name);
  --victim.nlink;
  victim.ctime = current_time();
  changed();
  return {};
}

Result<void> TmpfsInode::rmdir(std::string_view name, Inode &victim) {
  const Ref<Inode> held(&victim);
  if (!static_cast<TmpfsInode &>(victim).entries_.empty()) return Err(Errno::NotEmpty);
  erase(name);
  victim.nlink = 0;
  victim.ctime = current_time();
  --nlink;
  changed();
  return {};
}

Result<void> TmpfsInode::rename(std::string_view old_name, Inode &moved, Inode &new_parent,
                                std::string_view new_name, Inode *replaced, bool exchange) {
  auto &to = static_cast<TmpfsInode &>(new_parent);
  const Ref<TmpfsInode> source(static_cast<TmpfsInode *>(&moved));
  const Ref<TmpfsInode> target(static_cast<TmpfsInode *>(replaced));
  if (target && !exchange && target->is_directory() && !target->entries_.empty())
    return Err(Errno::NotEmpty);
  erase(old_name);
  if (target) to.erase(new_name);
  to.insert(new_name, source);
  if (exchange) insert(old_name, target);
  // ".." counts as a link of the parent.
  if (source->is_directory()) {
    --nlink;
    ++to.nlink;
  }
  if (target && target->is_directory()) {
    --to.nlink;
    if (exchange) ++nlink;
  }
  if (target && !exchange) target->nlink = target->is_directory() ? 0 : target->nlink - 1;
  source->ctime = current_time();
  if (target) target->ctime = source->ctime;
  changed();
  to.changed();
  return {};
}

Result<void> TmpfsInode::readdir(std::uint64_t offset, const DirEmitter &emit) {
  // The emitter may fault guest memory in, which sleeps; the VFS holds our lock meanwhile, so no
  // name comes or goes.
  for (auto it = entries_.lower_bound(offset); it != entries_.end(); ++it) {
    const Entry &entry = it->second;
    if (!emit(entry.name, entry.inode->number(), entry.inode->type(), it->first + 1)) break;
  }
  return {};
}

Result<std::string> TmpfsInode::readlink() {
  if (!is_symlink()) return Err(Errno::Inval);
  return target_;
}

// --- file contents

Result<void> TmpfsInode::allocate(std::uint64_t offset, std::uint64_t length, bool keep_size) {
  const std::uint64_t first = offset >> kPageShift;
  const std::uint64_t last = (offset + length - 1) >> kPageShift;
  // Asked before anything is taken: a request that cannot fit leaves no half of itself.
  if (last - first + 1 > budget_->max_pages) return Err(Errno::NoSpc);
  for (std::uint64_t index = first; index <= last; ++index) {
    Pfn frame;
    if (pages_->find_page(index, frame)) continue;
    auto page = pages_->get_page(index);
    if (!page) {
      return Err(page.error() == Errno::NoMem ? Errno::NoSpc : page.error());
    }
    phys().put(*page);
  }
  if (!keep_size && offset + length > pages_->size()) pages_->set_size(offset + length);
  return {};
}

Result<void> TmpfsInode::fallocate(std::uint32_t flags, std::uint64_t offset,
                                   std::uint64_t length) {
  if (!pages_) return Err(Errno::NoDev);
  const bool keep_size = flags & abi::kFALLOC_FL_KEEP_SIZE;
  const std::uint32_t operation = flags & ~abi::kFALLOC_FL_KEEP_SIZE;
  switch (operation) {
    case 0:
      return allocate(offset, length, keep_size);
    case abi::kFALLOC_FL_PUNCH_HOLE:
      if (!keep_size) return Err(Errno::OpNotSupp);
      pages_->truncate_range(offset, offset + length);
      return {};
    case abi::kFALLOC_FL_ZERO_RANGE:
      pages_->truncate_range(offset, offset + length);
      return allocate(offset, length, keep_size);
    default:
      return Err(Errno::OpNotSupp);
  }
}

Result<std::uint64_t> TmpfsInode::seek_data(std::uint64_t offset, bool hole) {
  const std::uint64_t end = pages_->size();
  std::uint64_t index = offset >> kPageShift;
  Pfn frame;
  if (hole) {
    while ((index << kPageShift) < end && pages_->find_page(index, frame)) ++index;
    return std::min(std::max(offset, index << kPageShift), end);
  }
  std::uint64_t next = 0;
  if (!pages_->next_cached(index, next) || (next << kPageShift) >= end) return Err(Errno::NxIo);
  return std::max(offset, next << kPageShift);
}

// --- extended attributes

namespace {
inline constexpr std::size_t kMaxXattrBytes = 65536;  // of one inode, names and values
}

void TmpfsInode::charge_xattr(std::size_t added, std::size_t removed) {
  all_xattr_bytes += added - removed;
}

Result<std::string> TmpfsInode::get_xattr(std::string_view name) {
  auto found = xattrs_.find(name);
  if (found == xattrs_.end()) return Err(Errno::NoData);
  return found->second;
}

Result<void> TmpfsInode::set_xattr(std::string_view name, std::string_view value, int flags) {
  if (!name.starts_with("user.") && !name.starts_with("trusted.") &&
      !name.starts_with("security.")) {
    return Err(Errno::OpNotSupp);
  }
  auto found = xattrs_.find(name);
  const auto how = static_cast<std::uint32_t>(flags);
  if ((how & abi::kXATTR_CREATE) && found != xattrs_.end()) return Err(Errno::Exist);
  if ((how & abi::kXATTR_REPLACE) && found == xattrs_.end()) return Err(Errno::NoData);
  std::size_t total = name.size() + value.size();
  for (const auto &[other, content] : xattrs_) {
    if (other != name) total += other.size() + content.size();
  }
  if (total > kMaxXattrBytes) return Err(Errno::NoSpc);
  const std::size_t added = name.size() + value.size();
  const std::size_t removed = found == xattrs_.end() ? 0 : name.size() + found->second.size();
  if (all_xattr_bytes - removed + added > max_all_xattr_bytes()) return Err(Errno::NoSpc);
  charge_xattr(added, removed);
  xattrs_.insert_or_assign(std::string(name), std::string(value));
  ctime = current_time();
  return {};
}

Result<std::vector<std::string>> TmpfsInode::list_xattr() {
  std::vector<std::string> names;
  for (const auto &[name, value] : xattrs_) names.push_back(name);
  return names;
}

Result<void> TmpfsInode::remove_xattr(std::string_view name) {
  auto found = xattrs_.find(name);
  if (found == xattrs_.end()) return Err(Errno::NoData);
  charge_xattr(0, found->first.size() + found->second.size());
  xattrs_.erase(found);
  ctime = current_time();
  return {};
}

// --- the file system

TmpfsSuperBlock::TmpfsSuperBlock(const char *type, const TmpfsOptions &options)
    : type_(type), budget_(std::make_shared<TmpfsBudget>()) {
  device = next_anonymous_device();
  const std::uint64_t half = std::max<std::uint64_t>(phys().total_pages() / 2, 1);
  budget_->max_pages = options.max_pages ? options.max_pages : half;
  budget_->max_inodes = options.max_inodes ? options.max_inodes : half;
  budget_->default_pages = options.max_pages == 0;
  budget_->default_inodes = options.max_inodes == 0;
  root_ = make_ref<TmpfsInode>(*this, next_number_++, abi::kS_IFDIR | options.mode);
  root_->nlink = 2;
  root_->uid = options.uid;
  root_->gid = options.gid;
}

Result<Ref<TmpfsInode>> TmpfsSuperBlock::make_inode(std::uint32_t full_mode) {
  if (budget_->used_inodes >= budget_->max_inodes || all_inodes >= phys().total_pages())
    return Err(Errno::NoSpc);
  return make_ref<TmpfsInode>(*this, next_number_++, full_mode);
}

Result<FsStat> TmpfsSuperBlock::statfs() {
  FsStat stat;
  stat.type = type_ == std::string_view("ramfs") ? abi::kRAMFS_MAGIC : abi::kTMPFS_MAGIC;
  stat.blocks = budget_->max_pages;
  stat.blocks_free = stat.blocks_available =
      budget_->max_pages - std::min(budget_->used_pages, budget_->max_pages);
  stat.files = budget_->max_inodes;
  stat.files_free = budget_->max_inodes - std::min(budget_->used_inodes, budget_->max_inodes);
  return stat;
}

Result<void> TmpfsSuperBlock::remount(std::string_view options, bool read_only_now) {
  TmpfsOptions current;
  current.max_pages = budget_->max_pages;
  current.max_inodes = budget_->max_inodes;
  const TmpfsOptions wanted = TRY(parse_tmpfs_options(options, current));
  if (wanted.max_pages < budget_->used_pages || wanted.max_inodes < budget_->used_inodes)
    return Err(Errno::Inval);
  if (wanted.max_pages != budget_->max_pages) budget_->default_pages = false;
  if (wanted.max_inodes != budget_->max_inodes) budget_->default_inodes = false;
  budget_->max_pages = wanted.max_pages;
  budget_->max_inodes = wanted.max_inodes;
  read_only_ = read_only_now;
  return {};
}

std::string TmpfsSuperBlock::show_options() const {
  std::string text;
  if (!budget_->default_pages)
    text += fmt::format(",size={}k", budget_->max_pages * (kPageSize / kKiB));
  if (!budget_->default_inodes) text += fmt::format(",nr_inodes={}", budget_->max_inodes);
  const std::uint32_t permissions = root_->mode & abi::kS_IALLUGO;
  if (permissions != 01777) text += fmt::format(",mode={:o}", permissions);
  if (root_->uid) text += fmt::format(",uid={}", root_->uid);
  if (root_->gid) text += fmt::format(",gid={}", root_->gid);
  return text;
}

Ref<SuperBlock> make_tmpfs(const char *type_name, const TmpfsOptions &options) {
  return make_ref<TmpfsSuperBlock>(type_name, options);
}

namespace {

// A number with k, m, g, t; `percent_of` != 0 allows "50%".
Result<std::uint64_t> parse_amount(std::string_view text, std::uint64_t percent_of, int base) {
  std::uint64_t value = 0;
  const char *end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, value, base);
  if (error != std::errc{} || stop == text.data()) return Err(Errno::Inval);
  if (stop == end) return value;
  if (end - stop != 1 || base != 10) return Err(Errno::Inval);
  unsigned shift = 0;
  switch (*stop) {
    case '%':
      if (percent_of == 0 || value > 100) return Err(Errno::Inval);
      return percent_of / 100 * value + percent_of % 100 * value / 100;
    case 'k':
    case 'K':
      shift = 10;
      break;
    case 'm':
    case 'M':
      shift = 20;
      break;
    case 'g':
    case 'G':
      shift = 30;
      break;
    case 't':
    case 'T':
      shift = 40;
      break;
    default:
      return Err(Errno::Inval);
  }
  if (value > (~0ull >> shift)) return Err(Errno::Inval);
  return value << shift;
}

Result<void> parse_option(std::string_view key, std::string_view value, TmpfsOptions &options) {
  const std::uint64_t memory = phys().total_pages() * kPageSize;
  if (key == "size") {
    const std::uint64_t bytes = TRY(parse_amount(value, memory, 10));
    // 0 is "no limit" (tmpfs(5)): all of the memory.
    options.max_pages = bytes ? std::min(pages_of(std::min(bytes, memory)), phys().total_pages())
                              : phys().total_pages();
  } else if (key == "nr_blocks") {
    const std::uint64_t pages = TRY(parse_amount(value, 0, 10));
    options.max_pages = pages ? std::min(pages, phys().total_pages()) : phys().total_pages();
  } else if (key == "nr_inodes") {
    const std::uint64_t inodes = TRY(parse_amount(value, 0, 10));
    options.max_inodes = inodes ? std::min(inodes, phys().total_pages()) : phys().total_pages();
  } else if (key == "mode") {
    options.mode = static_cast<std::uint32_t>(TRY(parse_amount(value, 0, 8))) & abi::kS_IALLUGO;
  } else if (key == "uid") {
    options.uid = static_cast<std::uint32_t>(TRY(parse_amount(value, 0, 10)));
  } else if (key == "gid") {
    options.gid = static_cast<std::uint32_t>(TRY(parse_amount(value, 0, 10)));
  } else {
    return Err(Errno::Inval);
  }
  return {};
}

}  // namespace

Result<TmpfsOptions> parse_tmpfs_options(std::string_view text, TmpfsOptions options) {
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(item.size() + 1, text.size()));
    if (item.empty()) continue;
    const std::size_t equal = item.find('=');
    if (equal == std::string_view::npos) return Err(Errno::Inval);
    TRY(parse_option(item.substr(0, equal), item.substr(equal + 1), options));
  }
  return options;
}

Result<TmpfsOptions> parse_tmpfs_options(std::string_view text) {
  return parse_tmpfs_options(text, TmpfsOptions{});
}

void register_tmpfs() {
  for (const char *name : {"tmpfs", "ramfs"}) {
    register_filesystem(
        {name, true, true, [name](const MountRequest &request) -> Result<Ref<SuperBlock>> {
           const TmpfsOptions options = TRY(parse_tmpfs_options(request.options));
           return make_tmpfs(name, options);
         }});
  }
}

Result<Ref<Inode>> make_memfd_inode(std::uint32_t mode, const Credentials &owner) {
  // The kernel's own instance has no mount; like all shared memory it is bound by the memory alone.
  static auto *sb = [] {
    TmpfsOptions options;
    options.max_pages = phys().total_pages();
    return new Ref<TmpfsSuperBlock>(make_ref<TmpfsSuperBlock>("tmpfs", options));
  }();
  Ref<TmpfsInode> inode = TRY((*sb)->make_inode(abi::kS_IFREG | (mode & abi::kS_IALLUGO)));
  inode->uid = owner.fsuid;
  inode->gid = owner.fsgid;
  inode->nlink = 0;
  return Ref<Inode>(std::move(inode));
}

}  // namespace cowbird
