#include "unit/mm_support.hpp"

#include <algorithm>
#include <exception>

#include "base/log.hpp"
#include "mm/retire.hpp"
#include "unit/sched_support.hpp"

namespace cowbird::mm_test {

void run_on_kernel_thread(void (*body)()) {
  std::exception_ptr failure;
  {
    test::Machine scheduler(1);
    scheduler.run([&] {
      try {
        body();
      } catch (...) {
        failure = std::current_exception();  // a failed REQUIRE
      }
    });
  }
  if (failure) std::rethrow_exception(failure);
}

void set_active_mm(Mm *mm) {
  if (Thread *thread = current_thread()) thread->active_mm = mm;
}

void Machine::RetireAll() { RetireQueue::wait_all(); }

namespace {

template <typename Access>
FaultOutcome run_access(Mm &mm, Access &&access) {
  for (int i = 0; i < 4096; ++i) {
    std::optional<Trap> trap = access(host(mm));
    if (!trap) return FaultOutcome::Resolved;
    const FaultOutcome outcome = mm.handle_fault(trap->address, trap->access);
    if (outcome != FaultOutcome::Resolved) return outcome;
  }
  panic("a guest access faults for ever");
}

}  // namespace

FaultOutcome guest_store(Mm &mm, VirtAddr address, std::span<const std::byte> bytes) {
  return run_access(mm, [&](FakeAddressSpace &space) { return space.store(address, bytes); });
}

FaultOutcome guest_load(Mm &mm, VirtAddr address, std::span<std::byte> bytes) {
  return run_access(mm, [&](FakeAddressSpace &space) { return space.load(address, bytes); });
}

FaultOutcome guest_fetch(Mm &mm, VirtAddr address) {
  return run_access(mm, [&](FakeAddressSpace &space) { return space.fetch(address); });
}

Result<void> TestFile::fill_page(std::uint64_t index, Pfn pfn) {
  ++fills;
  if (auto hook = std::exchange(during_fill, nullptr)) hook();
  if (fill_error != Errno{}) return Err(fill_error);
  const std::uint64_t start = index << kPageShift;
  if (start < content.size())
    std::memcpy(phys().data(pfn), &content[start],
                std::min<std::size_t>(kPageSize, content.size() - start));
  return {};
}

Result<void> TestFile::store_page(std::uint64_t index, Pfn pfn, std::uint64_t bytes) {
  ++stores;
  if (auto hook = std::exchange(during_store, nullptr)) hook();
  if (store_error != Errno{}) return Err(store_error);
  std::memcpy(&content[index << kPageShift], phys().data(pfn), bytes);
  return {};
}

}  // namespace cowbird::mm_test
