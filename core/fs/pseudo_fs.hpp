// Building blocks of file systems whose contents the kernel makes up when they are read (procfs,
// sysfs): text files, links and fixed directories. Nothing is stored; every inode is made on
// lookup. Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ref.hpp"
#include "base/result.hpp"
#include "vfs/file.hpp"
#include "vfs/inode.hpp"
#include "vfs/path.hpp"

namespace cowbird {

class PseudoSuperBlock : public SuperBlock {
 public:
  PseudoSuperBlock(const char *type, std::uint64_t magic) : type_(type), magic_(magic) {
    device = next_anonymous_device();
  }
  std::string_view type_name() const override { return type_; }
  Result<FsStat> statfs() override {
    FsStat stat;
    stat.type = magic_;
    return stat;
  }

 private:
  const char *type_;
  std::uint64_t magic_;
};

// What every pseudo inode has. Time stamps are those of its making, as on Linux's procfs.
class PseudoInode : public Inode {
 public:
  PseudoInode(SuperBlock &sb, std::uint64_t number, FileType type, std::uint32_t permissions);
  // Modes and owners can be changed by nobody.
  Result<void> setattr(const SetAttr &change) override;
  // Nor can names be made: as on Linux's procfs, the place for them does not exist.
  Result<Ref<Inode>> create(std::string_view name, std::uint32_t mode, DeviceNumber rdev,
                            const Credentials &owner) override;
  Result<Ref<Inode>> mkdir(std::string_view name, std::uint32_t mode,
                           const Credentials &owner) override;
  Result<Ref<Inode>> symlink(std::string_view name, std::string_view target,
                             const Credentials &owner) override;
  bool cache_names() const override { return false; }
  bool revalidate(Inode &, std::string_view) override { return !exists_ || exists_(); }
  // What the inode stands for may go away: asked before its name is used again.
  void set_exists(std::function<bool()> exists) { exists_ = std::move(exists); }

 private:
  std::function<bool()> exists_;
};

using TextSource = std::function<Result<std::string>()>;
// Gets what one write(2) wrote, without a trailing newline.
using TextTarget = std::function<Result<void>(std::string_view text)>;

// A file whose text is made when it is read from the beginning; reads that go on see the same text.
class TextInode final : public PseudoInode {
 public:
  TextInode(SuperBlock &sb, std::uint64_t number, std::uint32_t permissions, TextSource source,
            TextTarget target = nullptr);
  Result<Ref<File>> open(std::uint32_t flags) override;
  Result<void> setattr(const SetAttr &change) override;

 private:
  TextSource source_;
  TextTarget target_;
};

class LinkInode final : public PseudoInode {
 public:
  LinkInode(SuperBlock &sb, std::uint64_t number, TextSource target)
      : PseudoInode(sb, number, FileType::Symlink, 0777), target_(std::move(target)) {}
  Result<std::string> readlink() override { return target_(); }

 private:
  TextSource target_;
};

// A link that leads to an object without going through its name.
class MagicLinkInode final : public PseudoInode {
 public:
  MagicLinkInode(SuperBlock &sb, std::uint64_t number, std::uint32_t permissions,
                 std::function<Result<Path>()> target, TextSource text)
      : PseudoInode(sb, number, FileType::Symlink, permissions),
        target_(std::move(target)),
        text_(std::move(text)) {}
  bool is_magic_link() const override { return true; }
  Result<Path> follow_magic() override { return target_(); }
  Result<std::string> readlink() override { return text_(); }

 private:
  std::function<Result<Path>()> target_;
  TextSource text_;
};

// One name of a fixed directory; `make` builds the inode with the number that is asked of it.
struct PseudoEntry {
  std::string name;
  FileType type;
  std::function<Ref<Inode>(SuperBlock &sb, std::uint64_t number)> make;
};
using PseudoEntries = std::vector<PseudoEntry>;

// A directory with fixed names. Numbers of its entries follow from its own and their position, so
// that they are the same at every lookup: `stride` numbers after `first_child` are theirs.
class PseudoDirectory : public PseudoInode {
 public:
  PseudoDirectory(SuperBlock &sb, std::uint64_t number, PseudoEntries entries,
                  std::uint32_t permissions = 0555);
  Result<Ref<Inode>> lookup(std::string_view name) override;
  Result<void> readdir(std::uint64_t offset, const DirEmitter &emit) override;

 protected:
  // The number of the entry at this position.
  std::uint64_t child_number(std::size_t position) const;
  const PseudoEntries &entries() const { return entries_; }
  // Continues a listing with further entries, whose offsets start at first_free_offset().
  std::uint64_t first_free_offset() const { return 2 + entries_.size(); }
  // Emits the fixed entries from `offset` on; false when the buffer is full.
  bool emit_fixed(std::uint64_t offset, const DirEmitter &emit);

 private:
  PseudoEntries entries_;
};

// Entries for the common cases.
PseudoEntry text_entry(std::string name, std::uint32_t permissions, TextSource source,
                       TextTarget target = nullptr);
PseudoEntry link_entry(std::string name, TextSource target);
PseudoEntry directory_entry(std::string name, PseudoEntries entries);

}  // namespace cowbird
