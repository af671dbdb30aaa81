// Open files (Linux's struct file, an open file description) and what poll needs. A File is shared
// by the descriptors that dup() and fork() make. All functions need the big kernel lock; read,
// write, ioctl and fsync may sleep.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/ref.hpp"
#include "base/result.hpp"
#include "mm/iov_iter.hpp"
#include "mm/mm.hpp"
#include "sched/wait.hpp"
#include "vfs/inode.hpp"
#include "vfs/path.hpp"

namespace cowbird {

class Task;

// Collects the wait queues on which a poller must sit. poll() of a file calls wait() for each queue
// that will be woken when its readiness changes.
class PollTable {
 public:
  virtual void wait(WaitQueue &queue) = 0;

 protected:
  ~PollTable() = default;
};

struct EpollItem;  // vfs/epoll.cpp

enum class Whence : std::uint8_t { Set = 0, Current = 1, End = 2, Data = 3, Hole = 4 };

class File : public RefCounted<File> {
 public:
  explicit File(std::uint32_t flags);
  virtual ~File();

  // Set by the VFS when it opens a path; empty (no dentry) for pipes, sockets and the like until
  // they get an anonymous name.
  Path path;
  Ref<Inode> inode;
  Credentials credentials;  // of the opener
  // The current offset; files that cannot seek leave it at 0.
  std::uint64_t position = 0;
  SleepMutex position_lock{"file_pos"};

  // open(2)'s flags without the creation flags; fcntl(F_SETFL) changes O_APPEND, O_NONBLOCK, ...
  std::uint32_t flags() const { return flags_; }
  void set_flags(std::uint32_t flags) { flags_ = flags; }
  bool readable() const { return (flags_ & 3) != 1 && !is_path_only(); }
  bool writable() const { return (flags_ & 3) != 0 && !is_path_only(); }
  bool nonblocking() const { return flags_ & 04000; }
  bool append() const { return flags_ & 02000; }
  bool is_path_only() const { return flags_ & 010000000; }

  // Reads at `position` and advances it, by what was transferred. Streams ignore it. Errors as in
  // read(2), write(2); an interrupted sleep that transferred nothing is RestartSys.
  virtual Result<std::uint64_t> read(IovIter &to, std::uint64_t &offset);
  virtual Result<std::uint64_t> write(IovIter &from, std::uint64_t &offset);
  // false: there is no such operation, whatever the flags of open(2) say (Inval).
  virtual bool can_read() const { return true; }
  virtual bool can_write() const { return true; }
  // false: pread/pwrite/lseek are SPipe.
  virtual bool seekable() const { return false; }
  virtual Result<std::uint64_t> seek(std::int64_t offset, Whence whence);
  virtual Result<void> readdir(const DirEmitter &emit);
  // `command` and `argument` as the guest passed them; NotTy when unknown.
  virtual Result<std::int64_t> ioctl(Task &task, std::uint32_t command, std::uint64_t argument);
  // The events (POLLIN ...) that are ready now; registers on `table` when it is not null. Does not
  // sleep.
  virtual std::uint32_t poll(PollTable *table);
  // false: its readiness means nothing, and epoll does not take it (epoll_ctl(2), EPERM).
  virtual bool can_poll() const {
    return !inode || !(inode->is_regular() || inode->is_directory());
  }
  // Fills `request.cache`, `max_prot` and so on for mmap of this file; NoDev when it cannot be
  // mapped.
  virtual Result<void> mmap(MmapRequest &request);
  virtual Result<void> fsync(bool data_only);
  virtual Result<void> fallocate(int mode, std::uint64_t offset, std::uint64_t length);
  virtual Result<void> truncate(std::uint64_t size);
  // A descriptor of this file is closed (each one; for POSIX lock release and flush errors).
  virtual Result<void> flush(Task &) { return {}; }
  // FASYNC/F_SETOWN target; 0 none, negative a process group.
  int async_owner = 0;
  int async_signal = 0;
  // Who set it: the signal goes only to processes that they may signal.
  std::uint32_t async_uid = 0, async_euid = 0;
  // What /proc/PID/fd/N points to when there is no path: "pipe:[123]", "anon_inode:[eventpoll]".
  virtual std::string describe() const;

  // Open files of the whole guest, and how many there may be (NFile): /proc/sys/fs/file-nr.
  static std::uint64_t open_count();
  static std::uint64_t max_open();

  // Kept by vfs/: the watches of epoll instances on this file, whether it holds one count of
  // inode->write_count, and the SIGIO watcher of O_ASYNC.
  EpollItem *epoll_items = nullptr;
  bool holds_write_count = false;
  std::shared_ptr<void> async_watch;

 private:
  friend struct DebugLayout;
  std::uint32_t flags_;
};

// A regular file on a page cache: what Inode::open makes by default.
Ref<File> make_page_cache_file(Inode &inode, std::uint32_t flags);

// An inode without a name in an internal file system (pipes, sockets, anon_inode objects): `mode`
// with its type, owned by the credentials. It has a number of its own.
Ref<Inode> make_anonymous_inode(std::uint32_t mode, const Credentials &owner);

// Gives a file without a path this name (memfd: "/memfd:x (deleted)").
void name_anonymous_file(File &file, const std::string &name);

// The page_cache()-independent part of mmap() for regular files: access rules of open modes, noexec
// mounts, seals (Access, Perm). make_page_cache_file's mmap uses it; other file kinds may.
Result<void> check_mmap_access(const File &file, MmapRequest &request);

// Device drivers register what opening a character or block device number makes.
using DeviceOpener =
    std::function<Result<Ref<File>>(Inode &inode, DeviceNumber number, std::uint32_t flags)>;
// For minors [first, first + count) of `major`. Exist when taken. `name` as in /proc/devices.
Result<void> register_char_device(std::string name, std::uint32_t major, std::uint32_t first_minor,
                                  std::uint32_t count, DeviceOpener opener);
Result<void> register_block_device_number(std::string name, std::uint32_t major,
                                          std::uint32_t first_minor, std::uint32_t count,
                                          DeviceOpener opener);
void unregister_char_device(std::uint32_t major, std::uint32_t first_minor);
void unregister_block_device_number(std::uint32_t major, std::uint32_t first_minor);

}  // namespace cowbird
