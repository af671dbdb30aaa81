// The ELF parser on headers made by hand: what it accepts, and each way in which it refuses.
#include <catch2/catch.hpp>
#include <cstring>

#include "abi/elf.hpp"
#include "engine/platform.hpp"
#include "proc/elf.hpp"

using namespace cowbird;
using abi::Elf64Ehdr;
using abi::Elf64Phdr;

namespace {

Elf64Ehdr good_header(std::uint16_t type, std::uint16_t count) {
  Elf64Ehdr h{};
  std::memcpy(h.ident,
              "\x7f"
              "ELF\x02\x01\x01",
              7);
  h.type = type;
  h.machine = abi::kEM_X86_64;
  h.version = 1;
  h.entry = 0x401000;
  h.phoff = 64;
  h.ehsize = 64;
  h.phentsize = 56;
  h.phnum = count;
  return h;
}

Elf64Phdr load(std::uint64_t address, std::uint64_t offset, std::uint64_t file_size,
               std::uint64_t memory_size, std::uint32_t flags = abi::kPF_R) {
  return {abi::kPT_LOAD, flags, offset, address, address, file_size, memory_size, kPageSize};
}

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T> &values) {
  return std::as_bytes(std::span(values));
}

Result<elf::Program> parse(const std::vector<Elf64Phdr> &table,
                           std::uint16_t type = abi::kET_EXEC) {
  const std::vector<Elf64Ehdr> head = {good_header(type, static_cast<std::uint16_t>(table.size()))};
  const auto header = elf::parse_header(bytes_of(head));
  REQUIRE(header);
  return elf::parse_program(*header, bytes_of(table));
}

bool header_refused(const Elf64Ehdr &h) {
  const std::vector<Elf64Ehdr> head = {h};
  return elf::parse_header(bytes_of(head)).is(Errno::NoExec);
}

}  // namespace

TEST_CASE("A program's segments, bounds and header table are found") {
  const auto program = parse({load(0x400000, 0, 0x800, 0x800),
                              load(0x401800, 0x1800, 0x100, 0x5000, abi::kPF_R | abi::kPF_W)});
  REQUIRE(program);
  REQUIRE(program->segments.size() == 2);
  CHECK(program->low == 0x400000);
  CHECK(program->high == 0x407000);
  CHECK(program->table_address == 0x400040);
  CHECK(program->segments[1].write);
  CHECK_FALSE(program->segments[0].write);
  CHECK(program->interpreter_size == 0);
  CHECK_FALSE(program->executable_stack);
}

TEST_CASE("The file header is checked") {
  Elf64Ehdr h = good_header(abi::kET_EXEC, 1);
  CHECK_FALSE(header_refused(h));
  SECTION("magic") { h.ident[1] = 'X'; }
  SECTION("32 bits") { h.ident[4] = 1; }
  SECTION("byte order") { h.ident[5] = 2; }
  SECTION("type") { h.type = 1; }
  SECTION("machine") { h.machine = 40; }
  SECTION("size of table entries") { h.phentsize = 32; }
  SECTION("no table") { h.phnum = 0; }
  SECTION("table too long") { h.phnum = 65535; }
  SECTION("table beyond all files") { h.phoff = ~0ull - 8; }
  CHECK(header_refused(h));
}

TEST_CASE("A header that is cut short is no program") {
  const std::vector<std::byte> few(elf::kHeaderBytes - 1);
  CHECK(elf::parse_header(few).is(Errno::NoExec));
}

TEST_CASE("Segments that cannot be mapped are refused") {
  CHECK(parse({load(0x400000, 0x10, 0x800, 0x800)}).is(Errno::NoExec));     // misaligned
  CHECK(parse({load(0x400000, 0, 0x900, 0x800)}).is(Errno::NoExec));        // file > memory
  CHECK(parse({load(~0ull - 0xfff, 0, 0x800, 0x8000)}).is(Errno::NoExec));  // address overflow
  CHECK(parse({load(0x400000, ~0ull & ~0xfffull, 0x1000, 0x1000)}).is(Errno::NoExec));
  CHECK(parse({load(kUserMax - 0x1000, 0, 0x800, 0x2000)}).is(Errno::NoExec));
  CHECK(parse({load(0x1000, 0, 0x800, 0x800)}).is(Errno::NoExec));  // below kUserMin
  CHECK(parse({load(0x400000, 0, 0x2000, 0x2000), load(0x401000, 0x1000, 0x10, 0x10)})
            .is(Errno::NoExec));  // overlap
  CHECK(parse({load(0x500000, 0, 0x10, 0x10), load(0x400000, 0, 0x10, 0x10)}).is(Errno::NoExec));
  Elf64Phdr note{};
  note.type = 4;
  CHECK(parse({note}).is(Errno::NoExec));  // nothing to load
}

TEST_CASE("Position-independent programs may start at 0") {
  const auto program = parse({load(0, 0, 0x800, 0x800)}, abi::kET_DYN);
  REQUIRE(program);
  CHECK(program->low == 0);
  CHECK(program->header.position_independent);
}

TEST_CASE("The interpreter's name is one string with its end") {
  const auto name = [](std::string_view text) {
    return elf::parse_interpreter(std::as_bytes(std::span(text.data(), text.size())));
  };
  REQUIRE(name(std::string_view("/lib/ld.so\0", 11)));
  CHECK(*name(std::string_view("/lib/ld.so\0", 11)) == "/lib/ld.so");
  CHECK(name("/lib/ld.so").is(Errno::NoExec));
  CHECK(name(std::string_view("\0\0", 2)).is(Errno::NoExec));
  CHECK(name("").is(Errno::NoExec));
  Elf64Phdr interpreter{};
  interpreter.type = abi::kPT_INTERP;
  interpreter.filesz = elf::kMaxInterpreterName + 1;
  CHECK(parse({interpreter, load(0x400000, 0, 0x10, 0x10)}).is(Errno::NoExec));
}
