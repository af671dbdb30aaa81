#include <catch2/catch.hpp>

#include "unit/mm_support.hpp"

using namespace cowbird;
using namespace cowbird::mm_test;

namespace {

std::size_t area_count(const Mm &mm) {
  std::size_t areas = 0;
  mm.for_each_vma([&](const Vma &) { ++areas; });
  return areas;
}

constexpr int kSegvMaperr = -1 - static_cast<int>(FaultOutcome::NoMapping);
constexpr int kSegvAccerr = -1 - static_cast<int>(FaultOutcome::NoAccess);
constexpr int kSigbus = -1 - static_cast<int>(FaultOutcome::BeyondEnd);

}  // namespace

MM_TEST("anonymous memory is zero, keeps what is written, and faults come in runs") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = map_anon(*mm, 512);
  CHECK(load8(*mm, at + 5) == 0);
  CHECK(store8(*mm, at + 5, 42) == FaultOutcome::Resolved);
  CHECK(load8(*mm, at + 5) == 42);
  CHECK(mm->minor_faults == 1);
  for (int page = 0; page < 512; ++page) {
    CHECK(store8(*mm, at + page * kPageSize, page) == FaultOutcome::Resolved);
  }
  CHECK(mm->minor_faults < 10);  // windows grow while faults go upwards
  CHECK(mm->usage().resident_anon == 512);
  CHECK(load8(*mm, at - 1) == kSegvMaperr);
  CHECK(mm->munmap(at, 512 * kPageSize));
  CHECK(load8(*mm, at) == kSegvMaperr);
  CHECK(mm->usage().resident_anon == 0);
  CHECK(mm->usage().virtual_pages == 0);
  CHECK(mm->usage().page_table_pages == 0);
}

MM_TEST("frames wait for the engine's proof before they are used again") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = map_anon(*mm, 16, kReadWrite, Sharing::Private, 0x2000'0000);
  CHECK(store8(*mm, at, 1) == FaultOutcome::Resolved);
  const std::uint64_t free_before = phys().free_pages();
  const Pfn pfn = host(*mm).page(at)->pfn;
  CHECK(mm->munmap(at, 16 * kPageSize));
  mm->reap_retired();
  CHECK(phys().free_pages() == free_before);
  CHECK(phys().refs(pfn) == 1);
  host(*mm).finish_orders();
  mm->reap_retired();
  CHECK(phys().free_pages() == free_before + 16);
  CHECK(phys().refs(pfn) == 0);
}

MM_TEST("a threaded program's unmap waits for the engine") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  mm->users = 2;
  const VirtAddr at = map_anon(*mm, 16, kReadWrite, Sharing::Private, 0x2000'0000);
  CHECK(store8(*mm, at, 1) == FaultOutcome::Resolved);
  const std::uint64_t free_before = phys().free_pages();
  CHECK(mm->munmap(at, 16 * kPageSize));
  CHECK(host(*mm).synchronized() == 1);
  CHECK(phys().free_pages() == free_before + 16);
  mm->users = 0;
}

MM_TEST("protection is enforced and weaker protection is told the engine") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = map_anon(*mm, 8);
  CHECK(store8(*mm, at + 3 * kPageSize, 9) == FaultOutcome::Resolved);
  CHECK(mm->mprotect(at + 2 * kPageSize, 2 * kPageSize, Prot::Read));
  CHECK(area_count(*mm) == 3);
  CHECK(load8(*mm, at + 3 * kPageSize) == 9);
  CHECK(store8(*mm, at + 3 * kPageSize, 1) == FaultOutcome::NoAccess);
  CHECK(store8(*mm, at + 4 * kPageSize, 1) == FaultOutcome::Resolved);
  CHECK(guest_fetch(*mm, at) == FaultOutcome::NoAccess);
  CHECK(mm->mprotect(at, 8 * kPageSize, Prot::None));
  CHECK(area_count(*mm) == 1);
  CHECK(load8(*mm, at) == kSegvAccerr);
  CHECK(mm->mprotect(at, 8 * kPageSize, kReadWrite | Prot::Exec));
  CHECK(load8(*mm, at + 3 * kPageSize) == 9);
  CHECK(guest_fetch(*mm, at) == FaultOutcome::Resolved);
  CHECK(mm->mprotect(at + 1, 1, Prot::Read).is(Errno::Inval));
  CHECK(mm->mprotect(at, 9 * kPageSize, Prot::Read).is(Errno::NoMem));
}

MM_TEST("mmap places below the base, honours hints, and refuses what Linux refuses") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr first = map_anon(*mm, 1, Prot::Read);
  const VirtAddr second = map_anon(*mm, 1, kReadWrite);
  CHECK(second == first - kPageSize);
  const VirtAddr hole = second;
  CHECK(mm->munmap(hole, kPageSize));
  CHECK(map_anon(*mm, 1, kReadWrite) == hole);

  MmapRequest request;
  request.length = 3 * kPageSize;
  request.prot = kReadWrite;
  request.hint = 0x1000'0123;
  CHECK(mm->mmap(request).value() == 0x1000'0000);
  CHECK(mm->mmap(request).value() != 0x1000'0000);
  request.hint = 0x1000'1000;
  request.fixed_noreplace = true;
  CHECK(mm->mmap(request).is(Errno::Exist));
  request.fixed_noreplace = false;
  request.fixed = true;
  CHECK(mm->mmap(request).value() == 0x1000'1000);
  request.hint = 0x1000'0001;
  CHECK(mm->mmap(request).is(Errno::Inval));
  request.hint = 0x1000;
  CHECK(mm->mmap(request).is(Errno::Perm));
  request.hint = kUserMax - kPageSize;
  CHECK(mm->mmap(request).is(Errno::NoMem));
  request = {};
  CHECK(mm->mmap(request).is(Errno::Inval));
  request.length = ~0ull;
  CHECK(mm->mmap(request).is(Errno::NoMem));
  request.length = (phys().total_pages() + 1) << kPageShift;
  request.prot = kReadWrite;
  CHECK(mm->mmap(request).is(Errno::NoMem));
  request.no_reserve = true;
  CHECK(mm->mmap(request));
  request.length = kPageSize;
  request.below_4g = true;
  CHECK(mm->mmap(request).value() < 0x8000'0000);
  mm->limits.address_space = mm->usage().virtual_pages << kPageShift;
  CHECK(mm->mmap(request).is(Errno::NoMem));
}

MM_TEST("adjacent mappings join and holes split") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = 0x2000'0000;
  map_anon(*mm, 4, kReadWrite, Sharing::Private, at);
  map_anon(*mm, 4, kReadWrite, Sharing::Private, at + 8 * kPageSize);
  CHECK(area_count(*mm) == 2);
  map_anon(*mm, 4, kReadWrite, Sharing::Private, at + 4 * kPageSize);
  CHECK(area_count(*mm) == 1);
  CHECK(mm->munmap(at + 4 * kPageSize, kPageSize));
  CHECK(area_count(*mm) == 2);
  CHECK(mm->find_vma(at + 4 * kPageSize) == nullptr);
  CHECK(mm->munmap(at + 1, 1).is(Errno::Inval));
  CHECK(mm->munmap(at, 0).is(Errno::Inval));
}

MM_TEST("the heap moves with brk") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  mm->brk_start = mm->brk_end = 0x3000'0000;
  CHECK(mm->brk(0) == 0x3000'0000);
  CHECK(mm->brk(0x3000'2010) == 0x3000'2010);
  CHECK(store8(*mm, 0x3000'2fff, 3) == FaultOutcome::Resolved);
  CHECK(store8(*mm, 0x3000'3000, 3) == FaultOutcome::NoMapping);
  CHECK(mm->brk(0x3000'1000) == 0x3000'1000);
  CHECK(load8(*mm, 0x3000'2fff) == kSegvMaperr);
  map_anon(*mm, 1, kReadWrite, Sharing::Private, 0x3000'4000);
  CHECK(mm->brk(0x3000'5000) == 0x3000'1000);
  mm->limits.data = 0x2000;
  CHECK(mm->brk(0x3000'3000) == 0x3000'1000);
}

MM_TEST("a stack grows down to its limit and keeps its guard gap") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  mm->limits.stack = 64 * kPageSize;
  const VirtAddr top = 0x7000'0000'0000;
  MmapRequest request;
  request.hint = top - 4 * kPageSize;
  request.length = 4 * kPageSize;
  request.prot = kReadWrite;
  request.fixed = true;
  request.grows_down = true;
  request.kind = VmaKind::Stack;
  REQUIRE(mm->mmap(request));
  CHECK(store8(*mm, top - 40 * kPageSize, 1) == FaultOutcome::Resolved);
  CHECK(store8(*mm, top - 64 * kPageSize, 1) == FaultOutcome::Resolved);
  CHECK(store8(*mm, top - 64 * kPageSize - 1, 1) == FaultOutcome::NoMapping);
  mm->limits.stack = 8 * kMiB;
  map_anon(*mm, 1, kReadWrite, Sharing::Private, top - 400 * kPageSize);
  CHECK(store8(*mm, top - 140 * kPageSize, 1) == FaultOutcome::Resolved);
  CHECK(store8(*mm, top - 380 * kPageSize, 1) == FaultOutcome::NoMapping);
}

MM_TEST("fork shares frames until one side writes") {
  Machine machine;
  Ref<Mm> parent = machine.new_mm();
  const VirtAddr at = map_anon(*parent, 32);
  const VirtAddr shared = map_anon(*parent, 4, kReadWrite, Sharing::Shared);
  for (int page = 0; page < 32; ++page) store8(*parent, at + page * kPageSize, 100 + page);
  store8(*parent, shared, 7);
  const std::uint64_t free_before = phys().free_pages();
  {
    Ref<Mm> child = parent->fork().value();
    CHECK(host(*parent).synchronized() == 1);
    CHECK(phys().free_pages() == free_before);
    CHECK(load8(*child, at + 3 * kPageSize) == 103);
    CHECK(load8(*child, at + 4 * kPageSize) == 104);
    CHECK(child->minor_faults == 1);  // one maps the neighbours too
    CHECK(store8(*child, at, 1) == FaultOutcome::Resolved);
    CHECK(store8(*parent, at + kPageSize, 2) == FaultOutcome::Resolved);
    CHECK(load8(*parent, at) == 100);
    CHECK(load8(*child, at + kPageSize) == 101);
    CHECK(load8(*child, at) == 1);
    CHECK(load8(*parent, at + kPageSize) == 2);
    CHECK(phys().free_pages() == free_before - 2);
    store8(*child, shared, 8);
    CHECK(load8(*parent, shared) == 8);
  }
  Machine::RetireAll();
  CHECK(phys().free_pages() == free_before);
  // Alone again: one fault makes a whole window writable.
  const std::uint64_t faults = parent->minor_faults;
  for (int page = 0; page < 32; ++page) store8(*parent, at + page * kPageSize, page);
  CHECK(parent->minor_faults <= faults + 4);
  CHECK(phys().free_pages() == free_before);
}

MM_TEST("a fork copies what was written after earlier forks") {
  Machine machine;
  Ref<Mm> parent = machine.new_mm();
  const VirtAddr at = map_anon(*parent, 32);
  for (int page = 0; page < 32; ++page) store8(*parent, at + page * kPageSize, page);
  {
    Ref<Mm> child = parent->fork().value();
    store8(*parent, at, 50);
    store8(*child, at + 9 * kPageSize, 60);
  }
  Machine::RetireAll();
  Ref<Mm> child = parent->fork().value();
  const std::uint64_t faults = parent->minor_faults;
  store8(*parent, at, 51);
  CHECK(parent->minor_faults == faults);
  store8(*parent, at + 9 * kPageSize, 61);
  CHECK(load8(*child, at) == 50);
  CHECK(load8(*child, at + 9 * kPageSize) == 9);
  store8(*child, at, 52);
  CHECK(child->minor_faults == 0);
  CHECK(load8(*parent, at) == 51);
}

MM_TEST("the parent loses write access before a fork returns") {
  Machine machine;
  Ref<Mm> parent = machine.new_mm();
  const VirtAddr at = map_anon(*parent, 16, kReadWrite, Sharing::Private, 0x2000'0000);
  store8(*parent, at, 1);
  Ref<Mm> child = parent->fork().value();
  for (int page = 0; page < 16; ++page)
    CHECK(host(*parent).page(at + page * kPageSize)->prot == Prot::Read);
  const std::byte byte{5};
  CHECK(host(*child).store(at, {&byte, 1}).has_value());
}

MM_TEST("a page that was copied away from stays shared until the engine is done") {
  Machine machine;
  Ref<Mm> parent = machine.new_mm();
  const VirtAddr at = map_anon(*parent, 1);
  store8(*parent, at, 1);
  const Pfn pfn = host(*parent).page(at)->pfn;
  Ref<Mm> child = parent->fork().value();
  load8(*child, at);
  store8(*parent, at, 2);
  CHECK(host(*parent).page(at)->pfn != pfn);
  CHECK(phys().refs(pfn) == 2);
  // Another thread of the parent could still read it, so the child does not write there.
  store8(*child, at, 3);
  CHECK(host(*child).page(at)->pfn != pfn);
  CHECK(phys().refs(pfn) == 2);
  host(*parent).finish_orders();
  host(*child).finish_orders();
  parent->reap_retired();
  child->reap_retired();
  CHECK(phys().refs(pfn) == 0);
}

MM_TEST("advice about fork") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = map_anon(*mm, 4);
  for (int page = 0; page < 4; ++page) store8(*mm, at + page * kPageSize, 9);
  CHECK(mm->madvise(at, kPageSize, 10));
  CHECK(mm->madvise(at + kPageSize, kPageSize, 18));
  Ref<Mm> child = mm->fork().value();
  CHECK(load8(*child, at) == kSegvMaperr);
  CHECK(load8(*child, at + kPageSize) == 0);
  CHECK(load8(*child, at + 2 * kPageSize) == 9);
  CHECK(load8(*mm, at) == 9);
}

MM_TEST("DONTNEED empties, unknown advice is refused") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = map_anon(*mm, 4);
  store8(*mm, at + kPageSize, 9);
  CHECK(mm->madvise(at, 4 * kPageSize, 4));
  CHECK(load8(*mm, at + kPageSize) == 0);
  CHECK(mm->madvise(at, kPageSize, 77).is(Errno::Inval));
  CHECK(mm->madvise(at, 5 * kPageSize, 4).is(Errno::NoMem));
  CHECK(mm->mlock(at, kPageSize, true));
  CHECK(mm->madvise(at, kPageSize, 4).is(Errno::Inval));
  CHECK(mm->usage().locked_pages == 1);
  CHECK(mm->mlock(at, kPageSize, false));
  CHECK(mm->usage().locked_pages == 0);
  std::vector<std::uint8_t> resident;
  CHECK(mm->madvise(at, 4 * kPageSize, 8));
  CHECK(mm->mincore(at, 2 * kPageSize, resident));
  CHECK(resident == std::vector<std::uint8_t>{0, 0});
  CHECK(mm->madvise(at, kPageSize, 23));
  CHECK(mm->mincore(at, kPageSize, resident));
  CHECK(resident == std::vector<std::uint8_t>{1});
}

MM_TEST("mremap grows in place, moves, shrinks and duplicates") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = 0x2000'0000;
  map_anon(*mm, 4, kReadWrite, Sharing::Private, at);
  for (int page = 0; page < 4; ++page) store8(*mm, at + page * kPageSize, 50 + page);
  CHECK(mm->mremap(at, 4 * kPageSize, 6 * kPageSize, 0, 0).value() == at);
  CHECK(load8(*mm, at + 5 * kPageSize) == 0);
  map_anon(*mm, 1, Prot::Read, Sharing::Private, at + 6 * kPageSize);
  CHECK(mm->mremap(at, 6 * kPageSize, 8 * kPageSize, 0, 0).is(Errno::NoMem));
  const VirtAddr moved = mm->mremap(at, 6 * kPageSize, 8 * kPageSize, 1, 0).value();
  CHECK(moved != at);
  CHECK(load8(*mm, at) == kSegvMaperr);
  for (int page = 0; page < 4; ++page) CHECK(load8(*mm, moved + page * kPageSize) == 50 + page);
  CHECK(load8(*mm, moved + 7 * kPageSize) == 0);
  CHECK(mm->mremap(moved, 8 * kPageSize, 2 * kPageSize, 0, 0).value() == moved);
  CHECK(load8(*mm, moved + 2 * kPageSize) == kSegvMaperr);
  CHECK(mm->mremap(moved, 2 * kPageSize, 2 * kPageSize, 3, at).value() == at);
  CHECK(load8(*mm, at + kPageSize) == 51);
  // DONTUNMAP leaves an empty mapping behind.
  const VirtAddr other = mm->mremap(at, 2 * kPageSize, 2 * kPageSize, 5, 0).value();
  CHECK(load8(*mm, at + kPageSize) == 0);
  CHECK(load8(*mm, other + kPageSize) == 51);
  // A shared mapping of old size 0 is mapped a second time.
  const VirtAddr shared = map_anon(*mm, 2, kReadWrite, Sharing::Shared);
  store8(*mm, shared, 33);
  const VirtAddr twin = mm->mremap(shared, 0, 2 * kPageSize, 1, 0).value();
  CHECK(load8(*mm, twin) == 33);
  store8(*mm, twin + kPageSize, 34);
  CHECK(load8(*mm, shared + kPageSize) == 34);
  CHECK(mm->mremap(0x5000'0000, kPageSize, kPageSize, 0, 0).is(Errno::Fault));
  CHECK(mm->mremap(at, kPageSize, kPageSize, 8, 0).is(Errno::Inval));
  CHECK(mm->mremap(at, kPageSize, kPageSize, 2, 0).is(Errno::Inval));
}

MM_TEST("the engine may forget its mappings") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = map_anon(*mm, 16);
  store8(*mm, at + 4 * kPageSize, 77);
  host(*mm).forget_mappings();
  CHECK(load8(*mm, at + 4 * kPageSize) == 77);
  CHECK(store8(*mm, at + 5 * kPageSize, 78) == FaultOutcome::Resolved);
}

MM_TEST("out of memory is an outcome, and everything comes back") {
  Machine machine(128);
  {
    Ref<Mm> mm = machine.new_mm();
    MmapRequest request;
    request.length = 1024 * kPageSize;
    request.prot = kReadWrite;
    request.no_reserve = true;
    const VirtAddr at = mm->mmap(request).value();
    FaultOutcome outcome = FaultOutcome::Resolved;
    int page = 0;
    for (; page < 1024 && outcome == FaultOutcome::Resolved; ++page)
      outcome = store8(*mm, at + page * kPageSize, 1);
    CHECK(outcome == FaultOutcome::OutOfMemory);
    CHECK(page > 100);
    CHECK(phys().free_pages() == phys().reserve_pages());
    // A copy on write fails too, without damage.
    Ref<Mm> child = mm->fork().value();
    CHECK(store8(*child, at, 2) == FaultOutcome::OutOfMemory);
    CHECK(load8(*child, at) == 1);
    set_active_mm(child.get());
    CHECK(copy_out(at, "x", 1).is(Errno::Fault));
    set_active_mm(nullptr);
  }
  Machine::RetireAll();
  CHECK(phys().free_pages() == 128);
  CHECK(machine.platform->live_spaces() == 0);
}

MM_TEST("a dead process's frames are used again only when the engine is done") {
  Machine machine(256);
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = map_anon(*mm, 32);
  store8(*mm, at, 1);
  store8(*mm, at + 16 * kPageSize, 1);
  const std::uint64_t free_before = phys().free_pages();
  mm.reset();
  CHECK(phys().free_pages() == free_before);
  CHECK(machine.platform->live_spaces() == 1);
  // Shortage waits for it.
  Ref<Mm> other = machine.new_mm();
  const VirtAddr big = map_anon(*other, 240);
  for (int page = 0; page < 240; ++page)
    CHECK(store8(*other, big + page * kPageSize, 1) == FaultOutcome::Resolved);
  CHECK(machine.platform->live_spaces() == 1);
}

MM_TEST("user access") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = 0x2000'0000;
  map_anon(*mm, 3, kReadWrite, Sharing::Private, at);
  std::uint32_t word = 0;
  CHECK(copy_in(&word, at, 4).is(Errno::Fault));  // no address space
  set_active_mm(mm.get());
  std::vector<char> bytes(2 * kPageSize, 'q');
  CHECK(copy_out(at + 100, bytes.data(), bytes.size()));
  CHECK(load8(*mm, at + 100) == 'q');
  CHECK(copy_out_partial(at + 2 * kPageSize, bytes.data(), bytes.size()) == kPageSize);
  CHECK(copy_in(&word, kUserMax - 2, 4).is(Errno::Fault));
  CHECK(copy_in(&word, 0, 4).is(Errno::Fault));
  CHECK(copy_in(&word, ~0ull - 1, 4).is(Errno::Fault));
  CHECK(copy_out(at + kPageSize - 3, "hello", 6));
  CHECK(copy_in_string(at + kPageSize - 3, 5).value() == "hello");
  CHECK(copy_in_string(at + kPageSize - 3, 4).is(Errno::NameTooLong));
  CHECK(clear_user(at, 3 * kPageSize));
  CHECK(load8(*mm, at + kPageSize) == 0);
  CHECK(cmpxchg_user_u32(at + 8, 0, 77).value() == 0);
  CHECK(cmpxchg_user_u32(at + 8, 0, 78).value() == 77);
  CHECK(load_user_u32(at + 8).value() == 77);
  CHECK(load_user_u32(at + 9).is(Errno::Inval));
  CHECK(mm->mprotect(at, 3 * kPageSize, Prot::Read));
  CHECK(copy_out(at, "x", 1).is(Errno::Fault));
  CHECK(poke_mm(*mm, at + 8, "xyz", 3));
  CHECK(load8(*mm, at + 9) == 'y');
  CHECK(store8(*mm, at, 1) == FaultOutcome::NoAccess);
  UserPtr<std::uint64_t> pointer(at + 16);
  CHECK(pointer.read().value() == 0);
  CHECK(pointer.write(1).is(Errno::Fault));
}

MM_TEST("breakpoints in a shared frame stay with the one who is traced") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr at = map_anon(*mm, 1);
  store8(*mm, at, 0x90);
  CHECK(mm->mprotect(at, kPageSize, Prot::Read | Prot::Exec));
  Ref<Mm> child = mm->fork().value();
  const unsigned char trap = 0xcc;
  CHECK(poke_mm(*child, at, &trap, 1));
  CHECK(load8(*child, at) == 0xcc);
  CHECK(load8(*mm, at) == 0x90);
}

MM_TEST("iterators stop at the first fault and can go back") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  set_active_mm(mm.get());
  const VirtAddr at = 0x2000'0000;
  map_anon(*mm, 1, kReadWrite, Sharing::Private, at);
  std::vector<std::byte> bytes(64, std::byte{5});
  IovIter iter = IovIter::user({{at, 8}, {at + 100, 0}, {at + kPageSize - 8, 32}});
  CHECK(iter.remaining() == 40);
  CHECK(iter.copy_to(bytes).value() == 16);
  CHECK(iter.copy_to(bytes).is(Errno::Fault));
  iter.revert(12);
  CHECK(iter.consumed() == 4);
  iter.truncate(6);
  std::vector<std::byte> back(64);
  CHECK(iter.copy_from(back).value() == 6);
  CHECK(back[5] == std::byte{5});
  std::vector<std::byte> kernel(10);
  IovIter to = IovIter::kernel(std::span<std::byte>(kernel));
  to.advance(3);
  CHECK(to.copy_to(bytes).value() == 7);
  CHECK(kernel[2] == std::byte{0});
  CHECK(kernel[3] == std::byte{5});
  CHECK(to.copy_to(bytes).value() == 0);
}

MM_TEST("files: sigbus beyond the end and after truncation") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  Ref<TestFile> file = make_ref<TestFile>(2 * kPageSize + 10);
  file->content[kPageSize] = 65;
  const VirtAddr at = map_file(*mm, file, 4, kReadWrite, Sharing::Shared);
  const VirtAddr copy = map_file(*mm, file, 4, kReadWrite, Sharing::Private);
  CHECK(load8(*mm, at + kPageSize) == 65);
  CHECK(mm->major_faults == 1);
  CHECK(load8(*mm, at + 2 * kPageSize + 100) == 0);
  CHECK(load8(*mm, at + 3 * kPageSize) == kSigbus);
  CHECK(store8(*mm, copy + kPageSize, 66) == FaultOutcome::Resolved);
  CHECK(load8(*mm, at + kPageSize) == 65);
  file->truncate(100);
  CHECK(load8(*mm, at + kPageSize) == kSigbus);
  CHECK(load8(*mm, copy + kPageSize) == kSigbus);
  CHECK(load8(*mm, at) == 0);
  CHECK(mm->munmap(at, 4 * kPageSize));
  CHECK(mm->munmap(copy, 4 * kPageSize));
}
