#include "boot/symbols.hpp"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <span>

#include "base/own_program.hpp"

namespace cowbird::boot {
namespace {

void copy_text(char *out, std::size_t size, const char *text, std::size_t length) {
  if (length >= size) length = size - 1;
  std::memcpy(out, text, length);
  out[length] = 0;
}

struct Search {
  std::uint64_t address;
  Symbol *out;
  bool found = false;
};

int match_object(dl_phdr_info *info, std::size_t, void *data) {
  auto &search = *static_cast<Search *>(data);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto &segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const std::uint64_t begin = info->dlpi_addr + segment.p_vaddr;
    if (search.address < begin || search.address - begin >= segment.p_memsz) continue;
    search.found = true;
    search.out->file_address = search.address - info->dlpi_addr;
    // The loader gives the program itself an empty name.
    const char *path = info->dlpi_name && info->dlpi_name[0] ? info->dlpi_name : own_program();
    copy_text(search.out->object, sizeof search.out->object, path, std::strlen(path));
    return 1;
  }
  return 0;
}

// A file mapped to be read; what it contains is not trusted (it may have been replaced since).
class MappedFile {
 public:
  explicit MappedFile(const char *path) {
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    struct stat status {};
    if (::fstat(fd, &status) == 0 && status.st_size > 0) {
      const auto size = static_cast<std::size_t>(status.st_size);
      void *memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
      if (memory != MAP_FAILED) bytes_ = {static_cast<const std::byte *>(memory), size};
    }
    ::close(fd);
  }
  ~MappedFile() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte *>(bytes_.data()), bytes_.size());
  }
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;

  // Empty when the range is not inside the file or not aligned for T.
  template <typename T>
  std::span<const T> array(std::uint64_t offset, std::uint64_t count) const {
    if (offset > bytes_.size() || count > (bytes_.size() - offset) / sizeof(T)) return {};
    if (offset % alignof(T) != 0) return {};
    return {reinterpret_cast<const T *>(bytes_.data() + offset), static_cast<std::size_t>(count)};
  }

 private:
  std::span<const std::byte> bytes_;
};

// Looks the address up in one symbol table section.
bool search_table(const MappedFile &file, std::span<const Elf64_Shdr> sections,
                  const Elf64_Shdr &table, Symbol &out) {
  if (table.sh_link >= sections.size()) return false;
  const Elf64_Shdr &strings_header = sections[table.sh_link];
  const auto strings = file.array<char>(strings_header.sh_offset, strings_header.sh_size);
  const auto symbols = file.array<Elf64_Sym>(table.sh_offset, table.sh_size / sizeof(Elf64_Sym));
  const Elf64_Sym *best = nullptr;
  for (const Elf64_Sym &symbol : symbols) {
    const unsigned type = ELF64_ST_TYPE(symbol.st_info);
    if ((type != STT_FUNC && type != STT_NOTYPE) || symbol.st_shndx == SHN_UNDEF) continue;
    if (out.file_address < symbol.st_value) continue;
    const std::uint64_t inside = out.file_address - symbol.st_value;
    if (inside >= symbol.st_size || (best && best->st_value >= symbol.st_value)) continue;
    best = &symbol;
  }
  if (!best || best->st_name >= strings.size()) return false;
  const char *name = strings.data() + best->st_name;
  copy_text(out.name, sizeof out.name, name, ::strnlen(name, strings.size() - best->st_name));
  out.offset = out.file_address - best->st_value;
  return true;
}

void name_address(Symbol &out) {
  const MappedFile file(out.object);
  const auto header = file.array<Elf64_Ehdr>(0, 1);
  if (header.empty() || std::memcmp(header[0].e_ident, ELFMAG, SELFMAG) != 0) return;
  const auto sections = file.array<Elf64_Shdr>(header[0].e_shoff, header[0].e_shnum);
  for (std::uint32_t wanted : {SHT_SYMTAB, SHT_DYNSYM}) {
    for (const Elf64_Shdr &section : sections) {
      if (section.sh_type == wanted && search_table(file, sections, section, out)) return;
    }
  }
}

}  // namespace

bool find_symbol(std::uint64_t address, Symbol &out) {
  out.name[0] = 0;
  out.object[0] = 0;
  out.offset = out.file_address = 0;
  Search search{address, &out};
  ::dl_iterate_phdr(match_object, &search);
  if (!search.found) return false;
  name_address(out);
  if (std::strcmp(out.object, "/proc/self/exe") == 0) {
    char path[sizeof out.object];
    const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
    if (length > 0)
      copy_text(out.object, sizeof out.object, path, static_cast<std::size_t>(length));
  }
  return true;
}

}  // namespace cowbird::boot
