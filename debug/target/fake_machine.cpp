#include "debug/target/fake_machine.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <iterator>

#include "abi/elf.hpp"

namespace cowbird::debug {

namespace {

constexpr std::uint64_t kZeroFlag = 1 << 6;

// Reads the instruction and does it.
class Execution {
 public:
  Execution(Registers &registers, FakeMemory &memory) : r_(registers), memory_(memory) {}

  FakeStep run() {
    std::array<std::byte, 12> code{};
    size_ = memory_.read(r_.get(Reg::Rip), code);
    code_ = code;
    if (size_ == 0) return {.kind = FakeStep::Kind::BadAddress};
    if (byte(0) == 0x48 ? !wide() : !narrow()) step_.kind = FakeStep::Kind::BadInstruction;
    return step_;
  }

 private:
  unsigned byte(std::size_t i) const { return std::to_integer<unsigned>(code_[i]); }
  std::int32_t word(std::size_t i) const {
    std::int32_t value;
    std::memcpy(&value, &code_[i], sizeof(value));
    return value;
  }
  std::uint64_t absolute(std::size_t i) const {
    return static_cast<std::uint64_t>(std::int64_t{word(i)});
  }
  void advance(std::uint64_t bytes) { r_.set(Reg::Rip, r_.get(Reg::Rip) + bytes); }
  void jump(std::uint64_t bytes, std::int64_t by) {
    advance(bytes + static_cast<std::uint64_t>(by));
  }
  void flag_zero(std::uint64_t value) {
    const auto flags = r_.get(Reg::Eflags) & ~kZeroFlag;
    r_.set(Reg::Eflags, value == 0 ? flags | kZeroFlag : flags);
  }

  bool store(std::uint64_t address, std::uint64_t value) {
    if (!memory_.store64(address, value)) {
      step_.kind = FakeStep::Kind::BadAddress;
      return false;
    }
    step_.written = address;
    return true;
  }
  std::uint64_t load(std::uint64_t address) {
    const auto value = memory_.load64(address);
    if (!value) step_.kind = FakeStep::Kind::BadAddress;
    step_.read = address;
    return value.value_or(0);
  }
  // Stack accesses are no data accesses of the program: nobody watches them here.
  void push(std::uint64_t value) {
    r_.set(Reg::Rsp, r_.get(Reg::Rsp) - 8);
    if (!memory_.store64(r_.get(Reg::Rsp), value)) step_.kind = FakeStep::Kind::BadAddress;
  }
  std::uint64_t pop() {
    const auto value = memory_.load64(r_.get(Reg::Rsp));
    if (!value) step_.kind = FakeStep::Kind::BadAddress;
    r_.set(Reg::Rsp, r_.get(Reg::Rsp) + 8);
    return value.value_or(0);
  }

  bool narrow() {
    switch (byte(0)) {
      case 0x90:
        advance(1);
        return true;
      case 0xf4:
        step_.kind = FakeStep::Kind::Halt;
        return true;
      case 0x55:
        advance(1);
        push(r_.get(Reg::Rbp));
        return true;
      case 0x5d:
        advance(1);
        r_.set(Reg::Rbp, pop());
        return true;
      case 0xc3:
        r_.set(Reg::Rip, pop());
        return true;
      case 0xeb:
        jump(2, static_cast<std::int8_t>(byte(1)));
        return true;
      case 0xe9:
        jump(5, word(1));
        return true;
      case 0x75:
        if (r_.get(Reg::Eflags) & kZeroFlag)
          advance(2);
        else
          jump(2, static_cast<std::int8_t>(byte(1)));
        return true;
      case 0xe8:
        push(r_.get(Reg::Rip) + 5);
        jump(5, word(1));
        return true;
      case 0x0f:
        if (byte(1) != 0x05) return false;
        advance(2);
        step_.kind = FakeStep::Kind::Syscall;
        return true;
      default:
        return false;
    }
  }

  // With REX.W.
  bool wide() {
    const auto modrm = byte(2);
    const bool is_absolute = (modrm & 0xc7) == 0x04 && byte(3) == 0x25;
    switch (byte(1)) {
      case 0x89:
        if (modrm == 0xe5)
          r_.set(Reg::Rbp, r_.get(Reg::Rsp));
        else if (!is_absolute)
          return false;
        else if (!store(absolute(4), r_.get(Reg::Rax)))
          return true;
        advance(modrm == 0xe5 ? 3 : 8);
        return true;
      case 0x8b:
        if (!is_absolute) return false;
        r_.set(Reg::Rax, load(absolute(4)));
        advance(8);
        return true;
      case 0xc7: {
        constexpr std::array kTargets = {Reg::Rax, Reg::Rcx, Reg::Rdx, Reg::Rbx,
                                         Reg::Rsp, Reg::Rbp, Reg::Rsi, Reg::Rdi};
        if ((modrm & 0xf8) != 0xc0) return false;
        r_.set(kTargets[modrm & 7], absolute(3));
        advance(7);
        return true;
      }
      case 0xff:
        return count(modrm, is_absolute);
      default:
        return false;
    }
  }

  bool count(unsigned modrm, bool is_absolute) {
    if (is_absolute) {
      if (!store(absolute(4), load(absolute(4)) + 1)) return true;
      step_.read.reset();  // the write is what is reported
      advance(8);
    } else if (modrm == 0xc0) {
      r_.set(Reg::Rax, r_.get(Reg::Rax) + 1);
      advance(3);
    } else if (modrm == 0xc9) {
      r_.set(Reg::Rcx, r_.get(Reg::Rcx) - 1);
      flag_zero(r_.get(Reg::Rcx));
      advance(3);
    } else {
      return false;
    }
    return true;
  }

  Registers &r_;
  FakeMemory &memory_;
  std::array<std::byte, 12> code_{};
  std::size_t size_ = 0;
  FakeStep step_;
};

template <typename T>
bool read_at(const std::string &image, std::uint64_t offset, T &out) {
  if (offset > image.size() || image.size() - offset < sizeof(out)) return false;
  std::memcpy(&out, image.data() + offset, sizeof(out));
  return true;
}

}  // namespace

void FakeMemory::map(std::uint64_t address, std::uint64_t size) {
  for (auto page = address / kPage; page <= (address + size - 1) / kPage; ++page)
    pages_.try_emplace(page, kPage);
}

std::size_t FakeMemory::read(std::uint64_t address, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const auto page = pages_.find((address + done) / kPage);
    if (page == pages_.end()) break;
    const auto at = (address + done) % kPage;
    const auto part = std::min<std::size_t>(kPage - at, out.size() - done);
    std::memcpy(out.data() + done, page->second.data() + at, part);
    done += part;
  }
  return done;
}

std::size_t FakeMemory::write(std::uint64_t address, std::span<const std::byte> data) {
  std::size_t done = 0;
  while (done < data.size()) {
    const auto page = pages_.find((address + done) / kPage);
    if (page == pages_.end()) break;
    const auto at = (address + done) % kPage;
    const auto part = std::min<std::size_t>(kPage - at, data.size() - done);
    std::memcpy(page->second.data() + at, data.data() + done, part);
    done += part;
  }
  return done;
}

std::optional<std::uint64_t> FakeMemory::load64(std::uint64_t address) const {
  std::array<std::byte, 8> bytes{};
  if (read(address, bytes) < bytes.size()) return std::nullopt;
  std::uint64_t value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

bool FakeMemory::store64(std::uint64_t address, std::uint64_t value) {
  return write(address, std::as_bytes(std::span(&value, 1))) == sizeof(value);
}

FakeStep fake_step(Registers &registers, FakeMemory &memory) {
  return Execution(registers, memory).run();
}

Result<std::uint64_t> fake_load(const std::string &path, FakeMemory &memory) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Err(Errno::NoEnt);
  const std::string image{std::istreambuf_iterator<char>(file), {}};
  abi::Elf64Ehdr head{};
  if (!read_at(image, 0, head) || !image.starts_with("\177ELF")) return Err(Errno::NoExec);
  for (unsigned i = 0; i < head.phnum; ++i) {
    abi::Elf64Phdr part{};
    if (!read_at(image, head.phoff + i * sizeof(part), part)) return Err(Errno::NoExec);
    if (part.type != abi::kPT_LOAD || part.memsz == 0) continue;
    if (part.offset > image.size() || image.size() - part.offset < part.filesz)
      return Err(Errno::NoExec);
    memory.map(part.vaddr, part.memsz);
    memory.write(part.vaddr, std::as_bytes(std::span(image.data() + part.offset, part.filesz)));
  }
  return head.entry;
}

}  // namespace cowbird::debug
