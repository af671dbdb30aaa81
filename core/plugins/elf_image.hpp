// ElfImage: reads data out of a shared object as the dynamic linker would lay it out, without
// mapping or running it. Only what the plugin registry needs: x86-64, exported data symbols, and
// pointers that relocations fill in. The file is foreign: every offset and size is checked. Used by
// core/plugins only; any thread.
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.hpp"
#include "plugins/plugin_registry.hpp"

namespace cowbird {

class ElfImage {
 public:
  // nullopt and the reason: Unreadable, NotElf, Truncated, WrongArchitecture, NotShared.
  static std::optional<ElfImage> open(const std::filesystem::path &file, PluginError &error);

  struct Symbol {
    std::uint64_t address = 0;
    std::uint64_t size = 0;
  };
  // An exported data object that this file defines.
  std::optional<Symbol> find_object(std::string_view name) const;

  // The bytes at [address, address + size) as they lie in the file, zero for .bss; false when they
  // are not all inside a segment.
  bool read(std::uint64_t address, void *out, std::size_t size) const;

  struct Pointer {
    enum class Kind : std::uint8_t { Null, Internal, External } kind = Kind::Null;
    std::uint64_t address = 0;  // Internal
  };
  // The pointer stored at `address`, after relocation.
  std::optional<Pointer> read_pointer(std::uint64_t address) const;
  // A NUL-terminated string of at most `limit` bytes.
  std::optional<std::string> read_string(std::uint64_t address, std::size_t limit) const;

 private:
  struct Relocation {
    std::uint64_t offset;
    std::uint64_t value;
    bool external;
  };
  bool read_file(std::uint64_t offset, void *out, std::size_t size) const;
  template <typename T>
  bool read_table(std::uint64_t offset, std::uint64_t bytes, std::vector<T> &out) const;
  bool read_headers(PluginError &error);
  bool read_sections(PluginError &error);
  bool read_relocations(const std::vector<Elf64_Rela> &entries);

  std::filesystem::path file_;
  UniqueFd fd_;
  std::uint64_t file_size_ = 0;
  Elf64_Ehdr header_{};
  std::vector<Elf64_Phdr> segments_;
  std::vector<Elf64_Sym> symbols_;
  std::vector<char> symbol_names_;
  std::vector<Relocation> relocations_;  // sorted by offset
};

}  // namespace cowbird
