// Names for code addresses of this process: the program and the shared objects in it (plugins),
// from their .symtab, so that static functions have names too; .dynsym where that was stripped.
// Nothing here allocates or locks (but the loader's list of objects), so that the panic path can
// use it. Any host thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::boot {

struct Symbol {
  char name[512];                  // mangled and cut; empty when unknown
  std::uint64_t offset = 0;        // from the beginning of the function
  char object[256];                // the file's path; empty when the address is in no object
  std::uint64_t file_address = 0;  // the address in that file, as addr2line(1) takes it
};

// False when the address is in no object of this process; then `out` is empty.
bool find_symbol(std::uint64_t address, Symbol &out);

}  // namespace cowbird::boot
