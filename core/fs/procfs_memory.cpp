// The files of /proc/PID that tell of its address space: maps, smaps, smaps_rollup, pagemap, mem.
#include <fmt/format.h>

#include <algorithm>

#include "fs/procfs_internal.hpp"
#include "mm/user_access.hpp"

namespace cowbird::procfs {
namespace {

const char *vma_label(const Vma &vma) {
  switch (vma.kind) {
    case VmaKind::Heap:
      return "[heap]";
    case VmaKind::Stack:
      return "[stack]";
    default:
      return "";
  }
}

void pad_to_name(std::string &line) {
  line.resize(std::max<std::size_t>(line.size() + 1, 73), ' ');
}

std::string vma_line(const Vma &vma, const Path &root) {
  std::uint64_t inode = 0;
  DeviceNumber device;
  std::string name = vma_label(vma);
  if (vma.file) {
    name = vma.file->path ? path_name(vma.file->path, root) : vma.file->describe();
    if (vma.file->inode) {
      inode = vma.file->inode->number();
      device = vma.file->inode->sb().device;
    }
  } else if (vma.sharing == Sharing::Shared) {
    name = "/dev/zero (deleted)";
  }
  std::string line =
      fmt::format("{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {}", vma.start, vma.end,
                  has(vma.prot, Prot::Read) ? 'r' : '-', has(vma.prot, Prot::Write) ? 'w' : '-',
                  has(vma.prot, Prot::Exec) ? 'x' : '-', vma.sharing == Sharing::Shared ? 's' : 'p',
                  vma.cache ? vma.offset : 0, device.major, device.minor, inode);
  if (!name.empty()) {
    pad_to_name(line);
    line += name;
  }
  return line + '\n';
}

// Calls function(vma, root) for the areas that the reader may see.
template <typename Function>
void each_vma(const Subject &s, Function &&function) {
  const Mm *mm = s.mm();
  const Task *reader = reading_task();
  if (mm == nullptr || reader == nullptr) return;
  const Path &root = reader->fs->root;
  mm->for_each_vma([&](const Vma &vma) { function(*mm, vma, root); });
}

// --- smaps

// Bytes of present pages, as proc(5) sorts them.
struct Residence {
  // Shares of pages are summed up in parts of a byte, as Linux does.
  static constexpr unsigned kShareShift = 12;
  std::uint64_t rss = 0, shared_clean = 0, shared_dirty = 0, private_clean = 0, private_dirty = 0;
  std::uint64_t anonymous = 0;
  std::uint64_t pss = 0, pss_dirty = 0, pss_anon = 0, pss_file = 0, pss_shmem = 0, pss_locked = 0;

  void add(const MappedPage &page, bool locked) {
    const std::uint64_t share = (kPageSize << kShareShift) / page.mappings;
    rss += kPageSize;
    pss += share;
    if (page.dirty) pss_dirty += share;
    if (locked) pss_locked += share;
    if (page.anonymous) anonymous += kPageSize;
    (page.anonymous ? pss_anon : page.in_memory_only ? pss_shmem : pss_file) += share;
    const bool shared = page.mappings > 1;
    (shared ? (page.dirty ? shared_dirty : shared_clean)
            : (page.dirty ? private_dirty : private_clean)) += kPageSize;
  }
  void add(const Mm &mm, const Vma &vma) {
    mm.for_each_page(vma, vma.start, vma.end,
                     [&](VirtAddr, const MappedPage &page) { add(page, vma.locked); });
  }
};

void kib_line(std::string &out, const char *name, std::uint64_t bytes) {
  out += fmt::format("{:<16}{:8} kB\n", fmt::format("{}:", name), bytes / kKiB);
}

// Whether a page was referenced is not known, so all that are there count.
void append_residence(std::string &out, const Residence &r, bool rollup) {
  const auto share = [](std::uint64_t parts) { return parts >> Residence::kShareShift; };
  kib_line(out, "Rss", r.rss);
  kib_line(out, "Pss", share(r.pss));
  kib_line(out, "Pss_Dirty", share(r.pss_dirty));
  if (rollup) {
    kib_line(out, "Pss_Anon", share(r.pss_anon));
    kib_line(out, "Pss_File", share(r.pss_file));
    kib_line(out, "Pss_Shmem", share(r.pss_shmem));
  }
  kib_line(out, "Shared_Clean", r.shared_clean);
  kib_line(out, "Shared_Dirty", r.shared_dirty);
  kib_line(out, "Private_Clean", r.private_clean);
  kib_line(out, "Private_Dirty", r.private_dirty);
  kib_line(out, "Referenced", r.rss);
  kib_line(out, "Anonymous", r.anonymous);
  for (const char *never : {"KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped",
                            "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss"}) {
    kib_line(out, never, 0);
  }
  kib_line(out, "Locked", share(r.pss_locked));
}

std::string vma_flags(const Vma &vma) {
  std::string out = "VmFlags: ";
  const bool shared = vma.sharing == Sharing::Shared;
  const bool may_write = has(vma.max_prot, Prot::Write);
  const std::pair<const char *, bool> flags[] = {
      {"rd", has(vma.prot, Prot::Read)},
      {"wr", has(vma.prot, Prot::Write)},
      {"ex", has(vma.prot, Prot::Exec)},
      {"sh", shared && may_write},
      {"mr", has(vma.max_prot, Prot::Read)},
      {"mw", may_write},
      {"me", has(vma.max_prot, Prot::Exec)},
      {"ms", shared},
      {"gd", vma.grows_down},
      {"lo", vma.locked},
      {"rr", vma.random_access},
      {"dc", vma.dont_fork},
      {"ac", !shared && has(vma.prot, Prot::Write) && !vma.no_reserve},
      {"nr", vma.no_reserve},
      {"wf", vma.wipe_on_fork},
      {"dd", vma.dont_dump},
  };
  for (const auto &[name, on] : flags) {
    if (on) out += fmt::format("{} ", name);
  }
  return out + '\n';
}

std::string text_smaps(const Subject &s) {
  std::string out;
  each_vma(s, [&](const Mm &mm, const Vma &vma, const Path &root) {
    out += vma_line(vma, root);
    kib_line(out, "Size", vma.end - vma.start);
    kib_line(out, "KernelPageSize", kPageSize);
    kib_line(out, "MMUPageSize", kPageSize);
    Residence residence;
    residence.add(mm, vma);
    append_residence(out, residence, false);
    out += "THPeligible:           0\n";
    out += vma_flags(vma);
  });
  return out;
}

std::string text_smaps_rollup(const Subject &s) {
  VirtAddr first = 0, end = 0;
  Residence residence;
  each_vma(s, [&](const Mm &mm, const Vma &vma, const Path &) {
    if (end == 0) first = vma.start;
    end = vma.end;
    residence.add(mm, vma);
  });
  std::string out = fmt::format("{:08x}-{:08x} ---p 00000000 00:00 0", first, end);
  pad_to_name(out);
  out += "[rollup]\n";
  append_residence(out, residence, true);
  return out;
}

std::string text_maps(const Subject &s) {
  std::string out;
  each_vma(s, [&](const Mm &, const Vma &vma, const Path &root) { out += vma_line(vma, root); });
  return out;
}

// --- files at whose offsets the address space is

// The address space is the one of the time when the file was opened; when the process has another
// one or has ended, the file is at its end. It is not kept: that would keep a process of the host.
class MemoryFile : public File {
 public:
  MemoryFile(std::uint32_t flags, const Subject &subject)
      : File(flags), subject_(subject), mm_id_(subject.mm() ? subject.mm()->id : 0) {}

  bool seekable() const override { return true; }
  Result<std::uint64_t> seek(std::int64_t offset, Whence whence) override {
    std::uint64_t base = 0;
    if (whence == Whence::Current) {
      base = position;
    } else if (whence != Whence::Set) {
      return Err(Errno::Inval);
    }
    // Addresses may lie in the upper half of the numbers.
    position = base + static_cast<std::uint64_t>(offset);
    return position;
  }

 protected:
  Mm *mm() const {
    Mm *now = subject_.mm();
    return now && now->id == mm_id_ ? now : nullptr;
  }

 private:
  const Subject subject_;
  const std::uint64_t mm_id_;
};

class MemFile final : public MemoryFile {
 public:
  using MemoryFile::MemoryFile;

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &offset) override {
    return transfer(to.remaining(), offset, [&](Mm &mm, std::span<std::byte> part) -> Result<bool> {
      if (!peek_mm(mm, part.data(), offset, part.size())) return false;
      TRY(copied(to.copy_to(part), part.size()));
      return true;
    });
  }

  Result<std::uint64_t> write(IovIter &from, std::uint64_t &offset) override {
    return transfer(from.remaining(), offset,
                    [&](Mm &mm, std::span<std::byte> part) -> Result<bool> {
                      TRY(copied(from.copy_from(part), part.size()));
                      return poke_mm(mm, offset, part.data(), part.size()).ok();
                    });
  }

 private:
  static Result<void> copied(Result<std::uint64_t> done, std::size_t wanted) {
    return TRY(done) == wanted ? Result<void>() : Result<void>(Err(Errno::Fault));
  }

  // Page by page: `step` moves one part, or says that there is nothing at that address.
  template <typename Step>
  Result<std::uint64_t> transfer(std::uint64_t bytes, std::uint64_t &offset, Step &&step) {
    const Ref<Mm> hold(mm());
    if (!hold) return std::uint64_t{0};
    std::vector<std::byte> buffer(kPageSize);
    std::uint64_t total = 0;
    while (total < bytes) {
      const std::uint64_t in_page = kPageSize - (offset & kPageMask);
      const std::span part(buffer.data(), std::min(bytes - total, in_page));
      const Result<bool> moved = step(*hold, part);
      if (!moved || !*moved) {
        if (total > 0) break;
        return Err(moved ? Errno::Io : moved.error());
      }
      offset += part.size();
      total += part.size();
    }
    return total;
  }
};

// Eight bytes for each page of the address space.
class PagemapFile final : public MemoryFile {
 public:
  PagemapFile(std::uint32_t flags, const Subject &subject, bool shows_frames)
      : MemoryFile(flags, subject), shows_frames_(shows_frames) {}

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &offset) override {
    constexpr std::uint64_t kEntry = sizeof(std::uint64_t);
    if (offset % kEntry != 0 || to.remaining() % kEntry != 0) return Err(Errno::Inval);
    std::uint64_t total = 0;
    while (to.remaining() > 0) {
      const std::uint64_t first = offset / kEntry;
      if (!mm() || first >= kUserMax >> kPageShift) break;
      const std::uint64_t count =
          std::min({to.remaining() / kEntry, kMost, (kUserMax >> kPageShift) - first});
      const std::vector<std::uint64_t> entries = entries_of(first << kPageShift, count);
      const auto done = to.copy_to(std::as_bytes(std::span(entries)));
      if (!done) return total > 0 ? Result<std::uint64_t>(total) : Err(done.error());
      offset += *done;
      total += *done;
      if (*done < count * kEntry) break;
    }
    return total;
  }

 private:
  static constexpr std::uint64_t kMost = 4096;
  static constexpr std::uint64_t kPresent = 1ull << 63, kFileOrShared = 1ull << 61,
                                 kExclusive = 1ull << 56;

  std::vector<std::uint64_t> entries_of(VirtAddr start, std::uint64_t count) const {
    std::vector<std::uint64_t> entries(count, 0);
    const VirtAddr end = start + (count << kPageShift);
    const Mm &space = *mm();
    space.for_each_vma([&](const Vma &vma) {
      space.for_each_page(vma, start, end, [&](VirtAddr at, const MappedPage &page) {
        std::uint64_t entry = kPresent | (shows_frames_ ? page.pfn : 0);
        if (!page.anonymous) entry |= kFileOrShared;
        if (page.mappings == 1) entry |= kExclusive;
        entries[(at - start) >> kPageShift] = entry;
      });
    });
    return entries;
  }

  const bool shows_frames_;
};

class MemoryInode final : public PseudoInode {
 public:
  using Opener = Ref<File> (*)(std::uint32_t flags, const Subject &subject);
  MemoryInode(SuperBlock &sb, std::uint64_t number, std::uint32_t permissions, Subject subject,
              Opener opener)
      : PseudoInode(sb, number, FileType::Regular, permissions),
        subject_(std::move(subject)),
        opener_(opener) {}

  Result<Ref<File>> open(std::uint32_t flags) override {
    if (!subject_.alive()) return Err(Errno::Srch);
    if (!may_inspect(*subject_.process)) return Err(Errno::Access);
    return opener_(flags, subject_);
  }

 private:
  Subject subject_;
  Opener opener_;
};

PseudoEntry memory_entry(const char *name, std::uint32_t permissions, const Subject &subject,
                         MemoryInode::Opener opener) {
  return {name, FileType::Regular,
          [permissions, subject, opener](SuperBlock &sb, std::uint64_t number) -> Ref<Inode> {
            return make_ref<MemoryInode>(sb, number, permissions, subject, opener);
          }};
}

}  // namespace

void add_memory_entries(PseudoEntries &list, const Subject &subject) {
  const auto text = [&](const char *name, Text source) {
    list.push_back(text_entry(name, 0444, source_of(subject, source, true)));
  };
  text("maps", text_maps);
  text("smaps", text_smaps);
  if (!subject.thread) text("smaps_rollup", text_smaps_rollup);
  list.push_back(memory_entry(
      "pagemap", 0400, subject, [](std::uint32_t flags, const Subject &s) -> Ref<File> {
        // Where a page lies is the administrator's business.
        const Task *reader = reading_task();
        const bool shows = reader && reader->credentials.capable(Capability::SysAdmin);
        return make_ref<PagemapFile>(flags, s, shows);
      }));
  list.push_back(
      memory_entry("mem", 0600, subject, [](std::uint32_t flags, const Subject &s) -> Ref<File> {
        return make_ref<MemFile>(flags, s);
      }));
}

}  // namespace cowbird::procfs
