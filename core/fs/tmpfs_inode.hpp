// The objects of a tmpfs instance; internal to fs/tmpfs.cpp and its tests. Needs the big kernel
// lock.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fs/tmpfs.hpp"
#include "mm/page_cache.hpp"

namespace cowbird {

class TmpfsSuperBlock;

// What an instance may use and does use. Pages and inodes may outlive the instance.
struct TmpfsBudget {
  std::uint64_t max_pages = 0, used_pages = 0;
  std::uint64_t max_inodes = 0, used_inodes = 0;
  bool default_pages = true, default_inodes = true;
};

// The contents of a regular file: the cache is the storage.
class TmpfsPages final : public PageCache {
 public:
  explicit TmpfsPages(std::shared_ptr<TmpfsBudget> budget) : budget_(std::move(budget)) {}
  ~TmpfsPages() override;
  std::uint64_t size() const override { return size_; }
  void set_size(std::uint64_t size) { size_ = size; }

 protected:
  bool memory_only() const override { return true; }
  Result<void> charge(std::uint64_t pages) override;
  void uncharge(std::uint64_t pages) override;

 private:
  std::shared_ptr<TmpfsBudget> budget_;
  std::uint64_t size_ = 0;
};

class TmpfsInode final : public Inode {
 public:
  static constexpr std::uint32_t kMaxLinks = 65000;

  TmpfsInode(TmpfsSuperBlock &sb, std::uint64_t number, std::uint32_t full_mode);
  ~TmpfsInode() override;

  std::uint64_t size() const override;
  Result<FileStat> getattr() override;
  Result<void> setattr(const SetAttr &change) override;
  Result<void> extend(std::uint64_t new_size) override;
  Result<Ref<Inode>> lookup(std::string_view name) override;
  Result<Ref<Inode>> create(std::string_view name, std::uint32_t full_mode, DeviceNumber number,
                            const Credentials &owner) override;
  Result<Ref<Inode>> mkdir(std::string_view name, std::uint32_t full_mode,
                           const Credentials &owner) override;
  Result<Ref<Inode>> symlink(std::string_view name, std::string_view target,
                             const Credentials &owner) override;
  Result<Ref<Inode>> tmpfile(std::uint32_t full_mode, const Credentials &owner) override;
  Result<void> link(std::string_view name, Inode &target) override;
  Result<void> unlink(std::string_view name, Inode &victim) override;
  Result<void> rmdir(std::string_view name, Inode &victim) override;
  Result<void> rename(std::string_view old_name, Inode &moved, Inode &new_parent,
                      std::string_view new_name, Inode *replaced, bool exchange) override;
  Result<void> readdir(std::uint64_t offset, const DirEmitter &emit) override;
  Result<std::string> readlink() override;
  PageCache *page_cache() override { return pages_.get(); }
  Result<void> fallocate(std::uint32_t flags, std::uint64_t offset, std::uint64_t length) override;
  Result<std::uint64_t> seek_data(std::uint64_t offset, bool hole) override;
  Result<void> sync(bool) override { return {}; }  // memory is all there is
  Result<std::string> get_xattr(std::string_view name) override;
  Result<void> set_xattr(std::string_view name, std::string_view value, int flags) override;
  Result<std::vector<std::string>> list_xattr() override;
  Result<void> remove_xattr(std::string_view name) override;

 private:
  struct Entry {
    std::string name;
    Ref<TmpfsInode> inode;
  };
  TmpfsSuperBlock &tmpfs() const;
  TmpfsInode *find(std::string_view name);
  void insert(std::string_view name, Ref<TmpfsInode> inode);
  void erase(std::string_view name);
  void changed();
  static void charge_xattr(std::size_t added, std::size_t removed);
  Result<Ref<TmpfsInode>> make_child(std::uint32_t full_mode, const Credentials &owner);
  Result<void> allocate(std::uint64_t offset, std::uint64_t length, bool keep_size);

  std::shared_ptr<TmpfsBudget> budget_;
  Ref<TmpfsPages> pages_;
  std::string target_;
  Timespec birth_;
  bool linkable_ = false;  // made by O_TMPFILE: linkat may give it its first name
  // By position: a listing that was interrupted goes on where it was, whatever came or went. The
  // index's keys are the entries' names.
  std::map<std::uint64_t, Entry> entries_;
  std::unordered_map<std::string_view, std::uint64_t> by_name_;
  std::uint64_t next_offset_ = 2;
  std::map<std::string, std::string, std::less<>> xattrs_;
};

class TmpfsSuperBlock final : public SuperBlock {
 public:
  TmpfsSuperBlock(const char *type, const TmpfsOptions &options);
  std::string_view type_name() const override { return type_; }
  Ref<Inode> root() override { return root_; }
  Result<FsStat> statfs() override;
  bool read_only() const override { return read_only_; }
  Result<void> remount(std::string_view options, bool read_only_now) override;
  std::string show_options() const override;

  const std::shared_ptr<TmpfsBudget> &budget() const { return budget_; }
  // NoSpc over the limit.
  Result<Ref<TmpfsInode>> make_inode(std::uint32_t full_mode);

 private:
  const char *type_;
  bool read_only_ = false;
  std::shared_ptr<TmpfsBudget> budget_;
  std::uint64_t next_number_ = 1;
  Ref<TmpfsInode> root_;
};

}  // namespace cowbird
