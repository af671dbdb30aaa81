// Pipes, FIFOs and waiting for descriptors: pipe(7), fifo(7), poll(2), select(2), epoll(7),
// eventfd(2), timerfd(2).
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/timerfd.h>

#include "tap.hpp"

namespace {

struct Pipe {
  int in;   // read end
  int out;  // write end
};

Pipe make_pipe(int flags = 0) {
  int ends[2];
  SYS(pipe2(ends, flags));
  return {ends[0], ends[1]};
}

short poll_one(int fd, short events, int timeout = 0) {
  pollfd poller = {fd, events, 0};
  const int count = poll(&poller, 1, timeout);
  CHECK_EQ(count, poller.revents != 0);
  return poller.revents;
}

void put(int fd, const char *text) { CHECK_EQ(write(fd, text, strlen(text)), strlen(text)); }

TEST(pipe_carries_bytes_in_order) {
  const Pipe pipe = make_pipe();
  put(pipe.out, "hello ");
  put(pipe.out, "world");
  char buffer[32] = {};
  CHECK_EQ(read(pipe.in, buffer, 4), 4);
  CHECK_EQ(read(pipe.in, buffer + 4, sizeof buffer - 4), 7);
  CHECK_STR(buffer, "hello world");
  CHECK_ERRNO(write(pipe.in, "x", 1), EBADF);
  CHECK_ERRNO(read(pipe.out, buffer, 1), EBADF);
  struct stat status {};
  SYS(fstat(pipe.in, &status));
  CHECK(S_ISFIFO(status.st_mode));
}

TEST(pipe_ends_when_the_writers_are_gone) {
  const Pipe pipe = make_pipe();
  const int second = SYS(dup(pipe.out));
  put(pipe.out, "x");
  close(pipe.out);
  char byte;
  CHECK_EQ(read(pipe.in, &byte, 1), 1);
  SYS(fcntl(pipe.in, F_SETFL, O_NONBLOCK));
  CHECK_ERRNO(read(pipe.in, &byte, 1), EAGAIN);
  close(second);
  CHECK_EQ(read(pipe.in, &byte, 1), 0);
  CHECK_EQ(read(pipe.in, &byte, 1), 0);
}

TEST(pipe_reader_waits_for_a_writer) {
  const Pipe pipe = make_pipe();
  const pid_t child = start_child([&] {
    sleep_ms(50);
    put(pipe.out, "late");
  });
  char buffer[8] = {};
  CHECK_EQ(read(pipe.in, buffer, 7), 4);
  CHECK_STR(buffer, "late");
  CHECK_EQ(wait_for(child), 0);
}

TEST(pipe_is_full_at_its_capacity) {
  const Pipe pipe = make_pipe(O_NONBLOCK);
  static char block[4096];
  size_t total = 0;
  ssize_t got;
  while ((got = write(pipe.out, block, sizeof block)) > 0) total += static_cast<size_t>(got);
  CHECK_EQ(errno, EAGAIN);
  CHECK_EQ(total, 65536);
  CHECK_EQ(poll_one(pipe.out, POLLOUT), 0);
  int bytes = 0;
  SYS(ioctl(pipe.in, FIONREAD, &bytes));
  CHECK_EQ(bytes, 65536);
  CHECK_EQ(read(pipe.in, block, sizeof block), sizeof block);
  CHECK_EQ(poll_one(pipe.out, POLLOUT), POLLOUT);
}

TEST(pipe_size_can_be_set) {
  const Pipe pipe = make_pipe(O_NONBLOCK);
  CHECK_EQ(fcntl(pipe.in, F_GETPIPE_SZ), 65536);
  const int size = fcntl(pipe.in, F_SETPIPE_SZ, 200'000);
  CHECK(size >= 200'000);
  CHECK_EQ(fcntl(pipe.out, F_GETPIPE_SZ), size);
  static char block[131072];
  CHECK_EQ(write(pipe.out, block, sizeof block), sizeof block);
  CHECK_ERRNO(fcntl(pipe.in, F_SETPIPE_SZ, 4096), EBUSY);
}

TEST(pipe_blocked_writer_goes_on) {
  const Pipe pipe = make_pipe();
  constexpr size_t kTotal = 1 << 20;
  const pid_t child = start_child([&] {
    close(pipe.in);
    static unsigned char block[kTotal];
    for (size_t i = 0; i < kTotal; i++) block[i] = static_cast<unsigned char>(i * 7 + i / 251);
    CHECK_EQ(write(pipe.out, block, kTotal), kTotal);
  });
  close(pipe.out);
  size_t total = 0;
  unsigned char buffer[3001];
  for (ssize_t got; (got = read(pipe.in, buffer, sizeof buffer)) > 0;)
    for (ssize_t i = 0; i < got; i++, total++)
      REQUIRE(buffer[i] == static_cast<unsigned char>(total * 7 + total / 251));
  CHECK_EQ(total, kTotal);
  CHECK_EQ(wait_for(child), 0);
}

TEST(pipe_small_writes_are_atomic) {
  const Pipe pipe = make_pipe();
  constexpr int kWriters = 4, kRounds = 50;
  pid_t children[kWriters];
  for (int who = 0; who < kWriters; who++)
    children[who] = start_child([&, who] {
      char block[PIPE_BUF];
      memset(block, 'a' + who, sizeof block);
      for (int i = 0; i < kRounds; i++)
        CHECK_EQ(write(pipe.out, block, sizeof block), sizeof block);
    });
  close(pipe.out);
  int counts[kWriters] = {};
  char block[PIPE_BUF];
  for (;;) {
    size_t have = 0;
    ssize_t got = 1;
    while (have < sizeof block && (got = read(pipe.in, block + have, sizeof block - have)) > 0)
      have += static_cast<size_t>(got);
    if (have == 0) break;
    for (char byte : block) REQUIRE(byte == block[0]);
    counts[block[0] - 'a']++;
  }
  for (int who = 0; who < kWriters; who++) {
    CHECK_EQ(counts[who], kRounds);
    CHECK_EQ(wait_for(children[who]), 0);
  }
}

TEST(pipe_flags) {
  const Pipe pipe = make_pipe(O_CLOEXEC | O_NONBLOCK);
  CHECK_EQ(fcntl(pipe.in, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(pipe.in, F_GETFL), O_RDONLY | O_NONBLOCK);
  CHECK_EQ(fcntl(pipe.out, F_GETFL), O_WRONLY | O_NONBLOCK);
  int ends[2];
  CHECK_ERRNO(pipe2(ends, 0x7), EINVAL);
}

TEST(fifo_connects_two_openers) {
  SYS(mkfifo("fifo", 0600));
  const pid_t child = start_child([] {
    const int out = SYS(open("fifo", O_WRONLY));
    put(out, "through the fifo");
  });
  const int in = SYS(open("fifo", O_RDONLY));  // waits for the writer
  char buffer[32] = {};
  CHECK_EQ(read(in, buffer, sizeof buffer - 1), 16);
  CHECK_STR(buffer, "through the fifo");
  CHECK_EQ(read(in, buffer, 1), 0);
  CHECK_EQ(wait_for(child), 0);
}

TEST(fifo_without_waiting) {
  SYS(mkfifo("fifo", 0600));
  CHECK_ERRNO(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
  const int in = SYS(open("fifo", O_RDONLY | O_NONBLOCK));
  char byte;
  CHECK_EQ(read(in, &byte, 1), 0);  // no writer: the end
  const int out = SYS(open("fifo", O_WRONLY | O_NONBLOCK));
  CHECK_ERRNO(read(in, &byte, 1), EAGAIN);
  put(out, "x");
  CHECK_EQ(read(in, &byte, 1), 1);
  const int both = SYS(open("fifo", O_RDWR));
  close(out);
  CHECK_ERRNO(read(in, &byte, 1), EAGAIN);
  close(both);
}

TEST(tee_of_proc_self_fd) {
  const Pipe pipe = make_pipe();
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", pipe.out);
  const int again = SYS(open(path, O_WRONLY));
  put(again, "via proc");
  char buffer[16] = {};
  CHECK_EQ(read(pipe.in, buffer, 15), 8);
  CHECK_STR(buffer, "via proc");
}

// A shell's `printf x | cat /dev/stdin`: the writer may be gone before the pipe is opened anew.
TEST(pipe_opened_anew_does_not_wait_for_the_other_end) {
  const Pipe pipe = make_pipe();
  char path[64];
  put(pipe.out, "left");
  snprintf(path, sizeof path, "/proc/self/fd/%d", pipe.out);
  close(pipe.out);
  CHECK_ERRNO(open(path, O_WRONLY), ENOENT);
  snprintf(path, sizeof path, "/proc/self/fd/%d", pipe.in);
  const int again = SYS(open(path, O_RDONLY));
  CHECK_EQ(poll_one(again, POLLIN, -1), POLLIN | POLLHUP);
  char buffer[16] = {};
  CHECK_EQ(read(again, buffer, 15), 4);
  CHECK_STR(buffer, "left");
  CHECK_EQ(poll_one(again, POLLIN, -1), POLLHUP);
  CHECK_EQ(read(again, buffer, 15), 0);

  const Pipe other = make_pipe();
  snprintf(path, sizeof path, "/proc/self/fd/%d", other.in);
  const int keep = SYS(open(path, O_PATH));
  snprintf(path, sizeof path, "/proc/self/fd/%d", keep);
  close(other.in);
  const int writer = SYS(open(path, O_WRONLY | O_NONBLOCK));
  signal(SIGPIPE, SIG_IGN);
  CHECK_ERRNO(write(writer, "x", 1), EPIPE);
}

TEST(tee_copies_and_leaves) {
  const Pipe from = make_pipe();
  const Pipe to = make_pipe();
  CHECK_ERRNO(tee(from.in, to.out, 100, SPLICE_F_NONBLOCK), EAGAIN);
  CHECK_EQ(tee(from.in, to.out, 0, 0), 0);
  CHECK_EQ(tee(-1, -1, 0, 0), 0);
  CHECK_ERRNO(tee(from.in, to.out, 0, 0x100), EINVAL);
  CHECK_ERRNO(tee(from.in, from.out, 1, 0), EINVAL);
  put(from.out, "both");
  CHECK_EQ(tee(from.in, to.out, 100, 0), 4);
  char buffer[16] = {};
  CHECK_EQ(read(to.in, buffer, 15), 4);
  CHECK_STR(buffer, "both");
  CHECK_EQ(read(from.in, buffer, 15), 4);
  CHECK_STR(buffer, "both");
  close(from.out);
  CHECK_EQ(tee(from.in, to.out, 100, 0), 0);
  CHECK_ERRNO(vmsplice(to.out, nullptr, 0, 0x100), EINVAL);
}

TEST(poll_reports_events) {
  const Pipe pipe = make_pipe();
  CHECK_EQ(poll_one(pipe.in, POLLIN), 0);
  CHECK_EQ(poll_one(pipe.out, POLLOUT), POLLOUT);
  put(pipe.out, "x");
  CHECK_EQ(poll_one(pipe.in, POLLIN), POLLIN);
  CHECK_EQ(poll_one(pipe.in, 0), 0);
  const int file = make_file("file");
  CHECK_EQ(poll_one(file, POLLIN | POLLOUT), POLLIN | POLLOUT);
  close(pipe.out);
  CHECK_EQ(poll_one(pipe.in, POLLIN), POLLIN | POLLHUP);
  const Pipe other = make_pipe();
  close(other.in);
  CHECK_EQ(poll_one(other.out, POLLOUT) & POLLERR, POLLERR);
  CHECK_EQ(poll_one(999, POLLIN), POLLNVAL);
  pollfd ignored = {-1, POLLIN, 77};
  CHECK_EQ(poll(&ignored, 1, 0), 0);
  CHECK_EQ(ignored.revents, 0);
}

TEST(poll_waits_and_times_out) {
  const Pipe pipe = make_pipe();
  const uint64_t start = now_ns();
  CHECK_EQ(poll_one(pipe.in, POLLIN, 60), 0);
  CHECK(now_ns() - start >= 60'000'000);
  const pid_t child = start_child([&] {
    sleep_ms(40);
    put(pipe.out, "x");
  });
  CHECK_EQ(poll_one(pipe.in, POLLIN, -1), POLLIN);
  CHECK_EQ(wait_for(child), 0);
}

TEST(ppoll_sets_the_mask_while_waiting) {
  on_signal(SIGUSR1, [](int) {});
  sigset_t blocked, open_set;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigemptyset(&open_set);
  SYS(sigprocmask(SIG_BLOCK, &blocked, nullptr));
  SYS(raise(SIGUSR1));
  const timespec long_time{5, 0};
  CHECK_ERRNO(ppoll(nullptr, 0, &long_time, &open_set), EINTR);
  const timespec none{0, 0};
  CHECK_EQ(ppoll(nullptr, 0, &none, nullptr), 0);
}

TEST(select_finds_the_ready_ones) {
  const Pipe one = make_pipe(), two = make_pipe();
  put(two.out, "x");
  fd_set readable, writable;
  FD_ZERO(&readable);
  FD_ZERO(&writable);
  FD_SET(one.in, &readable);
  FD_SET(two.in, &readable);
  FD_SET(one.out, &writable);
  timeval timeout{1, 0};
  CHECK_EQ(select(two.out + 1, &readable, &writable, nullptr, &timeout), 2);
  CHECK(!FD_ISSET(one.in, &readable));
  CHECK(FD_ISSET(two.in, &readable));
  CHECK(FD_ISSET(one.out, &writable));
  FD_ZERO(&readable);
  FD_SET(one.in, &readable);
  timeout = {0, 30'000};
  const uint64_t start = now_ns();
  CHECK_EQ(select(one.in + 1, &readable, nullptr, nullptr, &timeout), 0);
  CHECK(now_ns() - start >= 30'000'000);
  CHECK(!FD_ISSET(one.in, &readable));
  close(two.in);
  FD_SET(two.in, &readable);
  CHECK_ERRNO(select(two.in + 1, &readable, nullptr, nullptr, &timeout), EBADF);
  CHECK_ERRNO(select(-1, nullptr, nullptr, nullptr, &timeout), EINVAL);
  const timespec none{0, 0};
  CHECK_EQ(pselect(0, nullptr, nullptr, nullptr, &none, nullptr), 0);
}

struct Epoll {
  int fd = static_cast<int>(SYS(epoll_create1(EPOLL_CLOEXEC)));
  void control(int operation, int target, uint32_t events, uint64_t tag = 0) {
    epoll_event event = {};
    event.events = events;
    event.data.u64 = tag ? tag : static_cast<uint64_t>(target);
    SYS(epoll_ctl(fd, operation, target, &event));
  }
  // The events of the one ready descriptor; 0 for none.
  uint32_t wait(int timeout = 0) {
    epoll_event event = {};
    const int count = static_cast<int>(SYS(epoll_wait(fd, &event, 1, timeout)));
    data = event.data.u64;
    return count == 0 ? 0 : event.events;
  }
  uint64_t data = 0;
};

TEST(epoll_refuses_what_is_always_ready) {
  const int epoll = static_cast<int>(SYS(epoll_create1(0)));
  epoll_event event = {};
  event.events = EPOLLIN;
  for (const char *path : {"/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/", "file"}) {
    const int fd = static_cast<int>(SYS(open(path, O_RDONLY | (*path == 'f' ? O_CREAT : 0), 0600)));
    CHECK_ERRNO(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), EPERM);
    pollfd poller = {fd, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&poller, 1, 0), 1);
    CHECK_EQ(poller.revents, POLLIN | POLLOUT);
  }
}

TEST(epoll_level_triggered) {
  Epoll epoll;
  const Pipe pipe = make_pipe();
  epoll.control(EPOLL_CTL_ADD, pipe.in, EPOLLIN, 0x1234567890);
  CHECK_EQ(epoll.wait(), 0);
  put(pipe.out, "xy");
  char byte;
  CHECK_EQ(epoll.wait(), EPOLLIN);
  CHECK_EQ(epoll.data, 0x1234567890);
  CHECK_EQ(read(pipe.in, &byte, 1), 1);
  CHECK_EQ(epoll.wait(), EPOLLIN);  // still something there
  CHECK_EQ(read(pipe.in, &byte, 1), 1);
  CHECK_EQ(epoll.wait(), 0);
  close(pipe.out);
  CHECK_EQ(epoll.wait(), EPOLLHUP);
}

TEST(epoll_edge_triggered) {
  Epoll epoll;
  const Pipe pipe = make_pipe();
  epoll.control(EPOLL_CTL_ADD, pipe.in, EPOLLIN | EPOLLET);
  put(pipe.out, "x");
  CHECK_EQ(epoll.wait(), EPOLLIN);
  CHECK_EQ(epoll.wait(), 0);  // told once
  put(pipe.out, "y");
  CHECK_EQ(epoll.wait(), EPOLLIN);
  CHECK_EQ(epoll.wait(), 0);
  epoll.control(EPOLL_CTL_MOD, pipe.in, EPOLLIN | EPOLLET);
  CHECK_EQ(epoll.wait(), EPOLLIN);  // looked at afresh
}

TEST(epoll_one_shot) {
  Epoll epoll;
  const Pipe pipe = make_pipe();
  epoll.control(EPOLL_CTL_ADD, pipe.in, EPOLLIN | EPOLLONESHOT);
  put(pipe.out, "xyz");
  CHECK_EQ(epoll.wait(), EPOLLIN);
  put(pipe.out, "x");
  CHECK_EQ(epoll.wait(), 0);
  epoll.control(EPOLL_CTL_MOD, pipe.in, EPOLLIN | EPOLLONESHOT);
  CHECK_EQ(epoll.wait(), EPOLLIN);
}

TEST(epoll_errors_and_removal) {
  Epoll epoll;
  const Pipe pipe = make_pipe();
  epoll.control(EPOLL_CTL_ADD, pipe.in, EPOLLIN);
  epoll_event event = {};
  CHECK_ERRNO(epoll_ctl(epoll.fd, EPOLL_CTL_ADD, pipe.in, &event), EEXIST);
  CHECK_ERRNO(epoll_ctl(epoll.fd, EPOLL_CTL_MOD, pipe.out, &event), ENOENT);
  CHECK_ERRNO(epoll_ctl(epoll.fd, EPOLL_CTL_DEL, pipe.out, &event), ENOENT);
  CHECK_ERRNO(epoll_ctl(epoll.fd, EPOLL_CTL_ADD, epoll.fd, &event), EINVAL);
  CHECK_ERRNO(epoll_ctl(epoll.fd, EPOLL_CTL_ADD, 999, &event), EBADF);
  CHECK_ERRNO(epoll_ctl(epoll.fd, 99, pipe.in, &event), EINVAL);
  const int file = make_file("file");
  CHECK_ERRNO(epoll_ctl(epoll.fd, EPOLL_CTL_ADD, file, &event), EPERM);
  CHECK_ERRNO(epoll_wait(epoll.fd, &event, 0, 0), EINVAL);
  CHECK_ERRNO(epoll_wait(pipe.in, &event, 1, 0), EINVAL);
  put(pipe.out, "x");
  CHECK_EQ(epoll.wait(), EPOLLIN);
  SYS(epoll_ctl(epoll.fd, EPOLL_CTL_DEL, pipe.in, nullptr));
  CHECK_EQ(epoll.wait(), 0);
  epoll.control(EPOLL_CTL_ADD, pipe.in, EPOLLIN);
  close(pipe.in);  // the last descriptor of the file: it leaves the set
  CHECK_EQ(epoll.wait(), 0);
  CHECK_ERRNO(epoll_create(0), EINVAL);
}

TEST(epoll_nested) {
  Epoll inner, outer;
  const Pipe pipe = make_pipe();
  inner.control(EPOLL_CTL_ADD, pipe.in, EPOLLIN);
  outer.control(EPOLL_CTL_ADD, inner.fd, EPOLLIN);
  CHECK_EQ(outer.wait(), 0);
  put(pipe.out, "x");
  CHECK_EQ(outer.wait(100), EPOLLIN);
  CHECK_EQ(poll_one(outer.fd, POLLIN), POLLIN);
  epoll_event event = {};
  CHECK_ERRNO(epoll_ctl(inner.fd, EPOLL_CTL_ADD, outer.fd, &event), ELOOP);
}

TEST(epoll_waits_for_another_process) {
  Epoll epoll;
  const Pipe pipe = make_pipe();
  epoll.control(EPOLL_CTL_ADD, pipe.in, EPOLLIN);
  const pid_t child = start_child([&] {
    sleep_ms(40);
    put(pipe.out, "x");
  });
  CHECK_EQ(epoll.wait(-1), EPOLLIN);
  CHECK_EQ(wait_for(child), 0);
  const uint64_t start = now_ns();
  SYS(epoll_ctl(epoll.fd, EPOLL_CTL_DEL, pipe.in, nullptr));
  CHECK_EQ(epoll.wait(30), 0);
  CHECK(now_ns() - start >= 30'000'000);
}

TEST(epoll_many_descriptors_take_turns) {
  Epoll epoll;
  constexpr int kPipes = 50;
  Pipe pipes[kPipes];
  for (Pipe &pipe : pipes) {
    pipe = make_pipe();
    epoll.control(EPOLL_CTL_ADD, pipe.in, EPOLLIN);
    put(pipe.out, "x");
  }
  bool seen[200] = {};
  int count = 0;
  for (int round = 0; round < 3 * kPipes && count < kPipes; round++) {
    epoll_event events[7] = {};
    const int got = static_cast<int>(SYS(epoll_wait(epoll.fd, events, 7, 0)));
    for (int i = 0; i < got; i++) {
      count += !seen[events[i].data.u64];
      seen[events[i].data.u64] = true;
    }
  }
  CHECK_EQ(count, kPipes);
}

TEST(eventfd_counts) {
  const int fd = static_cast<int>(OPTIONAL(eventfd(3, EFD_NONBLOCK)));
  uint64_t value = 4;
  CHECK_EQ(write(fd, &value, 8), 8);
  CHECK_EQ(read(fd, &value, 8), 8);
  CHECK_EQ(value, 7);
  CHECK_ERRNO(read(fd, &value, 8), EAGAIN);
  CHECK_ERRNO(read(fd, &value, 4), EINVAL);
  CHECK_EQ(poll_one(fd, POLLIN | POLLOUT), POLLOUT);
  value = UINT64_MAX;
  CHECK_ERRNO(write(fd, &value, 8), EINVAL);
  value = UINT64_MAX - 1;
  CHECK_EQ(write(fd, &value, 8), 8);
  value = 1;
  CHECK_ERRNO(write(fd, &value, 8), EAGAIN);
  CHECK_EQ(poll_one(fd, POLLIN | POLLOUT), POLLIN);
}

TEST(eventfd_as_a_semaphore) {
  const int fd = static_cast<int>(OPTIONAL(eventfd(0, EFD_SEMAPHORE)));
  const pid_t child = start_child([&] {
    for (int i = 0; i < 3; i++) {
      uint64_t value = 0;
      CHECK_EQ(read(fd, &value, 8), 8);
      CHECK_EQ(value, 1);
    }
  });
  sleep_ms(20);
  const uint64_t three = 3;
  CHECK_EQ(write(fd, &three, 8), 8);
  CHECK_EQ(wait_for(child), 0);
}

TEST(timerfd_expires) {
  const int fd = static_cast<int>(OPTIONAL(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)));
  uint64_t count = 0;
  CHECK_ERRNO(read(fd, &count, 8), EAGAIN);
  const itimerspec often{{0, 20'000'000}, {0, 30'000'000}};
  const uint64_t start = now_ns();
  SYS(timerfd_settime(fd, 0, &often, nullptr));
  CHECK_EQ(poll_one(fd, POLLIN, 2000), POLLIN);
  CHECK(now_ns() - start >= 30'000'000);
  sleep_ms(100);
  CHECK_EQ(read(fd, &count, 8), 8);
  CHECK(count >= 5);
  itimerspec now{};
  SYS(timerfd_gettime(fd, &now));
  CHECK_EQ(now.it_interval.tv_nsec, 20'000'000);
  const itimerspec off{};
  SYS(timerfd_settime(fd, 0, &off, nullptr));
  CHECK_EQ(poll_one(fd, POLLIN, 50), 0);
  timespec absolute{};
  clock_gettime(CLOCK_MONOTONIC, &absolute);
  const itimerspec past{{0, 0}, absolute};
  SYS(timerfd_settime(fd, TFD_TIMER_ABSTIME, &past, nullptr));
  CHECK_EQ(poll_one(fd, POLLIN, 1000), POLLIN);
}

}  // namespace

TAP_MAIN()
