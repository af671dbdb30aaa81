// Inodes and file systems: the interface that a file system implements. All functions need the big
// kernel lock and may sleep unless they say otherwise.
//
// Locking: Inode::lock() (a SleepMutex) is held by the VFS around operations that change a
// directory or a file's size (create, unlink, rename, link, write that extends, truncate); rename
// takes the two parents' in order of address, ancestors first. File systems may rely on it and must
// not take it themselves.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ref.hpp"
#include "base/result.hpp"
#include "mm/page_cache.hpp"
#include "sched/wait.hpp"
#include "vfs/types.hpp"

namespace cowbird {

class Dentry;
class File;
class Inode;
class SuperBlock;
struct Path;  // vfs/path.hpp

// The S_IFMT part of a mode.
enum class FileType : std::uint32_t {
  Fifo = 0010000,
  CharDevice = 0020000,
  Directory = 0040000,
  BlockDevice = 0060000,
  Regular = 0100000,
  Symlink = 0120000,
  Socket = 0140000,
  Anonymous = 0,
};

// Receives directory entries; false stops the listing (the buffer is full): the entry is not
// consumed.
using DirEmitter = std::function<bool(std::string_view name, std::uint64_t inode, FileType type,
                                      std::uint64_t next_offset)>;

class Inode : public RefCounted<Inode> {
 public:
  virtual ~Inode();

  SuperBlock &sb() const { return *sb_; }
  std::uint64_t number() const { return number_; }
  FileType type() const { return static_cast<FileType>(mode & 0170000); }
  bool is_directory() const { return type() == FileType::Directory; }
  bool is_regular() const { return type() == FileType::Regular; }
  bool is_symlink() const { return type() == FileType::Symlink; }
  SleepMutex &lock() { return lock_; }

  // Attributes as last known. A file system whose attributes change behind our back refreshes them
  // in getattr().
  std::uint32_t mode = 0;  // type and permissions
  std::uint32_t uid = 0, gid = 0;
  std::uint32_t nlink = 1;
  DeviceNumber rdev;
  Timespec atime, mtime, ctime;

  virtual std::uint64_t size() const { return 0; }
  virtual Result<FileStat> getattr();
  // After the VFS's permission checks. Truncation and extension go here too (size).
  virtual Result<void> setattr(const SetAttr &change);

  // --- directories. Names are non-empty, at most 255 bytes, without '/', and neither "." nor "..".
  // lookup: NoEnt when there is none (the VFS caches that when cache_negative()).
  virtual Result<Ref<Inode>> lookup(std::string_view name);
  // A new inode with this mode (type and permissions, umask applied) owned by the credentials'
  // fsuid/fsgid (or the directory's group when it is set-gid). Regular files, fifos, sockets,
  // devices.
  virtual Result<Ref<Inode>> create(std::string_view name, std::uint32_t mode, DeviceNumber rdev,
                                    const Credentials &owner);
  virtual Result<Ref<Inode>> mkdir(std::string_view name, std::uint32_t mode,
                                   const Credentials &owner);
  virtual Result<Ref<Inode>> symlink(std::string_view name, std::string_view target,
                                     const Credentials &owner);
  virtual Result<void> link(std::string_view name, Inode &target);
  virtual Result<void> unlink(std::string_view name, Inode &victim);
  virtual Result<void> rmdir(std::string_view name, Inode &victim);
  // `replaced` is what was at the new name, or nullptr. exchange: RENAME_EXCHANGE.
  virtual Result<void> rename(std::string_view old_name, Inode &moved, Inode &new_parent,
                              std::string_view new_name, Inode *replaced, bool exchange);
  // An unnamed regular file (O_TMPFILE).
  virtual Result<Ref<Inode>> tmpfile(std::uint32_t mode, const Credentials &owner);
  // Lists entries from `offset` on (0 is the beginning; other values came from the emitter),
  // without "." and "..", which the VFS adds (offsets 0 and 1 are theirs; file systems use 2 and
  // more).
  virtual Result<void> readdir(std::uint64_t offset, const DirEmitter &emit);

  virtual Result<std::string> readlink();
  // For links whose target is no path (/proc/PID/fd/N, /proc/PID/cwd): the target itself.
  virtual bool is_magic_link() const { return false; }
  // Where a magic link leads (file_path() of an open file); Inval for other inodes. Overriders
  // include vfs/path.hpp.
  virtual Result<Path> follow_magic();

  // Opens the inode: the object behind the descriptor. The default makes a PageCache-backed file of
  // a regular file, and what vfs/ registers for fifos and device numbers. `flags` are open(2)'s.
  virtual Result<Ref<File>> open(std::uint32_t flags);

  // The pages of a regular file; nullptr when it has none (procfs).
  virtual PageCache *page_cache() { return nullptr; }
  // A write through the page cache went past the end: the size becomes `new_size`. Called with
  // lock() held. The default goes through setattr(size).
  virtual Result<void> extend(std::uint64_t new_size);
  // fallocate(2); called with lock() held. OpNotSupp by default.
  virtual Result<void> fallocate(std::uint32_t mode, std::uint64_t offset, std::uint64_t length);
  // lseek(2)'s SEEK_DATA and SEEK_HOLE for an offset below the size: by default all is data.
  virtual Result<std::uint64_t> seek_data(std::uint64_t offset, bool hole);
  // fsync(2): by default dirty pages are written back.
  virtual Result<void> sync(bool data_only);

  // Cached names may be trusted without asking again; false for procfs and hostfs, whose
  // revalidate() decides.
  virtual bool cache_names() const { return true; }
  virtual bool revalidate(Inode & /*directory*/, std::string_view /*name*/) { return true; }

  // Extended attributes; OpNotSupp by default.
  virtual Result<std::string> get_xattr(std::string_view name);
  virtual Result<void> set_xattr(std::string_view name, std::string_view value, int flags);
  virtual Result<std::vector<std::string>> list_xattr();
  virtual Result<void> remove_xattr(std::string_view name);

  // Open fifo/pipe state, bound socket and the like, owned by the object kind that uses it.
  std::shared_ptr<void> attached;

  // Advisory locks (flock, fcntl) of this inode; vfs/file_lock.hpp.
  std::shared_ptr<void> locks;
  // How many open files may write, or (negative) how many run it as a program: TxtBsy.
  int write_count = 0;
  // memfd_create(2)'s seals (F_SEAL_*); F_SEAL_SEAL where sealing was not asked for.
  std::uint32_t seals = 1;
  // inotify(7) watches of this inode; vfs/notify.hpp.
  std::shared_ptr<void> watches;

 protected:
  Inode(SuperBlock &sb, std::uint64_t number) : sb_(&sb), number_(number) {}

 private:
  friend struct DebugLayout;
  SuperBlock *sb_;  // kept alive by the mounts and by open files' paths
  std::uint64_t number_;
  SleepMutex lock_{"inode_lock"};
};

// One mounted instance of a file system.
class SuperBlock : public RefCounted<SuperBlock> {
 public:
  virtual ~SuperBlock() = default;
  virtual std::string_view type_name() const = 0;  // "tmpfs"
  virtual Ref<Inode> root() = 0;
  virtual Result<FsStat> statfs() = 0;
  virtual Result<void> sync() { return {}; }
  virtual bool read_only() const { return false; }
  virtual Result<void> remount(std::string_view /*options*/, bool /*read_only*/) { return {}; }
  // Mount options as /proc/mounts shows them after rw/ro, with a leading comma, or "".
  virtual std::string show_options() const { return ""; }
  DeviceNumber device;  // of stat's st_dev: anonymous (0:N) or the block device's
};

struct MountRequest {
  std::string source;
  std::string options;  // the file system's own, comma separated
  bool read_only = false;
};

// Known kinds of file systems, by name (mount -t). `no_device` is shown in /proc/filesystems.
struct FileSystemType {
  std::string name;
  bool no_device = true;
  // A guest may mount it (hostfs is mounted by the operator only).
  bool user_mountable = true;
  std::function<Result<Ref<SuperBlock>>(const MountRequest &)> mount;
};
void register_filesystem(FileSystemType type);
const FileSystemType *find_filesystem(std::string_view name);
void for_each_filesystem(const std::function<void(const FileSystemType &)> &function);

// The time stamp of changes made now.
Timespec current_time();
DeviceNumber next_anonymous_device();

}  // namespace cowbird
