// ELF64 file headers as the kernel's loader reads them (elf(5)). Plain data.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

inline constexpr std::uint16_t kET_EXEC = 2;
inline constexpr std::uint16_t kET_DYN = 3;
inline constexpr std::uint16_t kEM_X86_64 = 62;
inline constexpr std::uint32_t kPT_LOAD = 1;
inline constexpr std::uint32_t kPT_INTERP = 3;
inline constexpr std::uint32_t kPT_PHDR = 6;
inline constexpr std::uint32_t kPT_GNU_STACK = 0x6474e551;
inline constexpr std::uint32_t kPF_X = 1;
inline constexpr std::uint32_t kPF_W = 2;
inline constexpr std::uint32_t kPF_R = 4;

struct Elf64Ehdr {
  std::uint8_t ident[16];
  std::uint16_t type, machine;
  std::uint32_t version;
  std::uint64_t entry, phoff, shoff;
  std::uint32_t flags;
  std::uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
static_assert(sizeof(Elf64Ehdr) == 64 && offsetof(Elf64Ehdr, phoff) == 32);

struct Elf64Phdr {
  std::uint32_t type, flags;
  std::uint64_t offset, vaddr, paddr, filesz, memsz, align;
};
static_assert(sizeof(Elf64Phdr) == 56);

}  // namespace cowbird::abi
