// Local sockets: unix(7), socketpair(2), SCM_RIGHTS and SCM_CREDENTIALS, sendmsg(2), shutdown(2).
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "tap.hpp"

namespace {

struct Pair {
  int left, right;
};

Pair make_pair(int type) {
  int ends[2];
  OPTIONAL(socketpair(AF_UNIX, type, 0, ends));
  return {ends[0], ends[1]};
}

sockaddr_un address_of(const char *path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, path);
  return address;
}

const sockaddr *generic(const sockaddr_un &address) {
  return reinterpret_cast<const sockaddr *>(&address);
}

int listener(const char *path, int type = SOCK_STREAM) {
  const int fd = static_cast<int>(OPTIONAL(socket(AF_UNIX, type, 0)));
  const sockaddr_un address = address_of(path);
  SYS(bind(fd, generic(address), sizeof address));
  if (type != SOCK_DGRAM) SYS(listen(fd, 5));
  return fd;
}

TEST(stream_pair_carries_both_ways) {
  const Pair pair = make_pair(SOCK_STREAM);
  CHECK_EQ(write(pair.left, "to the right", 12), 12);
  CHECK_EQ(send(pair.right, "to the left", 11, 0), 11);
  char buffer[32] = {};
  CHECK_EQ(read(pair.right, buffer, 2), 2);
  CHECK_EQ(read(pair.right, buffer + 2, 30), 10);
  CHECK_STR(buffer, "to the right");
  CHECK_EQ(recv(pair.left, buffer, 32, MSG_PEEK), 11);
  CHECK_EQ(recv(pair.left, buffer, 32, 0), 11);
  CHECK_ERRNO(recv(pair.left, buffer, 32, MSG_DONTWAIT), EAGAIN);
  struct stat status {};
  SYS(fstat(pair.left, &status));
  CHECK(S_ISSOCK(status.st_mode));
}

TEST(datagrams_keep_their_borders) {
  const Pair pair = make_pair(SOCK_DGRAM);
  CHECK_EQ(send(pair.left, "first", 5, 0), 5);
  CHECK_EQ(send(pair.left, "", 0, 0), 0);
  CHECK_EQ(send(pair.left, "third one", 9, 0), 9);
  char buffer[32] = {};
  CHECK_EQ(recv(pair.right, buffer, 32, 0), 5);
  CHECK_EQ(recv(pair.right, buffer, 32, 0), 0);
  CHECK_EQ(recv(pair.right, buffer, 5, MSG_TRUNC), 9);  // the rest of it is lost
  CHECK_ERRNO(recv(pair.right, buffer, 32, MSG_DONTWAIT), EAGAIN);
}

TEST(sequenced_packets_keep_borders_and_end) {
  const Pair pair = make_pair(SOCK_SEQPACKET);
  CHECK_EQ(send(pair.left, "one", 3, 0), 3);
  CHECK_EQ(send(pair.left, "three", 5, 0), 5);
  close(pair.left);
  char buffer[32] = {};
  CHECK_EQ(recv(pair.right, buffer, 32, 0), 3);
  CHECK_EQ(recv(pair.right, buffer, 32, 0), 5);
  CHECK_EQ(recv(pair.right, buffer, 32, 0), 0);
}

TEST(closed_peer_is_end_and_epipe) {
  const Pair pair = make_pair(SOCK_STREAM);
  CHECK_EQ(write(pair.left, "last", 4), 4);
  close(pair.left);
  char buffer[8];
  CHECK_EQ(read(pair.right, buffer, 8), 4);
  CHECK_EQ(read(pair.right, buffer, 8), 0);
  CHECK_ERRNO(send(pair.right, "x", 1, MSG_NOSIGNAL), EPIPE);
  CHECK_EQ(death_of([&] { (void)!write(pair.right, "x", 1); }), SIGPIPE);
}

// How a server's thread is told to end: the others shut its listener down.
TEST(shutdown_of_a_listener_wakes_its_pollers) {
  const int listener = static_cast<int>(OPTIONAL(socket(AF_UNIX, SOCK_STREAM, 0)));
  const sockaddr_un address = address_of("listener");
  SYS(bind(listener, generic(address), sizeof address));
  SYS(listen(listener, 4));
  pollfd poller = {listener, POLLIN | POLLOUT | POLLRDHUP, 0};
  CHECK_EQ(poll(&poller, 1, 0), 0);
  const pid_t child = start_child([&] {
    sleep_ms(50);
    SYS(shutdown(listener, SHUT_RDWR));
  });
  CHECK_EQ(poll(&poller, 1, -1), 1);
  CHECK_EQ(poller.revents, POLLIN | POLLHUP | POLLRDHUP);
  CHECK_ERRNO(accept(listener, nullptr, nullptr), EINVAL);
  CHECK_EQ(wait_for(child), 0);
}

TEST(shut_down_datagram_sockets_hang_up) {
  const Pair pair = make_pair(SOCK_DGRAM);
  SYS(shutdown(pair.left, SHUT_RDWR));
  pollfd poller = {pair.left, POLLIN | POLLOUT | POLLRDHUP | POLLWRBAND, 0};
  CHECK_EQ(poll(&poller, 1, 0), 1);
  CHECK_EQ(poller.revents, POLLIN | POLLOUT | POLLHUP | POLLRDHUP | POLLWRBAND);
}

TEST(read_of_nothing_does_not_wait) {
  const Pair pair = make_pair(SOCK_DGRAM);
  CHECK_EQ(read(pair.left, nullptr, 0), 0);
  CHECK_EQ(readv(pair.left, nullptr, 0), 0);
  const int alone = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
  CHECK_EQ(read(alone, nullptr, 0), 0);
  CHECK_EQ(writev(alone, nullptr, 0), 0);
}

TEST(shutdown_closes_one_direction) {
  const Pair pair = make_pair(SOCK_STREAM);
  SYS(shutdown(pair.left, SHUT_WR));
  char byte;
  CHECK_EQ(read(pair.right, &byte, 1), 0);
  CHECK_EQ(write(pair.right, "x", 1), 1);
  CHECK_EQ(read(pair.left, &byte, 1), 1);
  CHECK_ERRNO(send(pair.left, "x", 1, MSG_NOSIGNAL), EPIPE);
  pollfd poller = {pair.right, POLLIN | POLLRDHUP, 0};
  CHECK_EQ(poll(&poller, 1, 0), 1);
  CHECK_EQ(poller.revents & (POLLIN | POLLRDHUP), POLLIN | POLLRDHUP);
}

TEST(much_data_flows) {
  const Pair pair = make_pair(SOCK_STREAM);
  constexpr size_t kTotal = 2 << 20;
  const pid_t child = start_child([&] {
    close(pair.right);
    static char block[8192];
    for (size_t sent = 0; sent < kTotal; sent += sizeof block) {
      memset(block, static_cast<int>(sent / sizeof block), sizeof block);
      size_t done = 0;
      while (done < sizeof block)
        done += static_cast<size_t>(SYS(write(pair.left, block + done, sizeof block - done)));
    }
  });
  close(pair.left);
  size_t total = 0;
  static char buffer[5000];
  for (ssize_t got; (got = read(pair.right, buffer, sizeof buffer)) > 0;)
    for (ssize_t i = 0; i < got; i++, total++)
      REQUIRE(buffer[i] == static_cast<char>(total / 8192));
  CHECK_EQ(total, kTotal);
  CHECK_EQ(wait_for(child), 0);
}

TEST(named_stream_socket) {
  const int server = listener("socket");
  struct stat status {};
  SYS(stat("socket", &status));
  CHECK(S_ISSOCK(status.st_mode));
  const pid_t child = start_child([] {
    const int fd = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
    const sockaddr_un address = address_of("socket");
    SYS(connect(fd, generic(address), sizeof address));
    CHECK_EQ(write(fd, "hello", 5), 5);
    char buffer[8] = {};
    CHECK_EQ(read(fd, buffer, 7), 3);
    CHECK_STR(buffer, "bye");
  });
  sockaddr_un peer{};
  socklen_t length = sizeof peer;
  const int fd = SYS(accept4(server, reinterpret_cast<sockaddr *>(&peer), &length, SOCK_CLOEXEC));
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  char buffer[8] = {};
  CHECK_EQ(read(fd, buffer, 7), 5);
  CHECK_EQ(write(fd, "bye", 3), 3);
  ucred credentials{};
  length = sizeof credentials;
  SYS(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length));
  CHECK_EQ(credentials.pid, child);
  CHECK_EQ(credentials.uid, geteuid());
  CHECK_EQ(wait_for(child), 0);
}

TEST(named_socket_errors) {
  const int server = listener("socket");
  const int fd = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
  const sockaddr_un address = address_of("socket"), missing = address_of("missing");
  CHECK_ERRNO(bind(fd, generic(address), sizeof address), EADDRINUSE);
  CHECK_ERRNO(connect(fd, generic(missing), sizeof missing), ENOENT);
  close(server);
  CHECK_ERRNO(connect(fd, generic(address), sizeof address), ECONNREFUSED);
  CHECK_ERRNO(open("socket", O_RDWR), ENXIO);
  CHECK_ERRNO(write(fd, "x", 1), ENOTCONN);
  CHECK_ERRNO(accept(fd, nullptr, nullptr), EINVAL);
  const int file = make_file("file");
  CHECK_ERRNO(listen(file, 1), ENOTSOCK);
  CHECK_ERRNO(socket(999, SOCK_STREAM, 0), EAFNOSUPPORT);
  CHECK_ERRNO(socketpair(AF_UNIX, 99, 0, nullptr), EINVAL);
}

TEST(named_datagram_socket) {
  const int server = listener("socket", SOCK_DGRAM);
  const int fd = listener("client", SOCK_DGRAM);
  const sockaddr_un address = address_of("socket");
  CHECK_EQ(sendto(fd, "ping", 4, 0, generic(address), sizeof address), 4);
  char buffer[8] = {};
  sockaddr_un from{};
  socklen_t length = sizeof from;
  CHECK_EQ(recvfrom(server, buffer, 8, 0, reinterpret_cast<sockaddr *>(&from), &length), 4);
  CHECK_STR(from.sun_path, "client");
  CHECK_EQ(sendto(server, "pong", 4, 0, generic(from), length), 4);
  CHECK_EQ(recv(fd, buffer, 8, 0), 4);
}

TEST(abstract_names_need_no_file) {
  const int server = static_cast<int>(OPTIONAL(socket(AF_UNIX, SOCK_STREAM, 0)));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path + 1, 60, "guest-test-%d", getpid());
  SYS(bind(server, generic(address), 40));
  SYS(listen(server, 1));
  const int fd = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
  SYS(connect(fd, generic(address), 40));
  sockaddr_un name{};
  socklen_t length = sizeof name;
  SYS(getpeername(fd, reinterpret_cast<sockaddr *>(&name), &length));
  CHECK_EQ(length, 40);
  CHECK(memcmp(&name, &address, 40) == 0);
}

bool try_send_descriptor(int through, int fd) {
  char byte = 'd';
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(through, &message, 0) == 1;
}

void send_descriptor(int through, int fd) { CHECK(try_send_descriptor(through, fd)); }

int receive_descriptor(int through, int flags = 0) {
  char byte = 0;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  CHECK_EQ(recvmsg(through, &message, flags), 1);
  const cmsghdr *header = CMSG_FIRSTHDR(&message);
  REQUIRE(header != nullptr && header->cmsg_type == SCM_RIGHTS);
  CHECK_EQ(header->cmsg_len, CMSG_LEN(sizeof(int)));
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

TEST(descriptors_travel) {
  const Pair pair = make_pair(SOCK_STREAM);
  const int file = make_file("file", "passed");
  send_descriptor(pair.left, file);
  close(file);  // it is on its way
  IN_CHILD([&] {
    const int fd = receive_descriptor(pair.right, MSG_CMSG_CLOEXEC);
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    char buffer[8] = {};
    CHECK_EQ(pread(fd, buffer, 7, 0), 6);
    CHECK_STR(buffer, "passed");
  });
}

TEST(undelivered_descriptors_are_closed) {
  const Pair pair = make_pair(SOCK_STREAM);
  int ends[2];
  SYS(pipe(ends));
  send_descriptor(pair.left, ends[1]);
  close(ends[1]);
  close(pair.left);
  close(pair.right);
  char byte;
  CHECK_EQ(read(ends[0], &byte, 1), 0);  // the only writer went with the message
}

TEST(sockets_in_the_queues_of_sockets_end_together) {
  // Each pair's left end waits in the queue of the next one: closing the last ends them all.
  int inner = -1;
  for (int depth = 0; depth < 3000; ++depth) {
    const Pair pair = make_pair(SOCK_STREAM);
    if (inner >= 0) {
      if (!try_send_descriptor(pair.left, inner)) {
        CHECK(errno == ETOOMANYREFS);  // Linux has a limit of its own
        close(pair.left);
        close(pair.right);
        break;
      }
      close(inner);
    }
    close(pair.left);
    inner = pair.right;
  }
  close(inner);
  const Pair pair = make_pair(SOCK_STREAM);
  CHECK_EQ(send(pair.left, "x", 1, 0), 1);
}

TEST(empty_messages_fill_a_queue) {
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    const Pair pair = make_pair(type);
    int sent = 0;
    while (sent < 100000 && send(pair.left, "", 0, MSG_DONTWAIT) == 0) ++sent;
    CHECK(sent > 0 && sent < 100000);
    CHECK_EQ(errno, EAGAIN);
  }
}

TEST(credentials_travel) {
  const Pair pair = make_pair(SOCK_DGRAM);
  const int on = 1;
  SYS(setsockopt(pair.right, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
  CHECK_EQ(send(pair.left, "x", 1, 0), 1);
  char byte;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  CHECK_EQ(recvmsg(pair.right, &message, 0), 1);
  const cmsghdr *header = CMSG_FIRSTHDR(&message);
  REQUIRE(header != nullptr && header->cmsg_type == SCM_CREDENTIALS);
  ucred credentials{};
  memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
  CHECK_EQ(credentials.pid, getpid());
  CHECK_EQ(credentials.uid, getuid());
}

TEST(socket_options) {
  const Pair pair = make_pair(SOCK_SEQPACKET);
  int value = 0;
  socklen_t length = sizeof value;
  SYS(getsockopt(pair.left, SOL_SOCKET, SO_TYPE, &value, &length));
  CHECK_EQ(value, SOCK_SEQPACKET);
  SYS(getsockopt(pair.left, SOL_SOCKET, SO_ERROR, &value, &length));
  CHECK_EQ(value, 0);
  const timeval shortly{0, 40'000};
  SYS(setsockopt(pair.left, SOL_SOCKET, SO_RCVTIMEO, &shortly, sizeof shortly));
  char byte;
  const uint64_t start = now_ns();
  CHECK_ERRNO(recv(pair.left, &byte, 1, 0), EAGAIN);
  CHECK(now_ns() - start >= 39'000'000);
}

}  // namespace

TAP_MAIN()
