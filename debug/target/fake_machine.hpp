// FakeMachine: a processor for FakeTarget's threads that knows a handful of x86-64 instructions,
// enough for a small program with loops, calls, counters in memory and system calls that gdb can
// step through. Tests only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "debug/target/target.hpp"

namespace cowbird::debug {

// Memory of one process: pages by address.
class FakeMemory {
 public:
  static constexpr std::uint64_t kPage = 4096;
  void map(std::uint64_t address, std::uint64_t size);
  // Bytes done until the first hole.
  std::size_t read(std::uint64_t address, std::span<std::byte> out) const;
  std::size_t write(std::uint64_t address, std::span<const std::byte> data);
  std::optional<std::uint64_t> load64(std::uint64_t address) const;
  bool store64(std::uint64_t address, std::uint64_t value);

 private:
  std::map<std::uint64_t, std::vector<std::byte>> pages_;
};

// What one instruction did.
struct FakeStep {
  enum class Kind : std::uint8_t { Done, Syscall, Halt, BadAddress, BadInstruction };
  Kind kind = Kind::Done;
  std::optional<std::uint64_t> read{}, written{};  // 8 bytes each
};

// Executes the instruction at rip: nop, hlt, call, ret, jmp, jne, push and pop rbp, mov rbp,rsp,
// mov reg,imm32, mov [abs],rax, mov rax,[abs], inc [abs], inc rax, dec rcx, syscall. A system call
// is left to the caller, rip stands behind it.
FakeStep fake_step(Registers &registers, FakeMemory &memory);

// Loads a static ELF64 program. Its entry point; NoExec when it is none, NoEnt when it is not
// there.
Result<std::uint64_t> fake_load(const std::string &path, FakeMemory &memory);

}  // namespace cowbird::debug
