// The parts of hostfs, for each other.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <unordered_map>

#include "fs/hostfs.hpp"
#include "sched/bkl.hpp"
#include "vfs/file.hpp"

namespace cowbird::hostfs {

class HostInode;

// Runs a host call without the big kernel lock; -1 becomes the host's error.
template <typename Call>
Result<std::int64_t> host_call(Call &&call) {
  std::int64_t result = 0;
  int error = 0;
  {
    BklReleased released;
    do {
      result = call();
      error = errno;
    } while (result < 0 && error == EINTR);
  }
  if (result < 0) return Err(errno_from_host(error));
  return result;
}

// A descriptor from a host call. When the host has no more, unused names are forgotten, which
// closes theirs, and the call is made once more.
template <typename Open>
Result<UniqueFd> host_open(Open &&open);

class HostSuperBlock final : public SuperBlock {
 public:
  HostSuperBlock(HostfsOptions options, UniqueFd directory);
  std::string_view type_name() const override { return "hostfs"; }
  Ref<Inode> root() override { return root_; }
  Result<FsStat> statfs() override;
  // Stores what mappings have changed.
  Result<void> sync() override;
  bool read_only() const override { return options_.read_only; }
  std::string show_options() const override { return ""; }

  Result<void> read_root();
  // The inode of this host object: the one there is, or a new one that takes the descriptor.
  Ref<Inode> inode_for(UniqueFd fd, const struct stat &st);
  void forget(HostInode &inode);

 private:
  struct Key {
    std::uint64_t device, inode;
    bool operator==(const Key &) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key &k) const {
      return k.inode * 0x9e3779b97f4a7c15ull ^ k.device;
    }
  };
  HostfsOptions options_;
  UniqueFd directory_;  // until read_root()
  std::unordered_map<Key, HostInode *, KeyHash> inodes_;
  Ref<Inode> root_;
};

// The pages of a host file. Holds its own descriptors, so that mappings outlive the inode's names.
class HostCache final : public PageCache {
 public:
  explicit HostCache(int path_fd);
  ~HostCache() override;
  std::uint64_t size() const override { return size_; }
  void set_size(std::uint64_t size) { size_ = size; }

  // A descriptor for reading or for writing too; opened on first use.
  Result<int> io_fd(bool write);

 protected:
  Result<void> fill_page(std::uint64_t index, Pfn pfn) override {
    return fill_pages(index, pfn, 1);
  }
  Result<void> fill_pages(std::uint64_t index, Pfn first, std::uint64_t pages) override;
  std::uint64_t fill_batch() const override { return 32; }
  Result<void> store_page(std::uint64_t index, Pfn pfn, std::uint64_t bytes) override;

 private:
  UniqueFd path_fd_;
  UniqueFd io_fd_;
  UniqueFd read_fd_;  // what io_fd_ was before the file was opened for writing
  bool io_writable_ = false;
  std::uint64_t size_ = 0;
};

class HostInode final : public Inode {
 public:
  HostInode(HostSuperBlock &sb, UniqueFd fd, const struct stat &st);
  ~HostInode() override;

  int fd() const { return fd_.get(); }
  std::uint64_t host_device() const { return host_device_; }
  // Takes over what the host says now; drops cached pages when the file was changed behind our
  // back.
  void take_over(const struct stat &st);
  // After a change of our own: the host's new time stamps are no surprise.
  Result<void> refresh();

  std::uint64_t size() const override { return size_; }
  Result<FileStat> getattr() override;
  Result<void> setattr(const SetAttr &change) override;
  Result<Ref<Inode>> lookup(std::string_view name) override;
  Result<Ref<Inode>> create(std::string_view name, std::uint32_t mode, DeviceNumber rdev,
                            const Credentials &owner) override;
  Result<Ref<Inode>> mkdir(std::string_view name, std::uint32_t mode,
                           const Credentials &owner) override;
  Result<Ref<Inode>> symlink(std::string_view name, std::string_view target,
                             const Credentials &owner) override;
  Result<void> link(std::string_view name, Inode &target) override;
  Result<void> unlink(std::string_view name, Inode &victim) override;
  Result<void> rmdir(std::string_view name, Inode &victim) override;
  Result<void> rename(std::string_view old_name, Inode &moved, Inode &new_parent,
                      std::string_view new_name, Inode *replaced, bool exchange) override;
  Result<void> readdir(std::uint64_t offset, const DirEmitter &emit) override;
  Result<std::string> readlink() override;
  Result<Ref<File>> open(std::uint32_t flags) override;
  PageCache *page_cache() override { return cache_.get(); }
  Result<void> sync(bool data_only) override;
  Result<void> fallocate(std::uint32_t mode, std::uint64_t offset, std::uint64_t length) override;
  Result<std::uint64_t> seek_data(std::uint64_t offset, bool hole) override;
  bool cache_names() const override { return false; }
  bool revalidate(Inode &directory, std::string_view name) override;

 private:
  HostSuperBlock &super() const { return static_cast<HostSuperBlock &>(sb()); }
  std::string self_path() const;
  Result<void> set_size(std::uint64_t size);
  // What a new name leads to, given to the credentials' user when we may.
  Result<Ref<Inode>> adopt_new(std::string_view name, const Credentials &owner);

  UniqueFd fd_;  // O_PATH
  UniqueFd listing_;
  std::uint64_t host_device_;
  std::uint64_t size_ = 0;
  struct timespec host_mtime_ {};
  Ref<HostCache> cache_;
};

// "/proc/self/fd/N": a name for the object behind an O_PATH descriptor that no rename can redirect.
// For regular files and directories only, never for links.
std::string fd_path(int fd);

}  // namespace cowbird::hostfs
