// A guest without a kernel, for tests and benchmarks of the stub engine: memory, one address space,
// one context, and machine code to run in it.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.hpp"
#include "engine/platform.hpp"

namespace cowbird::test {

inline constexpr VirtAddr kCode = 0x400000, kData = 0x600000, kStack = 0x7000'0000;
inline constexpr std::uint64_t kMemoryPages = 16384;

class GuestMachine {
 public:
  explicit GuestMachine(StubPlatformOptions options = {}) {
    memory_fd.reset(::memfd_create("guest-memory", MFD_CLOEXEC));
    if (::ftruncate(memory_fd.get(), kMemoryPages * kPageSize) != 0) std::abort();
    memory = static_cast<std::byte *>(::mmap(
        nullptr, kMemoryPages * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd.get(), 0));
    options.memory_fd = memory_fd.get();
    options.memory_pages = kMemoryPages;
    std::string why;
    auto made = make_stub_platform(options, why);
    if (!made) {
      std::fprintf(stderr, "%s\n", why.c_str());
      std::abort();
    }
    platform = std::move(*made);
  }
  ~GuestMachine() {
    platform->shutdown();
    platform.reset();
    ::munmap(memory, kMemoryPages * kPageSize);
  }

  std::byte *frame(Pfn pfn) { return memory + (pfn << kPageShift); }
  Pfn allocate(std::uint64_t pages = 1) {
    auto &free = free_[pages];
    if (!free.empty()) {
      const Pfn again = free.back();
      free.pop_back();
      return again;
    }
    const Pfn first = next_;
    next_ += pages;
    if (next_ > kMemoryPages) std::abort();
    return first;
  }

  void release(Pfn first, std::uint64_t pages) { free_[pages].push_back(first); }

  UniqueFd memory_fd;
  std::byte *memory = nullptr;
  std::unique_ptr<Platform> platform;

 private:
  Pfn next_ = 16;
  std::map<std::uint64_t, std::vector<Pfn>> free_;
};

// Code at kCode (16 pages), data at kData (16 pages), a stack page below kStack.
class Guest {
 public:
  explicit Guest(GuestMachine &m) : machine(m) {
    auto made = machine.platform->new_address_space();
    if (!made) std::abort();
    space = std::move(*made);
    context = new_context();
    code_pfn = machine.allocate(16);
    data_pfn = machine.allocate(16);
    stack_pfn = machine.allocate(4);
    map_all();
    context->regs().rip = kCode;
    context->regs().rsp = kStack;
  }
  ~Guest() {
    context.reset();
    space.reset();
    for (const Pfn pfn : {code_pfn, data_pfn}) machine.release(pfn, 16);
    machine.release(stack_pfn, 4);
  }

  void map_all() {
    space->map(kCode, code_pfn, 16, Prot::Read | Prot::Exec, true);
    space->map(kData, data_pfn, 16, Prot::Read | Prot::Write, true);
    space->map(kStack - 4 * kPageSize, stack_pfn, 4, Prot::Read | Prot::Write, true);
  }
  std::unique_ptr<Context> new_context() {
    auto made = machine.platform->new_context(*space);
    if (!made) std::abort();
    return std::move(*made);
  }
  void code(const std::vector<std::uint8_t> &bytes, std::uint64_t offset = 0) {
    std::memcpy(machine.frame(code_pfn) + offset, bytes.data(), bytes.size());
  }
  template <typename T>
  T &data(std::uint64_t offset = 0) {
    return *reinterpret_cast<T *>(machine.frame(data_pfn) + offset);
  }
  abi::UserRegs &regs() { return context->regs(); }
  Trap run() { return context->run(); }

  GuestMachine &machine;
  std::unique_ptr<AddressSpace> space;
  std::unique_ptr<Context> context;
  Pfn code_pfn = 0, data_pfn = 0, stack_pfn = 0;
};

}  // namespace cowbird::test
