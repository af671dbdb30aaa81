#include <catch2/catch.hpp>

#include "unit/mm_support.hpp"

using namespace cowbird;
using namespace cowbird::mm_test;

namespace {

IovIter from_text(std::string_view text) {
  return IovIter::kernel(std::as_bytes(std::span(text.data(), text.size())));
}

std::string read_text(PageCache &cache, std::uint64_t offset, std::size_t bytes) {
  std::string text(bytes, '?');
  IovIter to = IovIter::kernel(std::as_writable_bytes(std::span(text)));
  text.resize(cache.read(offset, to).value());
  return text;
}

}  // namespace

MM_TEST("reads fill pages once and stop at the end") {
  Machine machine;
  Ref<TestFile> file = make_ref<TestFile>(kPageSize + 5);
  for (std::size_t i = 0; i < file->content.size(); ++i)
    file->content[i] = static_cast<unsigned char>('a' + i % 26);
  CHECK(read_text(*file, 0, 3) == "abc");
  CHECK(read_text(*file, 26, 3) == "abc");
  CHECK(file->fills == 1);
  CHECK(read_text(*file, kPageSize, 100).size() == 5);
  CHECK(read_text(*file, kPageSize + 5, 100).empty());
  CHECK(file->cached_pages() == 2);
  file->fill_error = Errno::Io;
  file->truncate(kPageSize);
  file->truncate(2 * kPageSize);
  std::string text(8, '?');
  IovIter to = IovIter::kernel(std::as_writable_bytes(std::span(text)));
  CHECK(file->read(kPageSize, to).is(Errno::Io));
  CHECK(file->cached_pages() == 1);
}

MM_TEST("a batch reads several pages into one run") {
  Machine machine;
  Ref<TestFile> file = make_ref<TestFile>(20 * kPageSize);
  file->batch = 8;
  Result<Pfn> page = file->get_page(4);
  REQUIRE(page);
  CHECK(file->cached_pages() == 8);
  // The aligned batch around the page.
  Pfn next = 0;
  CHECK(file->find_page(7, next));
  CHECK(next == *page + 3);
  CHECK(file->find_page(0, next));
  CHECK(next == *page - 4);
  CHECK(!file->find_page(8, next));
  CHECK(phys().refs(*page) == 2);
  CHECK(phys().refs(next) == 1);
  phys().put(*page);
}

MM_TEST("writes are stored by write-back, whole pages without a read") {
  Machine machine;
  Ref<TestFile> file = make_ref<TestFile>(3 * kPageSize);
  std::string page(kPageSize, 'w');
  IovIter whole = from_text(page);
  CHECK(file->write(kPageSize, whole).value() == kPageSize);
  CHECK(file->fills == 0);
  IovIter part = from_text("xyz");
  CHECK(file->write(10, part).value() == 3);
  CHECK(file->fills == 1);
  CHECK(file->dirty_pages() == 2);
  CHECK(file->write_back(0, ~0ull));
  CHECK(file->stores == 2);
  CHECK(file->dirty_pages() == 0);
  CHECK(file->content[11] == 'y');
  CHECK(file->content[2 * kPageSize - 1] == 'w');
  CHECK(file->write_back(0, ~0ull));
  CHECK(file->stores == 2);
  IovIter again = from_text("q");
  CHECK(file->write(0, again).value() == 1);
  file->store_error = Errno::NoSpc;
  CHECK(file->write_back(0, ~0ull).is(Errno::NoSpc));
  CHECK(file->dirty_pages() == 1);
  file->store_error = Errno{};
  CHECK(write_back_all());
  CHECK(file->content[0] == 'q');
}

MM_TEST("a whole-page write that faults on its way does not lose the rest of the page") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  set_active_mm(mm.get());
  const VirtAddr at = 0x2000'0000;
  map_anon(*mm, 1, kReadWrite, Sharing::Private, at);
  store8(*mm, at + kPageSize - 1, 'n');
  Ref<TestFile> file = make_ref<TestFile>(kPageSize);
  file->content.assign(kPageSize, 'o');
  IovIter from = IovIter::user(at + kPageSize - 1, kPageSize);
  CHECK(file->write(0, from).value() == 1);
  CHECK(read_text(*file, 0, 3) == "noo");
}

MM_TEST("a page that is truncated while it is read is not used") {
  Machine machine;
  Ref<TestFile> file = make_ref<TestFile>(4 * kPageSize);
  file->content.assign(4 * kPageSize, 'o');
  file->during_fill = [&] { file->truncate(kPageSize + 10); };
  Result<Pfn> page = file->get_page(1);
  REQUIRE(page);
  Pfn cached = 0;
  REQUIRE(file->find_page(1, cached));
  CHECK(cached == *page);
  CHECK(phys().data(*page)[9] == std::byte{'o'});
  CHECK(phys().data(*page)[10] == std::byte{0});
  phys().put(*page);
}

MM_TEST("shared mappings make pages dirty, again after each write-back") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  Ref<TestFile> file = make_ref<TestFile>(2 * kPageSize);
  const VirtAddr at = map_file(*mm, file, 2, kReadWrite, Sharing::Shared);
  CHECK(load8(*mm, at) == 0);
  CHECK(file->dirty_pages() == 0);
  CHECK(store8(*mm, at, 1) == FaultOutcome::Resolved);
  CHECK(file->dirty_pages() == 1);
  CHECK(mm->msync(at, 2 * kPageSize, 4));
  CHECK(file->content[0] == 1);
  CHECK(file->dirty_pages() == 0);
  CHECK(host(*mm).page(at)->prot == Prot::Read);
  CHECK(store8(*mm, at, 2) == FaultOutcome::Resolved);
  CHECK(file->dirty_pages() == 1);
  // A write while the page is being stored is not lost.
  file->during_store = [&] { store8(*mm, at, 3); };
  CHECK(file->write_back(0, ~0ull));
  CHECK(file->dirty_pages() == 1);
  CHECK(file->write_back(0, ~0ull));
  CHECK(file->content[0] == 3);
  // Through another mapping and by read it is the same page.
  CHECK(read_text(*file, 0, 1) == std::string(1, 3));
  CHECK(mm->msync(at, 3 * kPageSize, 4).is(Errno::NoMem));
  CHECK(mm->msync(at, kPageSize, 5).is(Errno::Inval));
}

MM_TEST("truncation takes pages from every mapping and waits for the engine") {
  Machine machine;
  Ref<Mm> first = machine.new_mm();
  Ref<Mm> second = machine.new_mm();
  Ref<TestFile> file = make_ref<TestFile>(4 * kPageSize);
  const VirtAddr a = map_file(*first, file, 4, kReadWrite, Sharing::Shared);
  const VirtAddr b = map_file(*second, file, 2, Prot::Read, Sharing::Shared, 2 * kPageSize);
  store8(*first, a + 3 * kPageSize, 5);
  CHECK(load8(*second, b + kPageSize) == 5);
  const Pfn pfn = host(*second).page(b + kPageSize)->pfn;
  file->truncate(3 * kPageSize);
  CHECK(!host(*first).page(a + 3 * kPageSize));
  CHECK(!host(*second).page(b + kPageSize));
  CHECK(host(*first).synchronized() + host(*second).synchronized() == 2);
  first->reap_retired();
  second->reap_retired();
  CHECK(phys().refs(pfn) == 0);
}

MM_TEST("clean pages make room, dirty, mapped and memory-only ones stay") {
  Machine machine(256);
  Ref<TestFile> file = make_ref<TestFile>(100 * kPageSize);
  Ref<PageCache> memory = make_shared_memory(16 * kPageSize);
  for (std::uint64_t i = 0; i < 100; ++i) phys().put(file->get_page(i).value());
  for (std::uint64_t i = 0; i < 16; ++i) phys().put(memory->get_page(i).value());
  file->mark_dirty(7);
  Ref<Mm> mm = machine.new_mm();
  const VirtAddr text = map_file(*mm, file, 1, Prot::Read, Sharing::Private, 50 * kPageSize);
  CHECK(load8(*mm, text) == 0);
  std::vector<Pfn> frames;
  while (Result<Pfn> pfn = phys().alloc(Zero::No)) frames.push_back(*pfn);
  CHECK(frames.size() >= 256 - 20 - 16);
  CHECK(file->cached_pages() == 2);
  Pfn pfn = 0;
  CHECK(file->find_page(7, pfn));
  CHECK(file->find_page(50, pfn));
  CHECK(memory->cached_pages() == 16);
  for (Pfn frame : frames) phys().put(frame);
}

MM_TEST("holes of memory objects are read without memory") {
  Machine machine;
  Ref<PageCache> memory = make_shared_memory(1000 * kPageSize);
  CHECK(read_text(*memory, 500 * kPageSize, 10) == std::string(10, '\0'));
  CHECK(memory->cached_pages() == 0);
}

MM_TEST("punching a hole keeps private copies and zeroes partial pages") {
  Machine machine;
  Ref<Mm> mm = machine.new_mm();
  Ref<PageCache> memory = make_shared_memory(4 * kPageSize);
  MmapRequest request;
  request.length = 4 * kPageSize;
  request.prot = kReadWrite;
  request.sharing = Sharing::Private;
  request.cache = memory;
  const VirtAddr copy = mm->mmap(request).value();
  request.sharing = Sharing::Shared;
  const VirtAddr shared = mm->mmap(request).value();
  for (int page = 0; page < 4; ++page) store8(*mm, shared + page * kPageSize + 100, 40 + page);
  store8(*mm, copy + kPageSize, 9);
  memory->truncate_range(50, 3 * kPageSize + 50);
  CHECK(load8(*mm, shared + 100) == 0);
  CHECK(load8(*mm, shared + kPageSize + 100) == 0);
  CHECK(load8(*mm, shared + 3 * kPageSize + 100) == 43);
  CHECK(load8(*mm, copy + kPageSize) == 9);
  CHECK(load8(*mm, copy + kPageSize + 100) == 41);
  CHECK(mm->madvise(shared, 4 * kPageSize, 9));
  CHECK(load8(*mm, shared + 3 * kPageSize + 100) == 0);
}
