// What the unit tests of mm/ share: a machine with a little memory and the fake platform, a file
// whose contents the test sees, and accesses as guest code would make them.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/fake_platform.hpp"
#include "mm/mm.hpp"
#include "mm/phys_memory.hpp"
#include "mm/user_access.hpp"
#include "sched/thread.hpp"

namespace cowbird::mm_test {

// Runs a test's body on a kernel thread of a scheduler with one vCPU, since mm/ sleeps.
void run_on_kernel_thread(void (*body)());
#define MM_TEST_NAME(line) MM_TEST_NAME_(line)
#define MM_TEST_NAME_(line) mm_test_body_##line
#define MM_TEST(name)                                                                         \
  static void MM_TEST_NAME(__LINE__)();                                                       \
  TEST_CASE(name, "[mm]") { cowbird::mm_test::run_on_kernel_thread(MM_TEST_NAME(__LINE__)); } \
  static void MM_TEST_NAME(__LINE__)()

// The address space that user pointers refer to in the test.
void set_active_mm(Mm *mm);

struct Machine {
  explicit Machine(std::uint64_t pages = 4096) {
    std::string why;
    Result<std::unique_ptr<PhysMemory>> made = PhysMemory::create(pages << kPageShift, why);
    memory = std::move(made).value();
    set_phys(memory.get());
    set_mm_random([]() -> std::uint64_t { return 0x1234; });  // the same places each time
    platform =
        std::make_unique<FakePlatform>(std::span<std::byte>(memory->data(0), pages << kPageShift));
  }
  ~Machine() {
    set_active_mm(nullptr);
    set_mm_random(nullptr);
    RetireAll();
    platform.reset();
  }
  static void RetireAll();
  Ref<Mm> new_mm() { return Mm::create(*platform).value(); }

  std::unique_ptr<PhysMemory> memory;
  std::unique_ptr<FakePlatform> platform;
};

inline FakeAddressSpace &host(Mm &mm) { return static_cast<FakeAddressSpace &>(mm.host()); }

// Runs a guest access to its end: faults go to the address space until it succeeds or fails.
FaultOutcome guest_store(Mm &mm, VirtAddr address, std::span<const std::byte> bytes);
FaultOutcome guest_load(Mm &mm, VirtAddr address, std::span<std::byte> bytes);
FaultOutcome guest_fetch(Mm &mm, VirtAddr address);
inline FaultOutcome store8(Mm &mm, VirtAddr address, unsigned value) {
  const std::byte byte{static_cast<unsigned char>(value)};
  return guest_store(mm, address, {&byte, 1});
}
// The byte there, or -1 - outcome.
inline int load8(Mm &mm, VirtAddr address) {
  std::byte byte{};
  const FaultOutcome outcome = guest_load(mm, address, {&byte, 1});
  return outcome == FaultOutcome::Resolved ? static_cast<int>(byte)
                                           : -1 - static_cast<int>(outcome);
}

inline constexpr Prot kRead = Prot::Read;
inline constexpr Prot kReadWrite = Prot::Read | Prot::Write;

inline VirtAddr map_anon(Mm &mm, std::uint64_t pages, Prot prot = kReadWrite,
                         Sharing sharing = Sharing::Private, VirtAddr fixed = 0) {
  MmapRequest request;
  request.length = pages << kPageShift;
  request.prot = prot;
  request.sharing = sharing;
  request.hint = fixed;
  request.fixed = fixed != 0;
  return mm.mmap(std::move(request)).value();
}

// A file in the test's memory, read and written through its page cache.
class TestFile final : public PageCache {
 public:
  explicit TestFile(std::uint64_t bytes) : content(bytes) {}
  std::uint64_t size() const override { return content.size(); }
  std::vector<unsigned char> content;
  unsigned fills = 0;
  unsigned stores = 0;
  std::uint64_t batch = 1;
  Errno fill_error{};
  Errno store_error{};
  std::function<void()> during_fill, during_store;  // called once

  // As a file system does it.
  void truncate(std::uint64_t bytes) {
    content.resize(bytes);
    truncate_range(bytes, ~0ull);
  }

 protected:
  Result<void> fill_page(std::uint64_t index, Pfn pfn) override;
  std::uint64_t fill_batch() const override { return batch; }
  Result<void> store_page(std::uint64_t index, Pfn pfn, std::uint64_t bytes) override;
};

inline VirtAddr map_file(Mm &mm, const Ref<TestFile> &file, std::uint64_t pages, Prot prot,
                         Sharing sharing, std::uint64_t offset = 0) {
  MmapRequest request;
  request.length = pages << kPageShift;
  request.prot = prot;
  request.sharing = sharing;
  request.cache = file;
  request.offset = offset;
  return mm.mmap(std::move(request)).value();
}

}  // namespace cowbird::mm_test
