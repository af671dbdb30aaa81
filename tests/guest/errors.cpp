// Which error comes first, where several would be right: tables of calls on descriptors of all
// kinds. Programs that probe for features depend on it.
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tap.hpp"

namespace {

void *const kUnmapped = reinterpret_cast<void *>(8);     // of programs, but nothing is there
void *const kKernel = reinterpret_cast<void *>(-4096L);  // never of a program
constexpr off_t kLast = INT64_MAX;

// Descriptors of all kinds by name; "bad" is none.
class Files {
 public:
  Files() {
    add("rw", open("file", O_RDWR | O_CREAT | O_TRUNC, 0600));
    REQUIRE(write(fds_["rw"], "0123456789", 10) == 10);
    SYS(lseek(fds_["rw"], 0, SEEK_SET));
    add("ro", open("file", O_RDONLY));
    add("wo", open("file", O_WRONLY));
    add("append", open("file", O_RDWR | O_APPEND));
    add("path", open("file", O_PATH));
    add("dir", open(".", O_RDONLY));
    add("null", open("/dev/null", O_RDWR));
    add("terminal", open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
    int ends[2];
    SYS(pipe2(ends, O_NONBLOCK));
    add("reader", ends[0]), add("writer", ends[1]);
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends));
    add("stream", ends[0]), add("peer", ends[1]);
    add("unbound", socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    add("event", eventfd(0, EFD_NONBLOCK));
    add("epoll", epoll_create1(0));
    add("timer", timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    sigset_t none;
    sigemptyset(&none);
    add("signal", signalfd(-1, &none, SFD_NONBLOCK));
    add("inotify", inotify_init1(IN_NONBLOCK));
    fds_["bad"] = 999;
  }
  int operator[](const std::string &name) const { return fds_.at(name); }

 private:
  void add(const char *name, int fd) {
    tap::must(fd, __FILE__, __LINE__, name);
    fds_[name] = fd;
  }
  std::map<std::string, int> fds_;
};

// One call on several kinds of files: a negative number is an error, as in the kernel.
struct Row {
  const char *files;  // names, with blanks between
  int wanted;
};
using Call = std::function<long(int fd)>;

void check_rows(const Files &files, const char *what, const Call &call,
                const std::vector<Row> &rows) {
  for (const Row &row : rows) {
    const std::string names = row.files;
    for (size_t at = 0; at < names.size();) {
      const size_t end = std::min(names.find(' ', at), names.size());
      const std::string name = names.substr(at, end - at);
      at = end + 1;
      errno = 0;
      const long result = call(files[name]);
      const long got = result == -1 ? -errno : result;
      tap::check_equal(got, row.wanted, __FILE__, __LINE__,
                       (std::string(what) + " of " + name).c_str());
    }
  }
}
#define ROWS(call, ...)                                                                      \
  check_rows(files, #call, [&]([[maybe_unused]] int fd) { return static_cast<long>(call); }, \
             {__VA_ARGS__})

TEST(reading_and_writing_at_an_offset) {
  const Files files;
  char b[16] = {};
  iovec v{b, 4};
  const auto bad_iovec = static_cast<iovec *>(kUnmapped);
  ROWS(pread(fd, b, 4, -1), {"rw wo dir reader stream event bad path", -EINVAL});
  ROWS(pread(fd, b, 4, 0), {"rw", 4}, {"wo path bad", -EBADF}, {"dir", -EISDIR},
       {"reader writer stream event epoll timer signal inotify", -ESPIPE});
  ROWS(pread(fd, kKernel, 4, 0), {"rw dir null", -EFAULT}, {"wo", -EBADF}, {"reader", -ESPIPE});
  ROWS(pread(fd, b, -1, 0), {"rw dir null", -EFAULT}, {"wo", -EBADF});
  ROWS(pread(fd, b, 4, kLast), {"rw null", -EINVAL}, {"wo", -EBADF}, {"writer", -ESPIPE});
  ROWS(pwrite(fd, "x", 1, -1), {"rw ro reader signal bad path", -EINVAL});
  ROWS(pwrite(fd, "x", 0, 0), {"rw null", 0}, {"ro dir bad path", -EBADF},
       {"reader writer stream event signal inotify", -ESPIPE});
  ROWS(pwrite(fd, "x", 1, kLast), {"rw null", -EINVAL}, {"ro", -EBADF}, {"reader", -ESPIPE});
  ROWS(preadv(fd, bad_iovec, 1, -1), {"rw wo reader bad", -EINVAL});
  ROWS(preadv(fd, bad_iovec, 1, 0), {"rw", -EFAULT}, {"wo", -EBADF}, {"writer stream", -ESPIPE});
  ROWS(preadv(fd, &v, 0, 0), {"rw dir", 0}, {"wo", -EBADF}, {"reader", -ESPIPE});
  ROWS(pwritev(fd, bad_iovec, 1, 0), {"rw", -EFAULT}, {"ro", -EBADF}, {"reader", -ESPIPE});
}

TEST(reading_and_writing_at_the_position) {
  const Files files;
  char b[16] = {};
  iovec v{b, 4};
  iovec huge{b, SIZE_MAX};
  const auto bad_iovec = static_cast<iovec *>(kUnmapped);
  ROWS(read(fd, kKernel, 1), {"rw dir reader stream unbound event timer signal inotify", -EFAULT},
       {"wo writer bad path", -EBADF}, {"epoll", -EINVAL});
  ROWS(read(fd, b, -1), {"rw dir reader stream event", -EFAULT}, {"wo", -EBADF});
  ROWS(write(fd, kKernel, 1), {"rw writer stream unbound event", -EFAULT},
       {"ro dir reader inotify", -EBADF}, {"epoll timer signal", -EINVAL});
  ROWS(readv(fd, &v, 0), {"rw dir reader event", 0}, {"wo bad", -EBADF}, {"epoll", -EINVAL});
  ROWS(readv(fd, bad_iovec, 1), {"rw dir event", -EFAULT}, {"wo", -EBADF}, {"epoll", -EINVAL});
  ROWS(readv(fd, &v, 1025), {"rw dir event epoll", -EINVAL}, {"wo", -EBADF});
  ROWS(writev(fd, &v, 0), {"rw writer", 0}, {"ro", -EBADF}, {"epoll timer signal", -EINVAL});
  ROWS(writev(fd, &huge, 1), {"rw writer epoll", -EINVAL}, {"ro", -EBADF});
}

TEST(seeking) {
  const Files files;
  ROWS(lseek(fd, 0, 99), {"rw dir null reader stream event epoll", -EINVAL}, {"bad path", -EBADF});
  ROWS(lseek(fd, 0, SEEK_CUR), {"rw dir null event epoll timer signal inotify", 0},
       {"reader writer stream unbound", -ESPIPE});
  ROWS(lseek(fd, 7, SEEK_END), {"event epoll timer signal inotify", 0}, {"rw", 17});
  ROWS(lseek(fd, -5, SEEK_SET), {"rw", -EINVAL}, {"event", 0});
}

TEST(locking_whole_files) {
  const Files files;
  ROWS(flock(fd, LOCK_UN), {"rw ro dir reader stream event epoll timer signal inotify null", 0},
       {"path bad", -EBADF});
  ROWS(flock(fd, LOCK_SH | LOCK_NB), {"rw reader stream event", 0}, {"path", -EBADF});
  ROWS(flock(fd, LOCK_UN), {"rw reader stream event", 0});
  // What has no file of its own shares one lock.
  ROWS(flock(fd, LOCK_EX | LOCK_NB), {"event", 0}, {"timer", -EWOULDBLOCK});
}

TEST(status_flags) {
  const Files files;
  ROWS(fcntl(fd, F_GETFL) & O_ACCMODE, {"event epoll timer signal stream", O_RDWR},
       {"inotify ro dir", O_RDONLY}, {"wo", O_WRONLY});
  ROWS(fcntl(fd, F_SETFL, O_DIRECT), {"dir null stream unbound event epoll timer signal", -EINVAL},
       {"path bad", -EBADF}, {"reader", 0});
  ROWS((fcntl(fd, F_GETFL) & O_DIRECT) != 0, {"reader", 1}, {"dir stream event", 0});
}

TEST(block_sizes) {
  const Files files;
  int size = -1;
  ROWS(ioctl(fd, FIGETBSZ, &size), {"rw dir null reader stream event epoll", 0},
       {"path bad", -EBADF});
  ROWS((ioctl(fd, FIGETBSZ, &size), size), {"reader stream event", 4096});
  ROWS(ioctl(fd, FIGETBSZ, kUnmapped), {"rw reader event", -EFAULT});
  struct stat status {};
  SYS(fstat(files["rw"], &status));
  ROWS((ioctl(fd, FIGETBSZ, &size), size == status.st_blksize), {"rw", 1});
}

TEST(allocating) {
  const Files files;
  constexpr int kPunch = FALLOC_FL_PUNCH_HOLE;
  ROWS(fallocate(fd, 0, -1, 10), {"rw ro dir reader event", -EINVAL}, {"bad path", -EBADF});
  ROWS(fallocate(fd, 0, 0, 0), {"rw ro dir reader event", -EINVAL});
  ROWS(fallocate(fd, 0x8000, 0, 10), {"rw ro dir reader stream event", -EOPNOTSUPP});
  ROWS(fallocate(fd, kPunch, 0, 10), {"rw ro dir reader stream event", -EOPNOTSUPP});
  ROWS(fallocate(fd, 0, 0, 10), {"rw", 0}, {"ro dir reader", -EBADF}, {"writer", -ESPIPE},
       {"stream event null", -ENODEV});
  ROWS(fallocate(fd, 0, kLast, 10), {"rw", -EFBIG}, {"writer", -ESPIPE}, {"stream null", -ENODEV});
}

TEST(mapping) {
  const Files files;
  constexpr size_t kPage = 4096;
  const auto map = [&](size_t length, int prot, int flags, int fd, off_t offset,
                       void *at = nullptr) -> long {
    return mmap(at, length, prot, flags, fd, offset) == MAP_FAILED ? -1 : 0;
  };
  ROWS(map(kPage, PROT_READ, MAP_SHARED, fd, 1), {"rw dir bad", -EINVAL});
  ROWS(map(0, PROT_READ, MAP_SHARED, fd, 0), {"rw wo dir event", -EINVAL}, {"bad path", -EBADF});
  ROWS(map(SIZE_MAX, PROT_READ, MAP_SHARED, fd, 0), {"rw wo dir event", -ENOMEM}, {"bad", -EBADF});
  ROWS(map(kPage, PROT_READ, MAP_SHARED, fd, -4096), {"rw wo dir null event", -EOVERFLOW});
  ROWS(map(kPage, PROT_READ, MAP_SHARED, fd, kLast & ~4095L), {"rw wo", -EOVERFLOW});
  ROWS(map(kPage, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0, reinterpret_cast<void *>(1)),
       {"rw wo dir event", -EINVAL}, {"bad", -EBADF});
  ROWS(map(kPage, PROT_READ, 0, fd, 0), {"rw wo dir event", -EINVAL}, {"bad", -EBADF});
  ROWS(map(kPage, PROT_READ, MAP_SHARED, fd, 0), {"rw ro", 0}, {"wo writer", -EACCES},
       {"dir event epoll reader null", -ENODEV});
  ROWS(map(kPage, PROT_WRITE, MAP_SHARED, fd, 0), {"ro dir reader inotify", -EACCES},
       {"event", -ENODEV});
  ROWS(map(kPage, PROT_READ, MAP_PRIVATE | MAP_GROWSDOWN, fd, 0), {"rw", -EINVAL}, {"wo", -EACCES},
       {"dir event", -ENODEV});
}

TEST(accepting_and_connecting) {
  const Files files;
  const auto unmapped = static_cast<sockaddr *>(kUnmapped);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  const auto address = reinterpret_cast<sockaddr *>(&name);
  ROWS(accept4(fd, nullptr, nullptr, 1), {"bad path", -EBADF}, {"rw unbound stream", -EINVAL});
  ROWS(accept4(fd, nullptr, nullptr, 0), {"rw reader event", -ENOTSOCK}, {"unbound", -EINVAL});
  ROWS(connect(fd, unmapped, 2), {"bad path", -EBADF}, {"rw event unbound", -EFAULT});
  ROWS(connect(fd, address, 2), {"rw event", -ENOTSOCK}, {"unbound", -EINVAL});
  const int datagram = static_cast<int>(SYS(socket(AF_UNIX, SOCK_DGRAM, 0)));
  CHECK_ERRNO(connect(datagram, address, 0), EINVAL);
}

// A connection is not lost for want of a descriptor.
TEST(accept_without_a_free_descriptor) {
  const int listener = static_cast<int>(SYS(socket(AF_UNIX, SOCK_STREAM, 0)));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  strcpy(name.sun_path, "listener");
  SYS(bind(listener, reinterpret_cast<sockaddr *>(&name), sizeof name));
  SYS(listen(listener, 5));
  const int client = static_cast<int>(SYS(socket(AF_UNIX, SOCK_STREAM, 0)));
  SYS(connect(client, reinterpret_cast<sockaddr *>(&name), sizeof name));
  rlimit before{};
  SYS(getrlimit(RLIMIT_NOFILE, &before));
  const rlimit none{0, before.rlim_max};
  SYS(setrlimit(RLIMIT_NOFILE, &none));
  CHECK_ERRNO(accept(listener, nullptr, nullptr), EMFILE);
  SYS(setrlimit(RLIMIT_NOFILE, &before));
  const int server = static_cast<int>(SYS(accept(listener, nullptr, nullptr)));
  CHECK_EQ(write(client, "x", 1), 1);
  char b;
  CHECK_EQ(read(server, &b, 1), 1);
}

TEST(sendfile_between_kinds) {
  const Files files;
  off_t at = -1;
  const auto unmapped = static_cast<off_t *>(kUnmapped);
  const int rw = files["rw"], writer = files["writer"];
  ROWS(sendfile(files["bad"], fd, unmapped, 4), {"rw bad", -EFAULT});
  ROWS(sendfile(files["bad"], fd, nullptr, 4), {"wo bad", -EBADF});
  ROWS((at = -1, sendfile(files["bad"], fd, &at, 4)), {"rw", -EINVAL}, {"reader", -ESPIPE},
       {"wo", -EBADF});
  ROWS(sendfile(files["bad"], fd, nullptr, -1), {"rw reader", -EINVAL});
  ROWS(sendfile(fd, rw, nullptr, 4), {"ro dir bad path inotify", -EBADF}, {"append", -EINVAL},
       {"writer null", 4});
  ROWS(sendfile(writer, fd, nullptr, 4), {"reader event dir", -EINVAL});
  ROWS(sendfile(fd, rw, nullptr, 0), {"writer null", 0}, {"append", -EINVAL});
  ROWS(sendfile(files["null"], fd, nullptr, 4), {"reader stream event terminal", -EINVAL});
}

TEST(splicing) {
  const Files files;
  off_t at = 0;
  const auto unmapped = static_cast<off_t *>(kUnmapped);
  const int rw = files["rw"], reader = files["reader"], writer = files["writer"];
  REQUIRE(write(writer, "abcd", 4) == 4);
  ROWS(splice(fd, unmapped, files["bad"], unmapped, 0, 0xff00), {"rw bad", 0});
  ROWS(splice(fd, unmapped, files["bad"], unmapped, 1, 0xff00), {"rw bad", -EINVAL});
  ROWS(splice(fd, unmapped, files["bad"], unmapped, 1, 0), {"rw bad", -EBADF});
  ROWS(splice(fd, unmapped, writer, nullptr, 1, 0), {"reader writer", -ESPIPE},
       {"rw wo dir stream", -EFAULT});
  ROWS(splice(fd, nullptr, writer, nullptr, 1, 0), {"wo writer", -EBADF},
       {"dir event epoll timer", -EINVAL}, {"rw", 1});
  ROWS(splice(fd, &at, writer, nullptr, 1, 0), {"stream event", -EINVAL}, {"reader", -ESPIPE});
  ROWS((at = -1, splice(fd, &at, writer, nullptr, 1, 0)), {"rw", -EINVAL});
  ROWS(splice(reader, nullptr, fd, nullptr, 1, 0), {"ro dir reader inotify", -EBADF},
       {"append event epoll timer signal", -EINVAL}, {"null", 1});
  ROWS((at = 0, splice(reader, nullptr, fd, &at, 1, 0)), {"stream event", -EINVAL},
       {"writer", -ESPIPE});
  ROWS(splice(rw, nullptr, fd, nullptr, 1, 0), {"wo null stream", -EINVAL}, {"ro", -EBADF});
  ROWS(tee(reader, fd, 0, 0), {"rw bad", 0});
  ROWS(tee(reader, fd, 1, 0), {"rw", -EINVAL}, {"ro bad", -EBADF});
}

TEST(copying_ranges) {
  const Files files;
  off_t in = 0, out = 0;
  const auto unmapped = static_cast<off_t *>(kUnmapped);
  const int rw = files["rw"], other = static_cast<int>(SYS(open("other", O_RDWR | O_CREAT, 0600)));
  const auto copy = [&](int from, off_t *from_at, int to, off_t *to_at, size_t bytes,
                        unsigned flags = 0) {
    return syscall(SYS_copy_file_range, from, from_at, to, to_at, bytes, flags);
  };
  if (copy(rw, &in, other, &out, 1) == -1 && errno == ENOSYS) SKIP("no copy_file_range");
  ROWS(copy(fd, unmapped, other, nullptr, 1, 1), {"rw dir", -EFAULT}, {"bad", -EBADF});
  ROWS(copy(fd, nullptr, other, nullptr, 1, 1), {"rw dir wo reader", -EINVAL});
  ROWS(copy(fd, nullptr, other, nullptr, 1), {"dir", -EISDIR},
       {"reader stream event null", -EINVAL}, {"wo", -EBADF});
  ROWS(copy(rw, nullptr, fd, nullptr, 1), {"dir", -EISDIR}, {"writer", -EINVAL},
       {"ro append", -EBADF});
  in = -1;
  CHECK_ERRNO(copy(rw, &in, other, nullptr, 1), EOVERFLOW);
  in = 100, out = 0;
  CHECK_EQ(copy(rw, &in, other, &out, 1), 0);
  in = 0, out = kLast;
  CHECK_ERRNO(copy(rw, &in, other, &out, 1), EFBIG);
  in = 0, out = 1;
  CHECK_ERRNO(copy(rw, &in, rw, &out, 4), EINVAL);
}

}  // namespace

TAP_MAIN()
