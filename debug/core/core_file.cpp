#include "debug/core/core_file.hpp"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "base/unique_fd.hpp"

namespace cowbird::debug {
namespace {

constexpr std::size_t kMaxThreads = 100'000;
constexpr std::size_t kMaxMappings = 200'000;
constexpr std::size_t kMaxXstate = 1 << 16;
constexpr std::size_t kMaxNoteName = 64;

constexpr std::uint64_t align4(std::uint64_t n) { return (n + 3) & ~3ull; }

// An object at an offset; nullopt when the bytes end before it does.
template <typename T>
std::optional<T> at(std::span<const std::byte> bytes, std::uint64_t offset) {
  T value{};
  if (offset > bytes.size() || bytes.size() - offset < sizeof value) return std::nullopt;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

}  // namespace

Result<std::unique_ptr<CoreFile>> CoreFile::open(const std::string &path, std::string &why) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!fd.valid() || ::fstat(fd.get(), &status) != 0) {
    why = fmt::format("The core file {} cannot be read: {}.", path, std::strerror(errno));
    return Err(Errno::NoEnt);
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  void *mapped = S_ISREG(status.st_mode) && size > 0
                     ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0)
                     : MAP_FAILED;
  if (mapped == MAP_FAILED) {
    why = fmt::format("{} is no core file: it is empty, or no regular file.", path);
    return Err(Errno::NoExec);
  }
  std::unique_ptr<CoreFile> core(new CoreFile);
  core->mapped_ = mapped;
  core->reads_files_ = true;
  core->bytes_ = {static_cast<const std::byte *>(mapped), size};
  if (!core->load(why)) {
    why = fmt::format("{} {}", path, why);
    return Err(Errno::NoExec);
  }
  return core;
}

Result<std::unique_ptr<CoreFile>> CoreFile::parse(std::span<const std::byte> bytes,
                                                  std::string &why) {
  std::unique_ptr<CoreFile> core(new CoreFile);
  core->bytes_ = bytes;
  if (!core->load(why)) return Err(Errno::NoExec);
  return core;
}

CoreFile::~CoreFile() {
  if (mapped_) ::munmap(mapped_, bytes_.size());
  for (const auto &[path, fd] : opened_) {
    if (fd >= 0) ::close(fd);
  }
}

bool CoreFile::load(std::string &why) {
  const auto header = at<Elf64_Ehdr>(bytes_, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) {
    why = "is no ELF file.";
    return false;
  }
  if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64 ||
      header->e_type != ET_CORE || header->e_phentsize != sizeof(Elf64_Phdr)) {
    why = "is no core file of a 64-bit x86 process.";
    return false;
  }
  for (unsigned i = 0; i < header->e_phnum; ++i) {
    const auto part = at<Elf64_Phdr>(bytes_, header->e_phoff + i * sizeof(Elf64_Phdr));
    if (!part) {
      why = "ends inside of its program headers.";
      return false;
    }
    if (part->p_type == PT_NOTE && !load_notes(part->p_offset, part->p_filesz)) {
      why = "has notes that end too early or contradict themselves.";
      return false;
    }
    if (part->p_type != PT_LOAD || part->p_memsz == 0) continue;
    if (part->p_vaddr + part->p_memsz < part->p_vaddr) continue;
    Segment segment;
    segment.end = part->p_vaddr + part->p_memsz;
    segment.offset = part->p_offset;
    segment.in_file = std::min(part->p_filesz, part->p_memsz);
    if (part->p_offset > bytes_.size() || bytes_.size() - part->p_offset < segment.in_file) {
      truncated_ = true;
      segment.in_file = part->p_offset > bytes_.size() ? 0 : bytes_.size() - part->p_offset;
    }
    segments_.emplace(part->p_vaddr, segment);
  }
  if (threads_.empty()) {
    why = "names no thread.";
    return false;
  }
  return true;
}

bool CoreFile::load_notes(std::uint64_t offset, std::uint64_t size) {
  if (offset > bytes_.size() || bytes_.size() - offset < size) return false;
  const auto notes = bytes_.subspan(offset, size);
  std::uint64_t place = 0;
  while (const auto note = at<Elf64_Nhdr>(notes, place)) {
    place += sizeof *note;
    const std::uint64_t name_at = place;
    place += align4(note->n_namesz);
    const std::uint64_t data_at = place;
    place += align4(note->n_descsz);
    if (place > notes.size() + 3 || data_at + note->n_descsz > notes.size()) return false;
    const auto *text = reinterpret_cast<const char *>(notes.data() + name_at);
    const std::string name(text,
                           ::strnlen(text, std::min<std::size_t>(note->n_namesz, kMaxNoteName)));
    take_note(name, note->n_type, notes.subspan(data_at, note->n_descsz));
  }
  return true;
}

void CoreFile::take_note(const std::string &name, std::uint32_t type,
                         std::span<const std::byte> data) {
  if (name == kCoreNoteName && type == kCoreNoteType) return take_own(data);
  if (name == "CORE" && type == NT_PRSTATUS) {
    const auto status = at<elf_prstatus>(data, 0);
    if (!status || threads_.size() >= kMaxThreads) return;
    CoreThread thread;
    thread.tid = status->pr_pid;
    thread.signal = status->pr_cursig;
    static_assert(sizeof status->pr_reg == sizeof thread.registers);
    std::memcpy(&thread.registers, &status->pr_reg, sizeof thread.registers);
    threads_.push_back(std::move(thread));
  } else if (name == "CORE" && type == NT_AUXV) {
    auxv_.assign(data.begin(), data.end());
  } else if (name == "CORE" && type == NT_FILE) {
    take_files(data);
  } else if (name == "LINUX" && type == NT_X86_XSTATE) {
    if (threads_.empty() || data.size() > kMaxXstate) return;
    threads_.back().xstate.assign(data.begin(), data.end());
  }
}

// Count, page size, then start, end and page offset of each; then their names, one after the other.
void CoreFile::take_files(std::span<const std::byte> data) {
  const auto count = at<std::uint64_t>(data, 0);
  const auto page = at<std::uint64_t>(data, 8);
  if (!count || !page || *count > kMaxMappings) return;
  std::uint64_t name_at = 16 + *count * 24;
  for (std::uint64_t i = 0; i < *count; ++i) {
    const auto numbers = at<std::array<std::uint64_t, 3>>(data, 16 + i * 24);
    if (!numbers || name_at >= data.size()) return;
    const auto *text = reinterpret_cast<const char *>(data.data() + name_at);
    const std::size_t length = ::strnlen(text, data.size() - name_at);
    name_at += length + 1;
    mappings_.push_back(
        {(*numbers)[0], (*numbers)[1], (*numbers)[2] * *page, std::string(text, length)});
  }
}

void CoreFile::take_own(std::span<const std::byte> data) {
  std::istringstream lines(std::string(reinterpret_cast<const char *>(data.data()), data.size()));
  for (std::string line; std::getline(lines, line);) {
    const auto equals = line.find('=');
    if (equals != std::string::npos) properties_[line.substr(0, equals)] = line.substr(equals + 1);
  }
}

std::uint64_t CoreFile::auxv_value(std::uint64_t type) const {
  for (std::size_t place = 0;; place += sizeof(Elf64_auxv_t)) {
    const auto entry = at<Elf64_auxv_t>(auxv_, place);
    if (!entry || entry->a_type == AT_NULL) return 0;
    if (entry->a_type == type) return entry->a_un.a_val;
  }
}

std::string CoreFile::property(const std::string &key) const {
  const auto found = properties_.find(key);
  return found == properties_.end() ? std::string() : found->second;
}

Result<std::size_t> CoreFile::read_some(std::uint64_t address, std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const std::uint64_t place = address + done;
    auto next = segments_.upper_bound(place);
    if (next == segments_.begin()) break;
    const auto &[start, segment] = *--next;
    if (place >= segment.end) break;
    const std::uint64_t inside = place - start;
    const std::size_t wanted = std::min<std::uint64_t>(out.size() - done, segment.end - place);
    if (inside < segment.in_file) {
      const std::size_t length = std::min<std::uint64_t>(wanted, segment.in_file - inside);
      std::memcpy(out.data() + done, bytes_.data() + segment.offset + inside, length);
      done += length;
      continue;
    }
    const auto mapping =
        std::find_if(mappings_.begin(), mappings_.end(),
                     [place](const CoreMapping &m) { return place >= m.start && place < m.end; });
    if (mapping == mappings_.end() || !reads_files_) break;
    auto [opened, first] = opened_.emplace(mapping->path, -1);
    struct stat status {};
    if (first && ::stat(mapping->path.c_str(), &status) == 0 && S_ISREG(status.st_mode)) {
      opened->second = ::open(mapping->path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    const std::size_t length = std::min<std::uint64_t>(wanted, mapping->end - place);
    const ssize_t got = opened->second < 0
                            ? -1
                            : ::pread(opened->second, out.data() + done, length,
                                      static_cast<off_t>(place - mapping->start + mapping->offset));
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  if (done == 0 && !out.empty()) return Err(Errno::Fault);
  return done;
}

Result<void> CoreFile::read(std::uint64_t address, std::span<std::byte> out) {
  if (TRY(read_some(address, out)) != out.size()) return Err(Errno::Fault);
  return {};
}

}  // namespace cowbird::debug
