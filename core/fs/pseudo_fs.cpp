#include "fs/pseudo_fs.hpp"

#include <algorithm>
#include <memory>

#include "abi/poll.hpp"
#include "mm/phys_memory.hpp"

namespace cowbird {
namespace {

// Text of a pseudo file is at most this; what a guest writes to one is at most a page.
constexpr std::size_t kMaxWrite = kPageSize;

// The text that an open file shows until it is read from its beginning again. A guest may open
// thousands of large ones, so all together are bounded by a part of its memory.
class HeldText {
 public:
  static Result<std::shared_ptr<const HeldText>> create(std::string text) {
    const std::size_t bytes = text.size();
    const std::size_t most =
        std::max<std::size_t>(16 * kMiB, phys().total_pages() * kPageSize / 16);
    if (bytes > kFree && total_ + bytes > most) return Err(Errno::NoMem);
    return std::shared_ptr<const HeldText>(new HeldText(std::move(text)));
  }
  ~HeldText() { total_ -= text_.size(); }
  HeldText(const HeldText &) = delete;
  HeldText &operator=(const HeldText &) = delete;
  const std::string &text() const { return text_; }

 private:
  static constexpr std::size_t kFree = kPageSize;  // small ones are always granted
  explicit HeldText(std::string text) : text_(std::move(text)) { total_ += text_.size(); }
  inline static std::size_t total_ = 0;
  const std::string text_;
};

class TextFile final : public File {
 public:
  TextFile(std::uint32_t flags, TextSource source, TextTarget target)
      : File(flags), source_(std::move(source)), target_(std::move(target)) {}

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &offset) override {
    if (!source_) return Err(Errno::Inval);
    if (offset == 0) text_.reset();
    if (!text_) text_ = TRY(HeldText::create(TRY(source_())));
    // Copying may sleep, and another reader may have the text made anew meanwhile.
    const std::shared_ptr<const HeldText> held = text_;
    const std::string &text = held->text();
    if (offset >= text.size()) {
      text_.reset();
      return std::uint64_t{0};
    }
    const std::uint64_t copied =
        TRY(to.copy_to(std::as_bytes(std::span(text)).subspan(static_cast<std::size_t>(offset))));
    offset += copied;
    return copied;
  }

  Result<std::uint64_t> write(IovIter &from, std::uint64_t &offset) override {
    if (!target_) return Err(Errno::Inval);
    if (from.remaining() > kMaxWrite) return Err(Errno::Inval);
    std::string text(from.remaining(), '\0');
    const std::uint64_t size = text.size();
    const std::uint64_t got = TRY(from.copy_from(std::as_writable_bytes(std::span(text))));
    if (got != size) return Err(Errno::Fault);
    if (!text.empty() && text.back() == '\n') text.pop_back();
    TRY(target_(text));
    offset += size;
    return size;
  }

  bool seekable() const override { return true; }
  Result<std::uint64_t> seek(std::int64_t offset, Whence whence) override {
    std::int64_t base = 0;
    if (whence == Whence::Current) {
      base = static_cast<std::int64_t>(position);
    } else if (whence != Whence::Set) {
      return Err(Errno::Inval);
    }
    std::int64_t target = 0;
    if (__builtin_add_overflow(base, offset, &target) || target < 0) return Err(Errno::Inval);
    position = static_cast<std::uint64_t>(target);
    return position;
  }

  std::uint32_t poll(PollTable *) override {
    return abi::kPOLLIN | abi::kPOLLOUT | abi::kPOLLRDNORM | abi::kPOLLWRNORM;
  }

 private:
  TextSource source_;
  TextTarget target_;
  std::shared_ptr<const HeldText> text_;
};

}  // namespace

PseudoInode::PseudoInode(SuperBlock &sb, std::uint64_t number, FileType type,
                         std::uint32_t permissions)
    : Inode(sb, number) {
  mode = static_cast<std::uint32_t>(type) | permissions;
  if (type == FileType::Directory) nlink = 2;
  atime = mtime = ctime = current_time();
}

Result<void> PseudoInode::setattr(const SetAttr &) { return Err(Errno::Perm); }

Result<Ref<Inode>> PseudoInode::create(std::string_view, std::uint32_t, DeviceNumber,
                                       const Credentials &) {
  return Err(Errno::NoEnt);
}
Result<Ref<Inode>> PseudoInode::mkdir(std::string_view, std::uint32_t, const Credentials &) {
  return Err(Errno::NoEnt);
}
Result<Ref<Inode>> PseudoInode::symlink(std::string_view, std::string_view, const Credentials &) {
  return Err(Errno::NoEnt);
}

TextInode::TextInode(SuperBlock &sb, std::uint64_t number, std::uint32_t permissions,
                     TextSource source, TextTarget target)
    : PseudoInode(sb, number, FileType::Regular, permissions),
      source_(std::move(source)),
      target_(std::move(target)) {}

Result<Ref<File>> TextInode::open(std::uint32_t flags) {
  return Ref<File>(make_ref<TextFile>(flags, source_, target_));
}

Result<void> TextInode::setattr(const SetAttr &change) {
  // `echo x > file` truncates first; there is nothing to cut, and time stamps mean nothing here.
  if (change.mode || change.uid || change.gid) return Err(Errno::Perm);
  return {};
}

PseudoDirectory::PseudoDirectory(SuperBlock &sb, std::uint64_t number, PseudoEntries entries,
                                 std::uint32_t permissions)
    : PseudoInode(sb, number, FileType::Directory, permissions), entries_(std::move(entries)) {}

std::uint64_t PseudoDirectory::child_number(std::size_t position) const {
  // A directory of at most 255 entries owns the 8 bits below its own number.
  return (number() << 8) + position + 1;
}

Result<Ref<Inode>> PseudoDirectory::lookup(std::string_view name) {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].name == name) return entries_[i].make(sb(), child_number(i));
  }
  return Err(Errno::NoEnt);
}

bool PseudoDirectory::emit_fixed(std::uint64_t offset, const DirEmitter &emit) {
  for (std::size_t i = offset > 2 ? static_cast<std::size_t>(offset - 2) : 0; i < entries_.size();
       ++i) {
    if (!emit(entries_[i].name, child_number(i), entries_[i].type, i + 3)) return false;
  }
  return true;
}

Result<void> PseudoDirectory::readdir(std::uint64_t offset, const DirEmitter &emit) {
  emit_fixed(offset, emit);
  return {};
}

PseudoEntry text_entry(std::string name, std::uint32_t permissions, TextSource source,
                       TextTarget target) {
  return {std::move(name), FileType::Regular,
          [permissions, source = std::move(source), target = std::move(target)](
              SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
            return make_ref<TextInode>(sb, number, permissions, source, target);
          }};
}

PseudoEntry link_entry(std::string name, TextSource target) {
  return {std::move(name), FileType::Symlink,
          [target = std::move(target)](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
            return make_ref<LinkInode>(sb, number, target);
          }};
}

PseudoEntry directory_entry(std::string name, PseudoEntries entries) {
  return {std::move(name), FileType::Directory,
          [entries = std::move(entries)](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
            return make_ref<PseudoDirectory>(sb, number, entries);
          }};
}

}  // namespace cowbird
