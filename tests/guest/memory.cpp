// Memory: mmap(2), munmap(2), mprotect(2), mremap(2), brk(2), madvise(2), mincore(2), msync(2),
// copy-on-write over fork(2), stack growth, /proc/self/maps.
#include <sys/resource.h>
#include <sys/uio.h>

#include "tap.hpp"

namespace {

constexpr size_t kPage = 4096;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr int kShared = MAP_SHARED | MAP_ANONYMOUS;

char *anonymous(size_t pages, int protection = kReadWrite, int flags = kPrivate) {
  return MAP(mmap(nullptr, pages * kPage, protection, flags, -1, 0));
}

bool all_are(const char *memory, size_t bytes, char value) {
  for (size_t i = 0; i < bytes; i++)
    if (memory[i] != value) return false;
  return true;
}

// The signal that one access to the address brings; 0 for none.
int signal_of_read(const volatile char *address) {
  return death_of([=] { (void)*address; });
}
int signal_of_write(volatile char *address) {
  return death_of([=] { *address = 1; });
}

// The line of /proc/self/maps that holds the address: its permissions, or "".
const char *permissions_of(const void *address) {
  static char permissions[8];
  permissions[0] = '\0';
  FILE *maps = fopen("/proc/self/maps", "re");
  if (!CHECK(maps != nullptr)) return permissions;
  char line[512];
  while (fgets(line, sizeof line, maps)) {
    unsigned long from, to;
    char text[8];
    if (sscanf(line, "%lx-%lx %7s", &from, &to, text) != 3) continue;
    const auto wanted = reinterpret_cast<unsigned long>(address);
    if (wanted >= from && wanted < to) strcpy(permissions, text);
  }
  fclose(maps);
  return permissions;
}

TEST(anonymous_memory_is_zero_and_writable) {
  char *memory = anonymous(64);
  CHECK_EQ(reinterpret_cast<uintptr_t>(memory) % kPage, 0);
  CHECK(all_are(memory, 64 * kPage, 0));
  memset(memory, 0x5a, 64 * kPage);
  CHECK(all_are(memory, 64 * kPage, 0x5a));
  SYS(munmap(memory, 64 * kPage));
  CHECK_EQ(signal_of_read(memory), SIGSEGV);
}

TEST(mmap_errors) {
  CHECK(mmap(nullptr, 0, PROT_READ, kPrivate, -1, 0) == MAP_FAILED && errno == EINVAL);
  CHECK(mmap(nullptr, kPage, PROT_READ, MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
  CHECK(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, -1, 0) == MAP_FAILED && errno == EBADF);
  CHECK(mmap(nullptr, SIZE_MAX, PROT_READ, kPrivate, -1, 0) == MAP_FAILED && errno == ENOMEM);
  CHECK(mmap(nullptr, 1ul << 50, PROT_READ, kPrivate, -1, 0) == MAP_FAILED && errno == ENOMEM);
  CHECK(mmap(reinterpret_cast<void *>(1), kPage, PROT_READ, kPrivate | MAP_FIXED, -1, 0) ==
            MAP_FAILED &&
        errno == EINVAL);
  CHECK(mmap(reinterpret_cast<void *>(0xffff800000000000), kPage, PROT_READ, kPrivate | MAP_FIXED,
             -1, 0) == MAP_FAILED &&
        errno == ENOMEM);
  const int fd = make_file("file", "x");
  CHECK(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, fd, 1) == MAP_FAILED && errno == EINVAL);
  const int reader = SYS(open("file", O_RDONLY));
  CHECK(mmap(nullptr, kPage, kReadWrite, MAP_SHARED, reader, 0) == MAP_FAILED && errno == EACCES);
  const int writer = SYS(open("file", O_WRONLY));
  CHECK(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, writer, 0) == MAP_FAILED && errno == EACCES);
  int ends[2];
  SYS(pipe(ends));
  CHECK(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, ends[0], 0) == MAP_FAILED && errno == ENODEV);
}

TEST(fixed_replaces_and_noreplace_refuses) {
  char *memory = anonymous(3);
  memset(memory, 'a', 3 * kPage);
  char *middle = MAP(mmap(memory + kPage, kPage, kReadWrite, kPrivate | MAP_FIXED, -1, 0));
  CHECK(middle == memory + kPage);
  CHECK(all_are(memory, kPage, 'a'));
  CHECK(all_are(middle, kPage, 0));
  CHECK(all_are(memory + 2 * kPage, kPage, 'a'));
  void *refused = mmap(memory, kPage, kReadWrite, kPrivate | MAP_FIXED_NOREPLACE, -1, 0);
  CHECK(refused == MAP_FAILED && errno == EEXIST);
}

TEST(hint_is_taken_when_free) {
  char *hint = reinterpret_cast<char *>(0x200000000000);
  char *memory = MAP(mmap(hint, kPage, kReadWrite, kPrivate, -1, 0));
  CHECK(memory == hint);
  char *other = MAP(mmap(hint, kPage, kReadWrite, kPrivate, -1, 0));
  CHECK(other != hint);
}

TEST(partial_unmap_leaves_the_rest) {
  char *memory = anonymous(5);
  memset(memory, 'x', 5 * kPage);
  SYS(munmap(memory + kPage, kPage));
  SYS(munmap(memory + 3 * kPage, 1));  // rounded up to the page
  CHECK(all_are(memory, kPage, 'x'));
  CHECK(all_are(memory + 2 * kPage, kPage, 'x'));
  CHECK(all_are(memory + 4 * kPage, kPage, 'x'));
  CHECK_EQ(signal_of_read(memory + kPage), SIGSEGV);
  CHECK_EQ(signal_of_read(memory + 3 * kPage), SIGSEGV);
  SYS(munmap(memory, 5 * kPage));  // holes are no error
  CHECK_ERRNO(munmap(memory + 1, kPage), EINVAL);
  CHECK_ERRNO(munmap(memory, 0), EINVAL);
}

TEST(mprotect_changes_and_splits) {
  char *memory = anonymous(4);
  memset(memory, 'x', 4 * kPage);
  SYS(mprotect(memory + kPage, 2 * kPage, PROT_READ));
  CHECK_EQ(signal_of_write(memory + kPage), SIGSEGV);
  CHECK_EQ(signal_of_write(memory + 2 * kPage), SIGSEGV);
  CHECK_EQ(signal_of_write(memory), 0);
  CHECK_EQ(signal_of_write(memory + 3 * kPage), 0);
  CHECK_STR(permissions_of(memory + kPage), "r--p");
  CHECK_STR(permissions_of(memory + 3 * kPage), "rw-p");
  SYS(mprotect(memory + kPage, kPage, PROT_NONE));
  CHECK_EQ(signal_of_read(memory + kPage), SIGSEGV);
  SYS(mprotect(memory, 4 * kPage, kReadWrite));
  CHECK(all_are(memory, 4 * kPage, 'x'));
  CHECK_ERRNO(mprotect(memory + 1, kPage, PROT_READ), EINVAL);
  SYS(munmap(memory + kPage, kPage));
  CHECK_ERRNO(mprotect(memory, 4 * kPage, PROT_READ), ENOMEM);
}

TEST(code_can_be_written_and_run) {
  char *memory = anonymous(1);
  const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};  // mov $42, %eax; ret
  memcpy(memory, code, sizeof code);
  SYS(mprotect(memory, kPage, PROT_READ | PROT_EXEC));
  const auto function = reinterpret_cast<int (*)()>(memory);
  CHECK_EQ(function(), 42);
  SYS(mprotect(memory, kPage, kReadWrite));
  memory[1] = 43;
  SYS(mprotect(memory, kPage, PROT_READ | PROT_EXEC));
  CHECK_EQ(function(), 43);
}

TEST(mremap_grows_shrinks_and_moves) {
  char *memory = anonymous(2);
  memset(memory, 'x', 2 * kPage);
  char *grown = MAP(mremap(memory, 2 * kPage, 40 * kPage, MREMAP_MAYMOVE));
  CHECK(all_are(grown, 2 * kPage, 'x'));
  CHECK(all_are(grown + 2 * kPage, 38 * kPage, 0));
  char *shrunk = MAP(mremap(grown, 40 * kPage, kPage, 0));
  CHECK(shrunk == grown);
  CHECK_EQ(signal_of_read(grown + kPage), SIGSEGV);
  char *target = anonymous(4);
  char *moved = MAP(mremap(shrunk, kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target));
  CHECK(moved == target);
  CHECK(all_are(moved, kPage, 'x'));
  CHECK_EQ(signal_of_read(shrunk), SIGSEGV);
  char *blocked = anonymous(2);
  CHECK(mremap(blocked, kPage, 3 * kPage, 0) == MAP_FAILED && errno == ENOMEM);
  SYS(munmap(blocked, 2 * kPage));
  CHECK(mremap(blocked, kPage, 2 * kPage, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
  CHECK(mremap(target, kPage, 0, 0) == MAP_FAILED && errno == EINVAL);
}

TEST(brk_grows_and_shrinks) {
  IN_CHILD([] {
    char *start = static_cast<char *>(sbrk(0));
    REQUIRE(sbrk(static_cast<intptr_t>(10 * kPage)) != reinterpret_cast<void *>(-1));
    CHECK(sbrk(0) == start + 10 * kPage);
    CHECK(all_are(start, 10 * kPage, 0));
    memset(start, 'b', 10 * kPage);
    REQUIRE(brk(start) == 0);
    REQUIRE(sbrk(static_cast<intptr_t>(10 * kPage)) != reinterpret_cast<void *>(-1));
    char *aligned =
        reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(start) + kPage - 1) & -kPage);
    CHECK(all_are(aligned, 9 * kPage, 0));  // what was given back comes back clean
    const long now = syscall(SYS_brk, 0);
    CHECK_EQ(syscall(SYS_brk, 0x1000), now);  // an impossible wish changes nothing
    tap::finish();
  });
}

TEST(copy_on_write_after_fork) {
  char *memory = anonymous(32);
  memset(memory, 'p', 32 * kPage);
  int to_child[2], to_parent[2];
  SYS(pipe(to_child));
  SYS(pipe(to_parent));
  char byte = 0;
  const pid_t child = start_child([&] {
    CHECK(all_are(memory, 32 * kPage, 'p'));
    memset(memory, 'c', 16 * kPage);
    CHECK_EQ(write(to_parent[1], "x", 1), 1);
    CHECK_EQ(read(to_child[0], &byte, 1), 1);
    CHECK(all_are(memory, 16 * kPage, 'c'));
    CHECK(
        all_are(memory + 16 * kPage, 16 * kPage, 'p'));  // what the parent wrote since is not here
  });
  CHECK_EQ(read(to_parent[0], &byte, 1), 1);
  CHECK(all_are(memory, 32 * kPage, 'p'));
  memset(memory + 16 * kPage, 'q', 16 * kPage);
  CHECK_EQ(write(to_child[1], "x", 1), 1);
  CHECK_EQ(wait_for(child), 0);
  CHECK(all_are(memory, 16 * kPage, 'p'));
}

TEST(copy_on_write_over_generations) {
  char *memory = anonymous(4);
  memset(memory, '0', 4 * kPage);
  IN_CHILD([&] {
    memory[0] = '1';
    IN_CHILD([&] {
      CHECK_EQ(memory[0], '1');
      memory[kPage] = '2';
      IN_CHILD([&] {
        CHECK_EQ(memory[0], '1');
        CHECK_EQ(memory[kPage], '2');
        CHECK_EQ(memory[2 * kPage], '0');
        memory[0] = '3';
      });
      CHECK_EQ(memory[0], '1');
    });
    CHECK_EQ(memory[kPage], '0');
  });
  CHECK(all_are(memory, 4 * kPage, '0'));
}

TEST(kernel_writes_respect_copy_on_write) {
  char *memory = anonymous(1);
  memset(memory, 'p', kPage);
  const int fd = make_file("file", "fromfile");
  IN_CHILD([&] {
    CHECK_EQ(pread(fd, memory, 8, 0), 8);
    CHECK(memcmp(memory, "fromfilepp", 10) == 0);
  });
  CHECK(all_are(memory, kPage, 'p'));
  char *fresh = anonymous(4);
  CHECK_EQ(pread(fd, fresh + kPage - 4, 8, 0), 8);  // into pages never touched, over a boundary
  CHECK(memcmp(fresh + kPage - 4, "fromfile", 8) == 0);
}

TEST(kernel_writes_to_read_only_memory_are_efault) {
  char *memory = anonymous(2, PROT_READ);
  const int fd = make_file("file", "content");
  CHECK_ERRNO(pread(fd, memory, 4, 0), EFAULT);
  SYS(mprotect(memory, 2 * kPage, kReadWrite));
  SYS(mprotect(memory + kPage, kPage, PROT_NONE));
  const ssize_t got = pread(fd, memory + kPage - 3, 7, 0);
  CHECK(got == 3 || (got == -1 && errno == EFAULT));
  CHECK_ERRNO(write(fd, memory + kPage, 1), EFAULT);
}

TEST(shared_anonymous_memory_after_fork) {
  char *memory = anonymous(16, kReadWrite, kShared);
  memory[5 * kPage] = 'p';
  IN_CHILD([&] {
    CHECK_EQ(memory[5 * kPage], 'p');
    memory[5 * kPage] = 'c';
    memory[9 * kPage] = 'n';  // touched by the child first
  });
  CHECK_EQ(memory[5 * kPage], 'c');
  CHECK_EQ(memory[9 * kPage], 'n');
}

TEST(private_file_mapping) {
  const int fd = make_file("file", "original");
  char *memory = MAP(mmap(nullptr, kPage, kReadWrite, MAP_PRIVATE, fd, 0));
  CHECK(memcmp(memory, "original", 8) == 0);
  CHECK(all_are(memory + 8, kPage - 8, 0));
  memcpy(memory, "changed!", 8);
  char text[16] = {};
  CHECK_EQ(pread(fd, text, 8, 0), 8);
  CHECK_STR(text, "original");
  close(fd);
  CHECK(memcmp(memory, "changed!", 8) == 0);
}

TEST(shared_file_mapping_is_the_file) {
  const int fd = make_file("file");
  SYS(ftruncate(fd, 3 * kPage));
  char *memory = MAP(mmap(nullptr, 3 * kPage, kReadWrite, MAP_SHARED, fd, 0));
  char *again = MAP(mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd, kPage));
  memcpy(memory + kPage, "by memory", 9);
  CHECK(memcmp(again, "by memory", 9) == 0);
  char text[16] = {};
  CHECK_EQ(pread(fd, text, 9, kPage), 9);
  CHECK_STR(text, "by memory");
  CHECK_EQ(pwrite(fd, "by write", 8, 2 * kPage), 8);
  CHECK(memcmp(memory + 2 * kPage, "by write", 8) == 0);
  IN_CHILD([&] { memory[0] = 'c'; });
  CHECK_EQ(memory[0], 'c');
  SYS(msync(memory, 3 * kPage, MS_SYNC));
  SYS(munmap(memory, 3 * kPage));
  CHECK_EQ(pread(fd, text, 1, 0), 1);
  CHECK_EQ(text[0], 'c');
  CHECK_ERRNO(msync(memory, kPage, MS_SYNC), ENOMEM);
  CHECK_ERRNO(msync(again + 1, kPage, MS_SYNC), EINVAL);
}

TEST(mapping_grows_with_its_file) {
  const int fd = make_file("file", "x");
  char *memory = MAP(mmap(nullptr, 2 * kPage, kReadWrite, MAP_SHARED, fd, 0));
  CHECK_EQ(signal_of_read(memory + kPage), SIGBUS);
  SYS(ftruncate(fd, 2 * kPage));
  CHECK_EQ(memory[kPage], 0);
  memory[2 * kPage - 1] = 'e';
  SYS(ftruncate(fd, 10));
  SYS(ftruncate(fd, 2 * kPage));
  CHECK_EQ(memory[2 * kPage - 1], 0);  // what was cut off is gone
  CHECK_EQ(memory[0], 'x');
}

TEST(write_from_a_mapping_of_the_same_file) {
  const int fd = make_file("file", "0123456789");
  char *memory = MAP(mmap(nullptr, kPage, kReadWrite, MAP_SHARED, fd, 0));
  CHECK_EQ(pwrite(fd, memory, 10, 10), 10);
  CHECK(memcmp(memory, "01234567890123456789", 20) == 0);
  CHECK_EQ(pread(fd, memory + 5, 5, 0), 5);
  CHECK(memcmp(memory, "0123401234", 10) == 0);
}

TEST(stack_grows_down) {
  IN_CHILD([] {
    volatile char *here = static_cast<volatile char *>(__builtin_frame_address(0));
    const auto below = [&](size_t bytes) { here[-static_cast<long>(bytes)] = 1; };
    for (size_t depth = kPage; depth <= 4 << 20; depth += kPage) below(depth);
    tap::finish();
  });
}

TEST(stack_has_a_limit) {
  CHECK_EQ(death_of([] {
             const rlimit limit{256 << 10, 256 << 10};
             SYS(setrlimit(RLIMIT_STACK, &limit));
             volatile char *here = static_cast<volatile char *>(__builtin_frame_address(0));
             for (long depth = 0; depth < 8 << 20; depth += kPage) here[-depth] = 1;
           }),
           SIGSEGV);
}

TEST(stack_of_a_child_is_its_own) {
  volatile char room[64 * 1024];
  for (size_t i = 0; i < sizeof room; i++) room[i] = 'p';
  IN_CHILD([&] {
    for (size_t i = 0; i < sizeof room; i++) room[i] = 'c';
    tap::finish();
  });
  for (size_t i = 0; i < sizeof room; i++) REQUIRE(room[i] == 'p');
}

TEST(dontneed_gives_zeros) {
  char *memory = anonymous(4);
  memset(memory, 'x', 4 * kPage);
  SYS(madvise(memory + kPage, 2 * kPage, MADV_DONTNEED));
  CHECK(all_are(memory, kPage, 'x'));
  CHECK(all_are(memory + kPage, 2 * kPage, 0));
  CHECK(all_are(memory + 3 * kPage, kPage, 'x'));
  const int fd = make_file("file", "content");
  char *mapped = MAP(mmap(nullptr, kPage, kReadWrite, MAP_PRIVATE, fd, 0));
  mapped[0] = 'X';
  SYS(madvise(mapped, kPage, MADV_DONTNEED));
  CHECK_EQ(mapped[0], 'c');
  CHECK_ERRNO(madvise(memory + 1, kPage, MADV_DONTNEED), EINVAL);
  CHECK_ERRNO(madvise(memory, kPage, 12345), EINVAL);
}

TEST(mincore_tells_what_is_there) {
  constexpr size_t kPages = 4096;
  char *memory = anonymous(kPages);
  memory[0] = memory[kPages / 2 * kPage] = 1;
  static unsigned char present[kPages];
  OPTIONAL(mincore(memory, kPages * kPage, present));
  CHECK_EQ(present[0] & 1, 1);
  CHECK_EQ(present[kPages / 2] & 1, 1);
  // Neighbours may have come along, but not everything.
  CHECK_EQ(present[kPages - 1] & 1, 0);
  SYS(munmap(memory, kPage));
  CHECK_ERRNO(mincore(memory, kPage, present), ENOMEM);
  CHECK_ERRNO(mincore(memory + 1, kPage, present), EINVAL);
}

TEST(locking_memory) {
  char *memory = anonymous(4);
  OPTIONAL(mlock(memory, 4 * kPage));
  memory[0] = 1;
  SYS(munlock(memory, 4 * kPage));
  SYS(munmap(memory, 4 * kPage));
  CHECK_ERRNO(mlock(memory, kPage), ENOMEM);
}

TEST(populating_what_cannot_be_there_ends) {
  // Asked for page by page, any of these would take hours.
  constexpr size_t kHuge = size_t{1} << 44;
  const int fd = make_file("short", "x");
  char *file = MAP(mmap(nullptr, kHuge, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0));
  CHECK_EQ(file[0], 'x');
  SYS(munmap(file, kHuge));
  char *none = MAP(mmap(nullptr, kHuge, PROT_NONE, kPrivate | MAP_NORESERVE | MAP_POPULATE, -1, 0));
  SYS(munmap(none, kHuge));
  const uint64_t page = reinterpret_cast<uint64_t>(anonymous(1));
  CHECK_EQ(mlock(reinterpret_cast<void *>(page), kHuge), -1);
}

TEST(big_reservations_cost_nothing) {
  constexpr size_t kHuge = 1ul << 36;  // 64 GiB
  char *memory = MAP(mmap(nullptr, kHuge, PROT_NONE, kPrivate | MAP_NORESERVE, -1, 0));
  SYS(mprotect(memory + kHuge / 2, kPage, kReadWrite));
  memory[kHuge / 2] = 'x';
  CHECK_EQ(memory[kHuge / 2], 'x');
  char *sparse = MAP(mmap(nullptr, 1ul << 32, kReadWrite, kPrivate | MAP_NORESERVE, -1, 0));
  for (size_t at = 0; at < 1ul << 32; at += 1ul << 27) sparse[at] = 1;
  SYS(munmap(sparse, 1ul << 32));
  SYS(munmap(memory, kHuge));
}

TEST(many_small_mappings) {
  char *memory = anonymous(1000);
  for (size_t i = 0; i < 1000; i += 2) SYS(mprotect(memory + i * kPage, kPage, PROT_READ));
  for (size_t i = 1; i < 1000; i += 2) memory[i * kPage] = static_cast<char>(i);
  IN_CHILD([&] {
    for (size_t i = 1; i < 1000; i += 2) CHECK_EQ(memory[i * kPage], static_cast<char>(i));
  });
  CHECK_EQ(signal_of_write(memory + 500 * kPage), SIGSEGV);
  SYS(munmap(memory, 1000 * kPage));
}

TEST(maps_lists_the_mappings) {
  const int fd = make_file("listed-file", "x");
  char *memory = MAP(mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0));
  CHECK_STR(permissions_of(memory), "r-xs");
  CHECK_STR(permissions_of(reinterpret_cast<void *>(&all_are)), "r-xp");
  int local;
  CHECK_STR(permissions_of(&local), "rw-p");
  static char text[65536];
  read_text("/proc/self/maps", text);
  CHECK(strstr(text, "/listed-file") != nullptr);
  CHECK(strstr(text, "[stack]") != nullptr);
}

TEST(address_space_limit) {
  IN_CHILD([] {
    const rlimit limit{256 << 20, 256 << 20};
    SYS(setrlimit(RLIMIT_AS, &limit));
    CHECK(mmap(nullptr, 512 << 20, kReadWrite, kPrivate, -1, 0) == MAP_FAILED && errno == ENOMEM);
    char *small = anonymous(16);
    small[0] = 1;
  });
}

TEST(process_vm_calls_reach_a_child) {
  char *memory = anonymous(1);
  strcpy(memory, "parent");
  const pid_t child = start_child([&] {
    strcpy(memory, "child");
    pause();
  });
  sleep_ms(50);
  char buffer[16] = {};
  const iovec local = {buffer, 6}, remote = {memory, 6};
  const ssize_t got = process_vm_readv(child, &local, 1, &remote, 1, 0);
  const int error = errno;
  kill(child, SIGKILL);
  wait_for(child);
  if (got == -1 && (error == ENOSYS || error == EPERM)) SKIP("optional call: process_vm_readv");
  CHECK_EQ(got, 6);
  CHECK_STR(buffer, "child");
}

TEST(memfd_is_a_file_without_a_name) {
  const int fd = static_cast<int>(OPTIONAL(memfd_create("example", MFD_CLOEXEC)));
  SYS(ftruncate(fd, 2 * kPage));
  char *memory = MAP(mmap(nullptr, 2 * kPage, kReadWrite, MAP_SHARED, fd, 0));
  memory[kPage] = 'm';
  char byte = 0;
  CHECK_EQ(pread(fd, &byte, 1, kPage), 1);
  CHECK_EQ(byte, 'm');
}

TEST_LIMIT(touching_64_megabytes, 60) {
  constexpr size_t kPages = 16384;
  char *memory = anonymous(kPages);
  for (size_t i = 0; i < kPages; i++) *reinterpret_cast<size_t *>(memory + i * kPage) = i ^ 0x5555;
  for (size_t i = 0; i < kPages; i++)
    REQUIRE(*reinterpret_cast<size_t *>(memory + i * kPage) == (i ^ 0x5555));
  SYS(munmap(memory, kPages * kPage));
}

}  // namespace

TAP_MAIN()
