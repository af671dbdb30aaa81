#include "debug/view/elf_symbols.hpp"

#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>

#include "base/unique_fd.hpp"

namespace cowbird::debug {

struct ElfSymbols::Impl {
  UniqueFd file;
  Elf *elf = nullptr;
  Elf_Data *symbols = nullptr;
  std::size_t count = 0;
  std::size_t strings = 0;  // section number of the names
  std::uint64_t entry = 0;
  ~Impl() {
    if (elf) ::elf_end(elf);
  }
  bool take(std::uint32_t type) {
    Elf_Scn *section = nullptr;
    while ((section = ::elf_nextscn(elf, section))) {
      GElf_Shdr header;
      if (!::gelf_getshdr(section, &header) || header.sh_type != type || header.sh_entsize == 0)
        continue;
      symbols = ::elf_getdata(section, nullptr);
      count = header.sh_size / header.sh_entsize;
      strings = header.sh_link;
      return symbols != nullptr;
    }
    return false;
  }
};

ElfSymbols::ElfSymbols() : impl_(std::make_unique<Impl>()) {}
ElfSymbols::~ElfSymbols() = default;

Result<std::unique_ptr<ElfSymbols>> ElfSymbols::open(const std::string &path) {
  if (::elf_version(EV_CURRENT) == EV_NONE) return Err(Errno::NoExec);
  std::unique_ptr<ElfSymbols> self(new ElfSymbols);
  Impl &impl = *self->impl_;
  impl.file.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!impl.file.valid()) return Err(Errno::NoEnt);
  impl.elf = ::elf_begin(impl.file.get(), ELF_C_READ_MMAP, nullptr);
  GElf_Ehdr header;
  if (!impl.elf || ::elf_kind(impl.elf) != ELF_K_ELF || !::gelf_getehdr(impl.elf, &header) ||
      header.e_machine != EM_X86_64) {
    return Err(Errno::NoExec);
  }
  impl.entry = header.e_entry;
  if (!impl.take(SHT_SYMTAB) && !impl.take(SHT_DYNSYM)) return Err(Errno::NoExec);
  return self;
}

std::uint64_t ElfSymbols::find(const std::string &name) {
  const auto known = known_.find(name);
  if (known != known_.end()) return known->second;
  std::uint64_t address = 0;
  for (std::size_t i = 0; i < impl_->count && address == 0; ++i) {
    GElf_Sym symbol;
    if (!::gelf_getsym(impl_->symbols, static_cast<int>(i), &symbol)) break;
    const unsigned type = GELF_ST_TYPE(symbol.st_info);
    if (symbol.st_shndx == SHN_UNDEF || (type != STT_FUNC && type != STT_OBJECT)) continue;
    const char *const text = ::elf_strptr(impl_->elf, impl_->strings, symbol.st_name);
    if (text && name == text) address = symbol.st_value;
  }
  known_[name] = address;
  return address;
}

std::uint64_t ElfSymbols::entry() const { return impl_->entry; }

}  // namespace cowbird::debug
