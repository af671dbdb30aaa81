#include "fs/initramfs.hpp"

#include <map>
#include <tuple>

#include "abi/fcntl.hpp"
#include "abi/stat.hpp"
#include "mm/phys_memory.hpp"
#include "vfs/file.hpp"

namespace cowbird {

namespace {

// Creates entries below a root; remembers the first name of files with several.
class Unpacker {
 public:
  explicit Unpacker(FsContext &fs)
      : fs_(fs), walk_{fs_, Credentials::kernel(), fs_.root}, saved_umask_(fs.umask) {
    fs_.umask = 0;
  }
  ~Unpacker() { fs_.umask = saved_umask_; }

  Result<void> take(const CpioEntry &entry);

 private:
  using LinkKey = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>;
  Result<void> make_parents(std::string_view name);
  Result<void> make_room(const CpioEntry &entry);
  Result<void> make_object(const CpioEntry &entry);
  Result<void> make_file(const CpioEntry &entry);
  Result<void> write_contents(std::string_view name, std::span<const std::byte> data);
  Result<void> set_owner_and_time(const CpioEntry &entry);

  FsContext &fs_;
  WalkContext walk_;
  std::uint32_t saved_umask_;
  std::map<LinkKey, std::string> links_;
};

// Directories that the archive forgot; what is no directory on the way is an error later.
Result<void> Unpacker::make_parents(std::string_view name) {
  for (std::size_t slash = name.find('/'); slash != std::string_view::npos;
       slash = name.find('/', slash + 1)) {
    if (auto made = make_directory(walk_, name.substr(0, slash), 0755);
        !made && made.error() != Errno::Exist)
      return made;
  }
  return {};
}

// A later entry of the same name replaces an earlier one, unless both are directories.
Result<void> Unpacker::make_room(const CpioEntry &entry) {
  auto there = lookup(walk_, entry.name, LookupFlag::None);
  if (!there) return there.error() == Errno::NoEnt ? Result<void>{} : Err(there.error());
  const bool directory = (entry.mode & abi::kS_IFMT) == abi::kS_IFDIR;
  if (there->inode().is_directory()) {
    if (directory) return {};
    return remove_directory(walk_, entry.name);
  }
  return remove_name(walk_, entry.name);
}

Result<void> Unpacker::write_contents(std::string_view name, std::span<const std::byte> data) {
  Ref<File> file =
      TRY(open_path(walk_, name, abi::kO_WRONLY | abi::kO_TRUNC | abi::kO_NOFOLLOW, 0));
  std::uint64_t offset = 0;
  while (offset < data.size()) {
    IovIter from = IovIter::kernel(data.subspan(offset));
    const std::uint64_t done = TRY(file->write(from, offset));
    if (done == 0) return Err(Errno::Io);
  }
  return {};
}

// Hard links: the contents come with one of the names, by custom the last.
Result<void> Unpacker::make_file(const CpioEntry &entry) {
  const LinkKey key{entry.device_major, entry.device_minor, entry.inode};
  auto first = links_.end();
  if (entry.nlink > 1) first = links_.find(key);
  if (first != links_.end()) {
    const Path target = TRY(lookup(walk_, first->second, LookupFlag::None));
    TRY(make_link(walk_, target, walk_, entry.name));
  } else {
    TRY(make_node(walk_, entry.name, abi::kS_IFREG | (entry.mode & abi::kS_IALLUGO), {}));
    if (entry.nlink > 1) links_.emplace(key, std::string(entry.name));
  }
  if (entry.data.empty()) return {};
  return write_contents(entry.name, entry.data);
}

Result<void> Unpacker::make_object(const CpioEntry &entry) {
  switch (entry.mode & abi::kS_IFMT) {
    case abi::kS_IFREG:
      return make_file(entry);
    case abi::kS_IFDIR:
      if (auto made = make_directory(walk_, entry.name, entry.mode & abi::kS_IALLUGO);
          !made && made.error() != Errno::Exist)
        return made;
      return {};
    case abi::kS_IFLNK:
      return make_symlink(walk_,
                          {reinterpret_cast<const char *>(entry.data.data()), entry.data.size()},
                          entry.name);
    case abi::kS_IFCHR:
    case abi::kS_IFBLK:
    case abi::kS_IFIFO:
    case abi::kS_IFSOCK:
      return make_node(walk_, entry.name, entry.mode, {entry.rdev_major, entry.rdev_minor});
    default:
      return Err(Errno::Inval);
  }
}

Result<void> Unpacker::set_owner_and_time(const CpioEntry &entry) {
  const Path path = TRY(lookup(walk_, entry.name, LookupFlag::None));
  SetAttr change;
  change.uid = entry.uid;
  change.gid = entry.gid;
  if (!path.inode().is_symlink()) change.mode = entry.mode & abi::kS_IALLUGO;
  change.atime = change.mtime = Timespec{entry.mtime, 0};
  return set_attributes(path, change, Credentials::kernel());
}

Result<void> Unpacker::take(const CpioEntry &entry) {
  TRY(make_parents(entry.name));
  TRY(make_room(entry));
  TRY(make_object(entry));
  return set_owner_and_time(entry);
}

}  // namespace

Result<void> unpack_initramfs(FsContext &fs, std::span<const std::byte> archive, std::string &why) {
  Unpacker unpacker(fs);
  Errno first = Errno::Inval;
  why = parse_cpio(archive, phys().total_pages() * kPageSize, [&](const CpioEntry &entry) {
    auto taken = unpacker.take(entry);
    if (!taken) first = taken.error();
    return taken;
  });
  if (why.empty()) return {};
  return Err(first);
}

}  // namespace cowbird
