// Regular files and descriptors: open(2), read(2), write(2), lseek(2), truncate(2), fcntl(2),
// dup(2), flock(2), fallocate(2), sendfile(2), copy_file_range(2), stat(2), the memory devices.
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include "tap.hpp"

namespace {

off_t size_of(const char *path) {
  struct stat status {};
  SYS(stat(path, &status));
  return status.st_size;
}

char *bad_pointer() { return reinterpret_cast<char *>(16); }

TEST(open_missing_file_is_enoent) {
  CHECK_ERRNO(open("missing", O_RDONLY), ENOENT);
  CHECK_ERRNO(open("missing/below", O_RDONLY), ENOENT);
  CHECK_ERRNO(open("", O_RDONLY), ENOENT);
}

TEST(open_creates_with_mode_and_umask) {
  umask(027);
  close(SYS(open("file", O_CREAT | O_WRONLY, 0666)));
  struct stat status {};
  SYS(stat("file", &status));
  CHECK_EQ(status.st_mode, S_IFREG | 0640);
  CHECK_EQ(status.st_size, 0);
  CHECK_EQ(status.st_nlink, 1);
  CHECK_EQ(status.st_uid, geteuid());
}

TEST(open_exclusive_fails_on_existing) {
  put_file("file", "x");
  CHECK_ERRNO(open("file", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
  SYS(symlink("nowhere", "dangling"));
  CHECK_ERRNO(open("dangling", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
}

TEST(open_creates_through_dangling_symlink) {
  SYS(symlink("target", "link"));
  close(SYS(open("link", O_CREAT | O_RDWR, 0600)));
  CHECK_EQ(access("target", F_OK), 0);
}

TEST(open_truncates) {
  put_file("file", "content");
  close(SYS(open("file", O_WRONLY | O_TRUNC)));
  CHECK_EQ(size_of("file"), 0);
}

TEST(open_append_writes_at_the_end) {
  put_file("file", "abc");
  const int fd = SYS(open("file", O_RDWR | O_APPEND));
  SYS(lseek(fd, 0, SEEK_SET));
  CHECK_EQ(write(fd, "def", 3), 3);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6);
  char text[16];
  read_text("file", text);
  CHECK_STR(text, "abcdef");
}

TEST(append_from_two_descriptors_loses_nothing) {
  const int one = SYS(open("file", O_CREAT | O_WRONLY | O_APPEND, 0600));
  const int two = SYS(open("file", O_WRONLY | O_APPEND));
  for (int i = 0; i < 50; i++) {
    CHECK_EQ(write(one, "1", 1), 1);
    CHECK_EQ(write(two, "22", 2), 2);
  }
  CHECK_EQ(size_of("file"), 150);
}

TEST(open_nofollow_and_directory) {
  put_file("file");
  SYS(mkdir("dir", 0755));
  SYS(symlink("file", "link"));
  SYS(symlink("dir", "dirlink"));
  CHECK_ERRNO(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
  CHECK_ERRNO(open("file", O_RDONLY | O_DIRECTORY), ENOTDIR);
  CHECK_ERRNO(open("dirlink", O_RDONLY | O_DIRECTORY | O_NOFOLLOW), ENOTDIR);
  close(SYS(open("dir", O_RDONLY | O_DIRECTORY)));
  close(SYS(open("dirlink/../file", O_RDONLY | O_NOFOLLOW)));
}

TEST(open_directory_for_writing_is_eisdir) {
  SYS(mkdir("dir", 0755));
  CHECK_ERRNO(open("dir", O_WRONLY), EISDIR);
  CHECK_ERRNO(open("dir", O_RDWR), EISDIR);
  CHECK_ERRNO(open("dir", O_RDONLY | O_CREAT, 0600), EISDIR);
  const int fd = SYS(open("dir", O_RDONLY));
  char byte;
  CHECK_ERRNO(read(fd, &byte, 1), EISDIR);
}

TEST(open_through_file_is_enotdir) {
  put_file("file");
  CHECK_ERRNO(open("file/below", O_RDONLY), ENOTDIR);
  CHECK_ERRNO(open("file/", O_RDONLY), ENOTDIR);
  CHECK_ERRNO(open("new/", O_CREAT | O_WRONLY, 0600), EISDIR);
}

TEST(open_gives_the_lowest_descriptor) {
  const int first = SYS(open("/dev/null", O_RDONLY));
  const int second = SYS(open("/dev/null", O_RDONLY));
  SYS(close(first));
  CHECK_EQ(open("/dev/null", O_RDONLY), first);
  CHECK_EQ(second, first + 1);
}

TEST(tmpfile_has_no_name_until_linked) {
  const int fd = open(".", O_TMPFILE | O_RDWR, 0600);
  if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) SKIP("O_TMPFILE is not supported here");
  SYS(fd);
  CHECK_EQ(write(fd, "x", 1), 1);
  struct stat status {};
  SYS(fstat(fd, &status));
  CHECK_EQ(status.st_nlink, 0);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  SYS(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
  CHECK_EQ(size_of("named"), 1);
}

TEST(access_mode_is_enforced) {
  put_file("file", "abc");
  const int reader = SYS(open("file", O_RDONLY));
  const int writer = SYS(open("file", O_WRONLY));
  char byte;
  CHECK_ERRNO(write(reader, "x", 1), EBADF);
  CHECK_ERRNO(read(writer, &byte, 1), EBADF);
  CHECK_ERRNO(ftruncate(reader, 0), EINVAL);
  CHECK_ERRNO(read(-1, &byte, 1), EBADF);
  CHECK_ERRNO(read(999, &byte, 1), EBADF);
  CHECK_ERRNO(close(999), EBADF);
}

TEST(read_stops_at_end_of_file) {
  const int fd = make_file("file", "hello");
  char buffer[16] = {};
  SYS(lseek(fd, 0, SEEK_SET));
  CHECK_EQ(read(fd, buffer, 16), 5);
  CHECK_STR(buffer, "hello");
  CHECK_EQ(read(fd, buffer, 16), 0);
  SYS(lseek(fd, 100, SEEK_SET));
  CHECK_EQ(read(fd, buffer, 16), 0);
  CHECK_EQ(read(fd, buffer, 0), 0);
}

TEST(pread_and_pwrite_keep_the_position) {
  const int fd = make_file("file", "0123456789");
  SYS(lseek(fd, 3, SEEK_SET));
  char buffer[4] = {};
  CHECK_EQ(pread(fd, buffer, 3, 5), 3);
  CHECK_STR(buffer, "567");
  CHECK_EQ(pwrite(fd, "XY", 2, 0), 2);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3);
  CHECK_ERRNO(pread(fd, buffer, 1, -1), EINVAL);
  CHECK_ERRNO(pwrite(fd, buffer, 1, -1), EINVAL);
  int ends[2];
  SYS(pipe(ends));
  CHECK_ERRNO(pread(ends[0], buffer, 1, 0), ESPIPE);
  CHECK_ERRNO(lseek(ends[0], 0, SEEK_CUR), ESPIPE);
}

TEST(vectors_scatter_and_gather) {
  const int fd = make_file("file");
  char one[] = "one", empty[] = "", two[] = "second";
  const iovec out[] = {{one, 3}, {empty, 0}, {two, 6}};
  CHECK_EQ(writev(fd, out, 3), 9);
  char first[5] = {}, rest[16] = {};
  const iovec in[] = {{first, 4}, {rest, sizeof rest - 1}};
  SYS(lseek(fd, 0, SEEK_SET));
  CHECK_EQ(readv(fd, in, 2), 9);
  CHECK_STR(first, "ones");
  CHECK_STR(rest, "econd");
  CHECK_EQ(preadv(fd, in, 2, 1), 8);
  CHECK_EQ(pwritev(fd, out, 1, 20), 3);
  CHECK_EQ(size_of("file"), 23);
  CHECK_ERRNO(writev(fd, out, -1), EINVAL);
  CHECK_ERRNO(writev(fd, out, 1025), EINVAL);
  CHECK_EQ(writev(fd, out, 0), 0);
  const iovec huge[] = {{one, static_cast<size_t>(-1)}};
  CHECK_ERRNO(writev(fd, huge, 1), EINVAL);
}

TEST(seek_positions) {
  const int fd = make_file("file", "0123456789");
  CHECK_EQ(lseek(fd, 0, SEEK_END), 10);
  CHECK_EQ(lseek(fd, -4, SEEK_END), 6);
  CHECK_EQ(lseek(fd, 2, SEEK_CUR), 8);
  CHECK_EQ(lseek(fd, 1 << 20, SEEK_SET), 1 << 20);
  CHECK_ERRNO(lseek(fd, -1, SEEK_SET), EINVAL);
  CHECK_ERRNO(lseek(fd, -11, SEEK_END), EINVAL);
  CHECK_ERRNO(lseek(fd, 0, 99), EINVAL);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 1 << 20);
}

TEST(seek_data_and_hole) {
  const int fd = make_file("file", "data");
  SYS(ftruncate(fd, 1 << 20));
  CHECK_EQ(lseek(fd, 0, SEEK_DATA), 0);
  const off_t hole = lseek(fd, 0, SEEK_HOLE);
  CHECK(hole > 0 && hole <= 1 << 20);  // a file system without holes says: at the end
  CHECK_ERRNO(lseek(fd, 1 << 20, SEEK_DATA), ENXIO);
  CHECK_ERRNO(lseek(fd, 1 << 20, SEEK_HOLE), ENXIO);
}

TEST(holes_read_as_zeros) {
  const int fd = make_file("file");
  CHECK_EQ(pwrite(fd, "end", 3, 100'000), 3);
  CHECK_EQ(size_of("file"), 100'003);
  static char buffer[8192];
  memset(buffer, 'x', sizeof buffer);
  CHECK_EQ(pread(fd, buffer, sizeof buffer, 50'000), sizeof buffer);
  for (char byte : buffer) REQUIRE(byte == 0);
  CHECK_EQ(pread(fd, buffer, 8, 99'998), 5);
  CHECK(memcmp(buffer, "\0\0end", 5) == 0);
}

TEST(truncate_cuts_and_extends_with_zeros) {
  const int fd = make_file("file", "0123456789");
  SYS(ftruncate(fd, 4));
  SYS(ftruncate(fd, 8));
  char buffer[16] = {};
  CHECK_EQ(pread(fd, buffer, 16, 0), 8);
  CHECK(memcmp(buffer, "0123\0\0\0\0", 8) == 0);
  SYS(truncate("file", 2));
  CHECK_EQ(size_of("file"), 2);
  CHECK_ERRNO(truncate("file", -1), EINVAL);
  CHECK_ERRNO(truncate("missing", 0), ENOENT);
  CHECK_ERRNO(truncate(".", 0), EISDIR);
}

TEST(big_file_keeps_its_content) {
  const int fd = make_file("file");
  constexpr int kWords = 65536;
  static uint32_t words[kWords];
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < kWords; i++)
      words[i] = static_cast<uint32_t>(round * kWords + i) * 2654435761u;
    REQUIRE(write(fd, words, sizeof words) == sizeof words);
  }
  CHECK_EQ(size_of("file"), 4 * sizeof words);
  for (int round = 3; round >= 0; round--) {
    REQUIRE(pread(fd, words, sizeof words, round * static_cast<off_t>(sizeof words)) ==
            sizeof words);
    for (int i = 0; i < kWords; i++)
      REQUIRE(words[i] == static_cast<uint32_t>(round * kWords + i) * 2654435761u);
  }
}

TEST(unlinked_open_file_lives_on) {
  const int fd = make_file("file", "still here");
  SYS(unlink("file"));
  CHECK_ERRNO(access("file", F_OK), ENOENT);
  struct stat status {};
  SYS(fstat(fd, &status));
  CHECK_EQ(status.st_nlink, 0);
  char buffer[16] = {};
  CHECK_EQ(pread(fd, buffer, 15, 0), 10);
  CHECK_STR(buffer, "still here");
  CHECK_EQ(write(fd, "!", 1), 1);
}

TEST(bad_pointers_are_efault) {
  const int fd = make_file("file", "content");
  CHECK_ERRNO(open(bad_pointer(), O_RDONLY), EFAULT);
  CHECK_ERRNO(pread(fd, bad_pointer(), 4, 0), EFAULT);
  CHECK_ERRNO(write(fd, bad_pointer(), 4), EFAULT);
  CHECK_ERRNO(syscall(SYS_stat, "file", bad_pointer()), EFAULT);
  CHECK_ERRNO(syscall(SYS_pipe2, bad_pointer(), 0), EFAULT);
  CHECK_ERRNO(syscall(SYS_getcwd, bad_pointer(), 4096), EFAULT);
  CHECK_ERRNO(syscall(SYS_readv, fd, bad_pointer(), 1), EFAULT);
  CHECK_ERRNO(write(fd, reinterpret_cast<void *>(0xffff800000000000ul), 4), EFAULT);
  CHECK_EQ(size_of("file"), 7);
}

TEST(partly_readable_buffer_writes_what_is_there) {
  char *pages =
      MAP(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  memset(pages, 'p', 4096);
  SYS(munmap(pages + 4096, 4096));
  const int fd = make_file("file");
  const ssize_t written = write(fd, pages + 4096 - 100, 200);
  CHECK(written == 100 || (written == -1 && errno == EFAULT));
  CHECK_EQ(size_of("file"), written < 0 ? 0 : 100);
}

TEST(dup_shares_the_position) {
  const int fd = make_file("file", "0123456789");
  const int copy = SYS(dup(fd));
  SYS(lseek(fd, 5, SEEK_SET));
  CHECK_EQ(lseek(copy, 0, SEEK_CUR), 5);
  const int other = SYS(open("file", O_RDONLY));
  CHECK_EQ(lseek(other, 0, SEEK_CUR), 0);
  CHECK_ERRNO(dup(999), EBADF);
}

TEST(dup2_replaces_and_dup3_sets_cloexec) {
  const int fd = make_file("file", "x");
  const int null = SYS(open("/dev/null", O_RDONLY));
  CHECK_EQ(dup2(fd, null), null);
  CHECK_EQ(lseek(null, 0, SEEK_CUR), 1);
  CHECK_EQ(dup2(fd, fd), fd);
  CHECK_ERRNO(dup2(998, 997), EBADF);
  CHECK_ERRNO(dup2(998, 998), EBADF);
  CHECK_EQ(dup3(fd, 50, O_CLOEXEC), 50);
  CHECK_EQ(fcntl(50, F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(dup3(fd, fd, 0), EINVAL);
  CHECK_ERRNO(dup3(fd, 51, O_APPEND), EINVAL);
}

TEST(fcntl_duplicates_from_a_minimum) {
  const int fd = SYS(open("/dev/null", O_RDONLY));
  CHECK_EQ(fcntl(fd, F_DUPFD, 60), 60);
  CHECK_EQ(fcntl(fd, F_DUPFD, 60), 61);
  CHECK_EQ(fcntl(fd, F_DUPFD_CLOEXEC, 60), 62);
  CHECK_EQ(fcntl(62, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(61, F_GETFD), 0);
  SYS(fcntl(61, F_SETFD, FD_CLOEXEC));
  CHECK_EQ(fcntl(61, F_GETFD), FD_CLOEXEC);
  CHECK_ERRNO(fcntl(fd, F_DUPFD, -1), EINVAL);
  CHECK_ERRNO(fcntl(fd, 12345), EINVAL);
}

TEST(fcntl_reads_and_sets_status_flags) {
  const int fd = SYS(open("file", O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0600));
  constexpr int kSeen = O_ACCMODE | O_APPEND | O_NONBLOCK | O_CREAT | O_CLOEXEC;
  CHECK_EQ(fcntl(fd, F_GETFL) & kSeen, O_RDWR | O_APPEND);
  SYS(fcntl(fd, F_SETFL, O_NONBLOCK | O_WRONLY));
  CHECK_EQ(fcntl(fd, F_GETFL) & kSeen, O_RDWR | O_NONBLOCK);
  const int copy = SYS(dup(fd));
  CHECK_EQ(fcntl(copy, F_GETFL) & kSeen, O_RDWR | O_NONBLOCK);
}

TEST(record_locks_exclude_other_processes) {
  const int fd = make_file("file", "0123456789");
  struct flock range = {};
  range.l_type = F_WRLCK;
  range.l_start = 2;
  range.l_len = 3;
  SYS(fcntl(fd, F_SETLK, &range));
  const pid_t parent = getpid();
  IN_CHILD([&] {
    struct flock probe = {};
    probe.l_type = F_RDLCK;
    SYS(fcntl(fd, F_GETLK, &probe));
    CHECK_EQ(probe.l_type, F_WRLCK);
    CHECK_EQ(probe.l_start, 2);
    CHECK_EQ(probe.l_len, 3);
    CHECK_EQ(probe.l_pid, parent);
    probe = {};
    probe.l_type = F_WRLCK;
    const int result = fcntl(fd, F_SETLK, &probe);
    CHECK(result == -1 && (errno == EAGAIN || errno == EACCES));
    probe = {};
    probe.l_type = F_WRLCK;
    probe.l_start = 5;
    SYS(fcntl(fd, F_SETLK, &probe));
  });
  struct flock again = range;  // the process's own lock does not stand in its way
  SYS(fcntl(fd, F_SETLK, &again));
}

TEST(record_lock_waits_and_goes_with_close) {
  const int fd = make_file("file", "0123456789");
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  SYS(fcntl(fd, F_SETLK, &whole));
  auto *got = share<volatile int>();
  const pid_t child = start_child([&] {
    struct flock wanted = {};
    wanted.l_type = F_WRLCK;
    SYS(fcntl(fd, F_SETLKW, &wanted));
    *got = 1;
  });
  sleep_ms(50);
  CHECK_EQ(*got, 0);
  close(SYS(open("file", O_RDONLY)));  // closing any descriptor of the file drops its locks
  CHECK_EQ(wait_for(child), 0);
  CHECK_EQ(*got, 1);
}

TEST(flock_belongs_to_the_open_file) {
  const int one = make_file("file");
  const int two = SYS(open("file", O_RDWR));
  SYS(flock(one, LOCK_EX));
  CHECK_ERRNO(flock(two, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  CHECK_ERRNO(flock(two, LOCK_SH | LOCK_NB), EWOULDBLOCK);
  const int copy = SYS(dup(one));
  SYS(close(one));
  CHECK_ERRNO(flock(two, LOCK_SH | LOCK_NB), EWOULDBLOCK);
  SYS(flock(copy, LOCK_SH));
  SYS(flock(two, LOCK_SH | LOCK_NB));
  SYS(flock(copy, LOCK_UN));
  SYS(flock(two, LOCK_EX | LOCK_NB));
  CHECK_ERRNO(flock(two, 77), EINVAL);
}

TEST(fallocate_extends) {
  const int fd = make_file("file", "abc");
  if (fallocate(fd, 0, 0, 10'000) != 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
    SKIP("fallocate is not supported here");
  CHECK_EQ(size_of("file"), 10'000);
  char buffer[8] = {};
  CHECK_EQ(pread(fd, buffer, 4, 0), 4);
  CHECK_STR(buffer, "abc");
  if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20'000) == 0) CHECK_EQ(size_of("file"), 10'000);
  CHECK_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
  CHECK_ERRNO(fallocate(fd, 0, -1, 5), EINVAL);
}

TEST(sendfile_copies_and_moves_the_offset) {
  const int from = make_file("from", "0123456789");
  const int to = make_file("to");
  off_t offset = 2;
  CHECK_EQ(OPTIONAL(sendfile(to, from, &offset, 5)), 5);
  CHECK_EQ(offset, 7);
  CHECK_EQ(lseek(from, 0, SEEK_CUR), 10);
  CHECK_EQ(sendfile(to, from, nullptr, 5), 0);
  SYS(lseek(from, 7, SEEK_SET));
  CHECK_EQ(sendfile(to, from, nullptr, 50), 3);
  char text[16];
  read_text("to", text);
  CHECK_STR(text, "23456789");
}

TEST(copy_file_range_copies) {
  const int from = make_file("from", "0123456789");
  const int to = make_file("to");
  loff_t in = 3, out = 2;
  CHECK_EQ(OPTIONAL(copy_file_range(from, &in, to, &out, 4, 0)), 4);
  CHECK_EQ(in, 7);
  CHECK_EQ(out, 6);
  char buffer[8] = {};
  CHECK_EQ(pread(to, buffer, 8, 0), 6);
  CHECK(memcmp(buffer, "\0\0003456", 6) == 0);
}

TEST(stat_fields_of_a_file) {
  const int fd = make_file("file", "0123456789", 0640);
  struct stat by_fd {
  }, by_name{}, directory{};
  SYS(fstat(fd, &by_fd));
  SYS(stat("file", &by_name));
  SYS(stat(".", &directory));
  CHECK_EQ(by_fd.st_ino, by_name.st_ino);
  CHECK_EQ(by_fd.st_dev, directory.st_dev);
  CHECK(by_fd.st_ino != 0 && by_fd.st_ino != directory.st_ino);
  CHECK_EQ(by_fd.st_mode, S_IFREG | 0640);
  CHECK_EQ(by_fd.st_size, 10);
  CHECK(by_fd.st_blksize > 0);
  CHECK(by_fd.st_blocks >= 0 && by_fd.st_blocks <= 64);
  CHECK(S_ISDIR(directory.st_mode));
  CHECK(directory.st_nlink >= 1);
  CHECK(llabs(by_fd.st_mtime - time(nullptr)) < 60);
}

TEST(write_and_chmod_change_the_times) {
  const int fd = make_file("file", "x");
  const timespec old[2] = {{1000, 0}, {2000, 500}};
  SYS(futimens(fd, old));
  struct stat status {};
  SYS(fstat(fd, &status));
  CHECK_EQ(status.st_atim.tv_sec, 1000);
  CHECK_EQ(status.st_mtim.tv_sec, 2000);
  CHECK_EQ(write(fd, "y", 1), 1);
  SYS(fstat(fd, &status));
  CHECK(status.st_mtim.tv_sec > 2000);
  const time_t changed = status.st_ctim.tv_sec;
  SYS(futimens(fd, old));
  SYS(fchmod(fd, 0600));
  SYS(fstat(fd, &status));
  CHECK_EQ(status.st_mtim.tv_sec, 2000);
  CHECK(status.st_ctim.tv_sec >= changed);
}

TEST(utimensat_now_and_omit) {
  put_file("file");
  const timespec times[2] = {{5, 7}, {0, UTIME_OMIT}};
  struct stat before {
  }, status{};
  SYS(stat("file", &before));
  SYS(utimensat(AT_FDCWD, "file", times, 0));
  SYS(stat("file", &status));
  CHECK_EQ(status.st_atim.tv_sec, 5);
  CHECK_EQ(status.st_mtim.tv_sec, before.st_mtim.tv_sec);
  const timespec now[2] = {{0, UTIME_NOW}, {9, 0}};
  SYS(utimensat(AT_FDCWD, "file", now, 0));
  SYS(stat("file", &status));
  CHECK(llabs(status.st_atim.tv_sec - time(nullptr)) < 60);
  CHECK_EQ(status.st_mtim.tv_sec, 9);
  const timespec wrong[2] = {{0, 2'000'000'000}, {0, 0}};
  CHECK_ERRNO(utimensat(AT_FDCWD, "file", wrong, 0), EINVAL);
}

TEST(statx_agrees_with_stat) {
  put_file("file", "0123456789", 0640);
  struct statx extended {};
  OPTIONAL(statx(AT_FDCWD, "file", 0, STATX_BASIC_STATS, &extended));
  struct stat status {};
  SYS(stat("file", &status));
  CHECK_EQ(extended.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
  CHECK_EQ(extended.stx_size, status.st_size);
  CHECK_EQ(extended.stx_ino, status.st_ino);
  CHECK_EQ(extended.stx_mode, status.st_mode);
  CHECK_EQ(extended.stx_nlink, status.st_nlink);
  CHECK_EQ(extended.stx_mtime.tv_sec, status.st_mtim.tv_sec);
  CHECK_EQ(makedev(extended.stx_dev_major, extended.stx_dev_minor), status.st_dev);
  CHECK_ERRNO(statx(AT_FDCWD, "missing", 0, STATX_BASIC_STATS, &extended), ENOENT);
}

TEST(statfs_names_a_file_system) {
  struct statfs whole {};
  SYS(statfs(".", &whole));
  CHECK(whole.f_bsize > 0);
  CHECK(whole.f_namelen >= 255);
  const int fd = SYS(open(".", O_RDONLY));
  struct statfs again {};
  SYS(fstatfs(fd, &again));
  CHECK_EQ(again.f_type, whole.f_type);
  CHECK_ERRNO(statfs("missing", &whole), ENOENT);
  SYS(statfs("/proc", &whole));
  CHECK_EQ(whole.f_type, 0x9fa0);
}

TEST(sync_calls_succeed) {
  const int fd = make_file("file", "x");
  SYS(fsync(fd));
  SYS(fdatasync(fd));
  sync();
  int ends[2];
  SYS(pipe(ends));
  CHECK_ERRNO(fsync(ends[0]), EINVAL);
}

TEST(device_null) {
  const int fd = SYS(open("/dev/null", O_RDWR));
  char byte;
  CHECK_EQ(read(fd, &byte, 1), 0);
  CHECK_EQ(write(fd, "gone", 4), 4);
  struct stat status {};
  SYS(fstat(fd, &status));
  CHECK(S_ISCHR(status.st_mode));
  CHECK_EQ(status.st_rdev, makedev(1, 3));
  CHECK_ERRNO(ioctl(fd, TCGETS, &byte), ENOTTY);
}

TEST(device_zero_and_full) {
  const int zero = SYS(open("/dev/zero", O_RDWR));
  char buffer[5000];
  memset(buffer, 1, sizeof buffer);
  CHECK_EQ(read(zero, buffer, sizeof buffer), sizeof buffer);
  for (char byte : buffer) REQUIRE(byte == 0);
  const int full = SYS(open("/dev/full", O_RDWR));
  CHECK_ERRNO(write(full, "x", 1), ENOSPC);
  CHECK_EQ(read(full, buffer, 10), 10);
}

TEST(device_random) {
  for (const char *name : {"/dev/urandom", "/dev/random"}) {
    const int fd = SYS(open(name, O_RDONLY));
    uint64_t words[8] = {};
    CHECK_EQ(read(fd, words, sizeof words), sizeof words);
    int same = 0;
    for (int i = 1; i < 8; i++) same += words[i] == words[0];
    CHECK_EQ(same, 0);
    close(fd);
  }
  uint64_t one = 0, two = 0;
  CHECK_EQ(syscall(SYS_getrandom, &one, sizeof one, 0), sizeof one);
  CHECK_EQ(syscall(SYS_getrandom, &two, sizeof two, 0), sizeof two);
  CHECK(one != two);
}

TEST(descriptor_limit_is_emfile) {
  IN_CHILD([] {
    int last = -1;
    int fd;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0) {
      last = fd;
      REQUIRE(last < 2'000'000);
    }
    CHECK_EQ(errno, EMFILE);
    int ends[2];
    CHECK_ERRNO(pipe(ends), EMFILE);
    SYS(close(last));
    CHECK_EQ(open("/dev/null", O_RDONLY), last);
  });
}

TEST(close_range_closes_a_range) {
  const int base = SYS(fcntl(SYS(open("/dev/null", O_RDONLY)), F_DUPFD, 100));
  SYS(dup2(base, 101));
  SYS(dup2(base, 103));
  OPTIONAL(syscall(SYS_close_range, 101, 102, 0));
  CHECK_ERRNO(fcntl(101, F_GETFD), EBADF);
  CHECK_EQ(fcntl(100, F_GETFD), 0);
  CHECK_EQ(fcntl(103, F_GETFD), 0);
}

}  // namespace

TAP_MAIN()
