// The addresses of functions and objects by name, from the symbol table of an ELF file (.symtab, or
// .dynsym where that was stripped). Any thread that has the object to itself.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/result.hpp"

namespace cowbird::debug {

class ElfSymbols {
 public:
  // NoEnt: no such file; NoExec: not an ELF file of this processor with symbols.
  static Result<std::unique_ptr<ElfSymbols>> open(const std::string &path);
  ~ElfSymbols();
  ElfSymbols(const ElfSymbols &) = delete;
  ElfSymbols &operator=(const ElfSymbols &) = delete;

  // As the file was linked, before it is moved to its load address; 0: there is none.
  std::uint64_t find(const std::string &name);
  // e_entry, for the load address: AT_ENTRY less this.
  std::uint64_t entry() const;

 private:
  ElfSymbols();
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::unordered_map<std::string, std::uint64_t> known_;
};

}  // namespace cowbird::debug
