#include "plugins/elf_image.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cowbird {
namespace {

constexpr std::uint64_t kMaxTableBytes = 64u << 20;  // of one symbol, string or relocation table

std::string machine_text(unsigned machine, unsigned char elf_class) {
  switch (machine) {
    case EM_386:
      return "32-bit x86";
    case EM_X86_64:
      return elf_class == ELFCLASS32 ? "x86-64 with 32-bit pointers (x32)" : "x86-64";
    case EM_AARCH64:
      return "64-bit ARM";
    case EM_ARM:
      return "32-bit ARM";
    case EM_RISCV:
      return "RISC-V";
    default:
      return fmt::format("ELF machine number {}", machine);
  }
}

bool fail(PluginError &error, PluginFault fault, std::string message) {
  error = {fault, std::move(message)};
  return false;
}

}  // namespace

std::optional<ElfImage> ElfImage::open(const std::filesystem::path &file, PluginError &error) {
  ElfImage image;
  image.file_ = file;
  image.fd_ = UniqueFd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status;
  if (!image.fd_.valid() || fstat(image.fd_.get(), &status) != 0) {
    fail(error, PluginFault::Unreadable,
         fmt::format("The plugin file {} cannot be read: {}.", file.string(), strerror(errno)));
    return std::nullopt;
  }
  if (!S_ISREG(status.st_mode)) {
    fail(error, PluginFault::Unreadable,
         fmt::format("{} is not a regular file, so it is no plugin.", file.string()));
    return std::nullopt;
  }
  image.file_size_ = static_cast<std::uint64_t>(status.st_size);
  if (!image.read_headers(error) || !image.read_sections(error)) return std::nullopt;
  return image;
}

bool ElfImage::read_file(std::uint64_t offset, void *out, std::size_t size) const {
  if (offset > file_size_ || size > file_size_ - offset) return false;
  auto *bytes = static_cast<char *>(out);
  while (size > 0) {
    const ssize_t n = pread(fd_.get(), bytes, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes += n;
    offset += static_cast<std::uint64_t>(n);
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

template <typename T>
bool ElfImage::read_table(std::uint64_t offset, std::uint64_t bytes, std::vector<T> &out) const {
  if (bytes > kMaxTableBytes || bytes > file_size_) return false;
  out.resize(bytes / sizeof(T));
  return read_file(offset, out.data(), out.size() * sizeof(T));
}

bool ElfImage::read_headers(PluginError &error) {
  const std::string name = file_.string();
  unsigned char ident[EI_NIDENT] = {};
  if (!read_file(0, ident, std::min<std::uint64_t>(sizeof ident, file_size_)) ||
      memcmp(ident, ELFMAG, SELFMAG) != 0) {
    return fail(
        error, PluginFault::NotElf,
        fmt::format("{} is not a plugin: it is not an ELF file. A Cowbird plugin is a shared "
                    "object for x86-64 Linux.",
                    name));
  }
  const std::string truncated = fmt::format(
      "{} is damaged: it is an ELF file that ends too early or contradicts itself. Copy "
      "or build it again.",
      name);
  // e_machine lies at the same place in both classes.
  std::uint16_t type_and_machine[2];
  if (!read_file(EI_NIDENT, type_and_machine, sizeof type_and_machine)) {
    return fail(error, PluginFault::Truncated, truncated);
  }
  if (ident[EI_CLASS] != ELFCLASS64 || ident[EI_DATA] != ELFDATA2LSB ||
      type_and_machine[1] != EM_X86_64) {
    return fail(error, PluginFault::WrongArchitecture,
                fmt::format("{} is built for {}; this Cowbird needs plugins for x86-64. Build the "
                            "plugin for this machine.",
                            name, machine_text(type_and_machine[1], ident[EI_CLASS])));
  }
  if (!read_file(0, &header_, sizeof header_) || header_.e_phentsize != sizeof(Elf64_Phdr) ||
      !read_table(header_.e_phoff, std::uint64_t{header_.e_phnum} * sizeof(Elf64_Phdr),
                  segments_)) {
    return fail(error, PluginFault::Truncated, truncated);
  }
  if (header_.e_type != ET_DYN) {
    return fail(error, PluginFault::NotShared,
                fmt::format("{} is not a plugin: it is an ELF file, but no shared object. Link it "
                            "with -shared.",
                            name));
  }
  std::erase_if(segments_, [](const Elf64_Phdr &s) { return s.p_type != PT_LOAD; });
  for (const Elf64_Phdr &s : segments_) {
    if (s.p_filesz > s.p_memsz || s.p_offset > file_size_ || s.p_filesz > file_size_ - s.p_offset ||
        s.p_vaddr + s.p_memsz < s.p_vaddr) {
      return fail(error, PluginFault::Truncated, truncated);
    }
  }
  return true;
}

bool ElfImage::read_sections(PluginError &error) {
  std::vector<Elf64_Shdr> sections;
  std::vector<Elf64_Rela> relocations;
  bool good =
      header_.e_shentsize == sizeof(Elf64_Shdr) && header_.e_shnum != 0 &&
      read_table(header_.e_shoff, std::uint64_t{header_.e_shnum} * sizeof(Elf64_Shdr), sections);
  for (std::size_t i = 0; good && i < sections.size(); ++i) {
    const Elf64_Shdr &section = sections[i];
    if (section.sh_type == SHT_DYNSYM) {
      good = section.sh_link < sections.size() &&
             read_table(section.sh_offset, section.sh_size, symbols_) &&
             read_table(sections[section.sh_link].sh_offset, sections[section.sh_link].sh_size,
                        symbol_names_);
    } else if (section.sh_type == SHT_RELA && (section.sh_flags & SHF_ALLOC)) {
      std::vector<Elf64_Rela> more;
      good = read_table(section.sh_offset, section.sh_size, more);
      relocations.insert(relocations.end(), more.begin(), more.end());
    }
  }
  if (!good || !read_relocations(relocations)) {
    return fail(error, PluginFault::Truncated,
                fmt::format("{} is damaged: its section table, symbols or relocations lie outside "
                            "the file or contradict each other. Copy or build it again.",
                            file_.string()));
  }
  return true;
}

bool ElfImage::read_relocations(const std::vector<Elf64_Rela> &entries) {
  for (const Elf64_Rela &entry : entries) {
    Relocation relocation{entry.r_offset, 0, false};
    const std::uint64_t symbol = ELF64_R_SYM(entry.r_info);
    switch (ELF64_R_TYPE(entry.r_info)) {
      case R_X86_64_RELATIVE:
        relocation.value = static_cast<std::uint64_t>(entry.r_addend);
        break;
      case R_X86_64_64:
      case R_X86_64_GLOB_DAT:
      case R_X86_64_JUMP_SLOT:
        if (symbol >= symbols_.size()) return false;
        relocation.external = symbols_[symbol].st_shndx == SHN_UNDEF;
        relocation.value = symbols_[symbol].st_value + static_cast<std::uint64_t>(entry.r_addend);
        break;
      default:  // thread-local and indirect ones: never null, never data we read
        relocation.external = true;
    }
    relocations_.push_back(relocation);
  }
  std::sort(relocations_.begin(), relocations_.end(),
            [](const Relocation &a, const Relocation &b) { return a.offset < b.offset; });
  return true;
}

std::optional<ElfImage::Symbol> ElfImage::find_object(std::string_view name) const {
  for (const Elf64_Sym &symbol : symbols_) {
    if (symbol.st_shndx == SHN_UNDEF || symbol.st_name >= symbol_names_.size()) continue;
    const char *start = symbol_names_.data() + symbol.st_name;
    const std::size_t room = symbol_names_.size() - symbol.st_name;
    if (std::string_view(start, strnlen(start, room)) != name) continue;
    const unsigned type = ELF64_ST_TYPE(symbol.st_info);
    if (type != STT_OBJECT && type != STT_NOTYPE) continue;
    return Symbol{symbol.st_value, symbol.st_size};
  }
  return std::nullopt;
}

bool ElfImage::read(std::uint64_t address, void *out, std::size_t size) const {
  for (const Elf64_Phdr &s : segments_) {
    if (address < s.p_vaddr || address - s.p_vaddr > s.p_memsz) continue;
    const std::uint64_t start = address - s.p_vaddr;
    if (size > s.p_memsz - start) continue;
    memset(out, 0, size);
    const std::uint64_t in_file = start < s.p_filesz ? s.p_filesz - start : 0;
    return read_file(s.p_offset + start, out, std::min<std::uint64_t>(size, in_file));
  }
  return false;
}

std::optional<ElfImage::Pointer> ElfImage::read_pointer(std::uint64_t address) const {
  using Kind = Pointer::Kind;
  auto found = std::lower_bound(relocations_.begin(), relocations_.end(), address,
                                [](const Relocation &r, std::uint64_t a) { return r.offset < a; });
  if (found != relocations_.end() && found->offset == address) {
    return found->external ? Pointer{Kind::External, 0} : Pointer{Kind::Internal, found->value};
  }
  // Packed relative relocations (DT_RELR) keep the address in place.
  std::uint64_t value;
  if (!read(address, &value, sizeof value)) return std::nullopt;
  return value == 0 ? Pointer{} : Pointer{Kind::Internal, value};
}

std::optional<std::string> ElfImage::read_string(std::uint64_t address, std::size_t limit) const {
  std::string text;
  // In pieces: the string may end just before the segment does.
  for (const Elf64_Phdr &s : segments_) {
    if (address < s.p_vaddr || address - s.p_vaddr >= s.p_filesz) continue;
    text.resize(std::min<std::uint64_t>(limit + 1, s.p_filesz - (address - s.p_vaddr)));
    if (!read(address, text.data(), text.size())) return std::nullopt;
    const std::size_t end = text.find('\0');
    if (end == std::string::npos) return std::nullopt;
    text.resize(end);
    return text;
  }
  return std::nullopt;
}

}  // namespace cowbird
