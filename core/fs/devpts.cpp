#include "fs/devpts.hpp"

#include <charconv>
#include <unordered_map>
#include <vector>

#include "fs/pseudo_fs.hpp"
#include "tty/pty.hpp"

namespace cowbird {
namespace {

constexpr std::uint64_t kDevptsMagic = 0x1cd1;
constexpr std::uint64_t kDevptsRootNumber = 1, kPtmxNumber = 2, kFirstSlaveNumber = 3;
constexpr std::uint32_t kTtyGroup = 5;

// The node of one slave. Its owner and mode can be changed (login(1), mesg(1)), and last as long as
// the pair does.
class SlaveInode final : public PseudoInode {
 public:
  SlaveInode(SuperBlock &sb, const PtyInfo &info)
      : PseudoInode(sb, info.index + kFirstSlaveNumber, FileType::CharDevice, 0620) {
    uid = info.uid;
    gid = kTtyGroup;
    rdev = {kPtsMajor, info.index};
  }
  Result<void> setattr(const SetAttr &change) override {
    if (change.mode) mode = (mode & ~07777u) | (*change.mode & 07777);
    if (change.uid) uid = *change.uid;
    if (change.gid) gid = *change.gid;
    if (change.atime) atime = *change.atime;
    if (change.mtime) mtime = *change.mtime;
    ctime = current_time();
    return {};
  }
};

class PtsDirectory final : public PseudoInode {
 public:
  explicit PtsDirectory(SuperBlock &sb)
      : PseudoInode(sb, kDevptsRootNumber, FileType::Directory, 0755) {}

  Result<Ref<Inode>> lookup(std::string_view name) override {
    if (name == "ptmx") {
      auto ptmx = make_ref<PseudoInode>(sb(), kPtmxNumber, FileType::CharDevice, 0666u);
      ptmx->rdev = {5, 2};
      return Ref<Inode>(std::move(ptmx));
    }
    unsigned index = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    PtyInfo info{};
    if (error != std::errc() || end != name.data() + name.size() || !find_pty(index, info)) {
      return Err(Errno::NoEnt);
    }
    return Ref<Inode>(slave(info));
  }

  Result<void> readdir(std::uint64_t offset, const DirEmitter &emit) override {
    if (offset <= 2 && !emit("ptmx", kPtmxNumber, FileType::CharDevice, 3)) return {};
    // Emitting may sleep, and pairs come and go meanwhile.
    std::vector<unsigned> indices;
    for_each_pty([&](const PtyInfo &info) { indices.push_back(info.index); });
    for (const unsigned index : indices) {
      const std::uint64_t position = index + 3ull;
      if (position < offset) continue;
      if (!emit(std::to_string(index), index + kFirstSlaveNumber, FileType::CharDevice,
                position + 1)) {
        break;
      }
    }
    return {};
  }

 private:
  // The same inode while the pair lives, since it carries owner and mode.
  Ref<SlaveInode> slave(const PtyInfo &info) {
    std::erase_if(slaves_, [](const auto &entry) {
      PtyInfo now{};
      return !find_pty(entry.first, now) || now.created_ns != entry.second.created_ns;
    });
    Entry &entry = slaves_[info.index];
    if (!entry.inode) {
      entry.inode = make_ref<SlaveInode>(sb(), info);
      entry.created_ns = info.created_ns;
      const unsigned index = info.index;
      const std::int64_t created = info.created_ns;
      entry.inode->set_exists([index, created] {
        PtyInfo now{};
        return find_pty(index, now) && now.created_ns == created;
      });
    }
    return entry.inode;
  }

  struct Entry {
    Ref<SlaveInode> inode;
    std::int64_t created_ns = 0;
  };
  std::unordered_map<unsigned, Entry> slaves_;
};

class DevptsSuperBlock final : public PseudoSuperBlock {
 public:
  DevptsSuperBlock()
      : PseudoSuperBlock("devpts", kDevptsMagic), root_(make_ref<PtsDirectory>(*this)) {}
  Ref<Inode> root() override { return root_; }
  std::string show_options() const override { return ",gid=5,mode=620,ptmxmode=666"; }

 private:
  Ref<Inode> root_;
};

Ref<SuperBlock> &instance() {
  static Ref<SuperBlock> sb;
  return sb;
}

}  // namespace

void register_devpts() {
  instance() = make_ref<DevptsSuperBlock>();
  register_filesystem({"devpts", true, true,
                       [](const MountRequest &) -> Result<Ref<SuperBlock>> { return instance(); }});
}

Ref<SuperBlock> devpts_superblock() { return instance(); }

}  // namespace cowbird
