// What local sockets have beside plain transfers: out-of-band data, peeking at an offset, time
// stamps, forced buffer sizes, and who the peer is.
#include <grp.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <string>
#include <vector>

#include "tap.hpp"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace {

struct Pair {
  int left, right;
};

Pair make_pair(int type) {
  int ends[2];
  SYS(socketpair(AF_UNIX, type, 0, ends));
  return {ends[0], ends[1]};
}

int get(int fd, int option) {
  int value = -1000;
  socklen_t length = sizeof value;
  SYS(getsockopt(fd, SOL_SOCKET, option, &value, &length));
  return value;
}

int set(int fd, int option, int value) {
  return setsockopt(fd, SOL_SOCKET, option, &value, sizeof value);
}

// What a receive gives that does not wait; "-" and the name of the error when it fails.
std::string receive(int fd, int flags, size_t most = 16) {
  char buffer[17];
  const ssize_t got = recv(fd, buffer, most, flags | MSG_DONTWAIT);
  return got < 0 ? "-" + std::string(strerrorname_np(errno))
                 : std::string(buffer, static_cast<size_t>(got));
}
#define RECEIVES(wanted, ...) CHECK_STR(receive(__VA_ARGS__).c_str(), wanted)

bool at_mark(int fd) {
  int mark = -1;
  SYS(ioctl(fd, SIOCATMARK, &mark));
  return mark == 1;
}

int events(int fd) {
  pollfd entry{fd, POLLIN | POLLPRI, 0};
  SYS(poll(&entry, 1, 0));
  return entry.revents;
}

// Sends with MSG_OOB; Linux before 5.15, or without CONFIG_AF_UNIX_OOB, cannot.
void send_urgent(int fd, const char *text) {
  const ssize_t sent = send(fd, text, strlen(text), MSG_OOB);
  if (sent < 0 && errno == EOPNOTSUPP) SKIP("local sockets without MSG_OOB");
  CHECK_EQ(sent, strlen(text));
}

TEST(out_of_band_data_is_beside_the_stream) {
  const Pair pair = make_pair(SOCK_STREAM);
  send_urgent(pair.left, "abcX");
  CHECK_EQ(events(pair.right), POLLIN | POLLPRI);
  RECEIVES("X", pair.right, MSG_OOB | MSG_PEEK);
  RECEIVES("X", pair.right, MSG_OOB);
  RECEIVES("-EINVAL", pair.right, MSG_OOB);
  CHECK_EQ(events(pair.right), POLLIN);
  RECEIVES("abc", pair.right, 0);
  RECEIVES("-EAGAIN", pair.right, 0);
}

TEST(a_read_stops_at_the_mark_and_then_passes_it) {
  const Pair pair = make_pair(SOCK_STREAM);
  send_urgent(pair.left, "ab");
  CHECK_EQ(send(pair.left, "cd", 2, 0), 2);
  CHECK(!at_mark(pair.right));
  RECEIVES("a", pair.right, 0);
  CHECK(at_mark(pair.right));
  RECEIVES("cd", pair.right, 0);
  CHECK(!at_mark(pair.right));
  RECEIVES("-EINVAL", pair.right, MSG_OOB);
}

TEST(later_out_of_band_data_takes_the_place_of_earlier) {
  const Pair pair = make_pair(SOCK_STREAM);
  send_urgent(pair.left, "ab");
  send_urgent(pair.left, "cd");
  RECEIVES("abc", pair.right, 0);
  RECEIVES("d", pair.right, MSG_OOB);
  RECEIVES("-EAGAIN", pair.right, 0);
}

TEST(out_of_band_data_may_stay_in_the_stream) {
  const Pair pair = make_pair(SOCK_STREAM);
  SYS(set(pair.right, SO_OOBINLINE, 1));
  send_urgent(pair.left, "ab");
  CHECK_EQ(send(pair.left, "cd", 2, 0), 2);
  RECEIVES("-EINVAL", pair.right, MSG_OOB);
  RECEIVES("a", pair.right, 0);
  CHECK(at_mark(pair.right));
  RECEIVES("bcd", pair.right, 0);
}

volatile sig_atomic_t urgent_code;
void note_urgent(int, siginfo_t *info, void *) { urgent_code = info->si_code; }

TEST(out_of_band_data_sends_sigurg_to_the_owner) {
  const Pair pair = make_pair(SOCK_STREAM);
  struct sigaction action {};
  action.sa_sigaction = note_urgent;
  action.sa_flags = SA_SIGINFO;
  SYS(sigaction(SIGURG, &action, nullptr));
  send_urgent(pair.left, "x");
  CHECK_EQ(urgent_code, 0);
  SYS(fcntl(pair.right, F_SETOWN, getpid()));
  send_urgent(pair.left, "x");
  CHECK_EQ(urgent_code, SI_KERNEL);
}

TEST(out_of_band_data_is_for_streams) {
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    const Pair pair = make_pair(type);
    CHECK_ERRNO(send(pair.left, "x", 1, MSG_OOB), EOPNOTSUPP);
    RECEIVES("-EOPNOTSUPP", pair.right, MSG_OOB);
  }
  const Pair pair = make_pair(SOCK_STREAM);
  CHECK_ERRNO(send(pair.left, "", 0, MSG_OOB), EOPNOTSUPP);
}

TEST(peeking_at_an_offset_of_a_stream) {
  const Pair pair = make_pair(SOCK_STREAM);
  CHECK_EQ(get(pair.right, SO_PEEK_OFF), -1);
  SYS(set(pair.right, SO_PEEK_OFF, 1));
  CHECK_EQ(write(pair.left, "abc", 3), 3);
  CHECK_EQ(write(pair.left, "def", 3), 3);
  RECEIVES("b", pair.right, MSG_PEEK, 1);
  RECEIVES("cd", pair.right, MSG_PEEK, 2);
  CHECK_EQ(get(pair.right, SO_PEEK_OFF), 4);
  RECEIVES("a", pair.right, 0, 1);
  CHECK_EQ(get(pair.right, SO_PEEK_OFF), 3);
  RECEIVES("ef", pair.right, MSG_PEEK);
  RECEIVES("-EAGAIN", pair.right, MSG_PEEK);
  CHECK_EQ(write(pair.left, "gh", 2), 2);
  RECEIVES("gh", pair.right, MSG_PEEK);
  RECEIVES("bcdefgh", pair.right, 0);
  CHECK_EQ(get(pair.right, SO_PEEK_OFF), 0);
  SYS(set(pair.right, SO_PEEK_OFF, -1));
  CHECK_EQ(write(pair.left, "ij", 2), 2);
  RECEIVES("ij", pair.right, MSG_PEEK);
  RECEIVES("ij", pair.right, MSG_PEEK);
}

TEST(a_peek_at_an_offset_waits_for_what_comes) {
  const Pair pair = make_pair(SOCK_STREAM);
  SYS(set(pair.right, SO_PEEK_OFF, 2));
  CHECK_EQ(write(pair.left, "ab", 2), 2);
  const pid_t writer = start_child([&] {
    sleep_ms(50);
    CHECK_EQ(write(pair.left, "cd", 2), 2);
  });
  char buffer[4] = {};
  CHECK_EQ(recv(pair.right, buffer, 4, MSG_PEEK), 2);
  CHECK_STR(std::string(buffer, 2).c_str(), "cd");
  CHECK_EQ(wait_for(writer), 0);
}

TEST(peeking_at_an_offset_of_messages) {
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    const Pair pair = make_pair(type);
    SYS(set(pair.right, SO_PEEK_OFF, 0));
    CHECK_EQ(write(pair.left, "abcd", 4), 4);
    CHECK_EQ(write(pair.left, "efgh", 4), 4);
    RECEIVES("ab", pair.right, MSG_PEEK, 2);
    RECEIVES("cd", pair.right, MSG_PEEK);
    RECEIVES("efgh", pair.right, MSG_PEEK);
    RECEIVES("-EAGAIN", pair.right, MSG_PEEK);
    RECEIVES("abcd", pair.right, 0);
    CHECK_EQ(get(pair.right, SO_PEEK_OFF), 4);
    RECEIVES("efgh", pair.right, 0);
    CHECK_EQ(get(pair.right, SO_PEEK_OFF), 0);
  }
}

// The kind of time stamp that came with a message, and how far it lies between `from` and now.
int stamp_of(int fd, const timespec &from) {
  char byte, control[128];
  iovec place{&byte, 1};
  msghdr message{};
  message.msg_iov = &place, message.msg_iovlen = 1;
  message.msg_control = control, message.msg_controllen = sizeof control;
  CHECK_EQ(recvmsg(fd, &message, MSG_DONTWAIT), 1);
  CHECK_EQ(message.msg_flags, 0);  // no MSG_EOR of sequenced packets either
  const cmsghdr *stamp = CMSG_FIRSTHDR(&message);
  if (!stamp) return 0;
  CHECK_EQ(stamp->cmsg_level, SOL_SOCKET);
  CHECK_EQ(stamp->cmsg_len, CMSG_LEN(16));
  long time[2];
  memcpy(time, CMSG_DATA(stamp), sizeof time);
  timespec now{};
  SYS(clock_gettime(CLOCK_REALTIME, &now));
  CHECK(time[0] >= from.tv_sec && time[0] <= now.tv_sec);
  CHECK(time[1] >= 0 && time[1] < (stamp->cmsg_type == SO_TIMESTAMPNS ? 1000000000 : 1000000));
  return stamp->cmsg_type;
}

TEST(messages_carry_the_time_when_it_is_wanted) {
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM}) {
    const Pair pair = make_pair(type);
    timespec start{};
    SYS(clock_gettime(CLOCK_REALTIME, &start));
    for (const int option : {0, SO_TIMESTAMP, SO_TIMESTAMPNS}) {
      if (option) SYS(set(pair.right, option, 1));
      CHECK_EQ(write(pair.left, "x", 1), 1);
      CHECK_EQ(stamp_of(pair.right, start), type == SOCK_STREAM ? 0 : option);
    }
    CHECK_EQ(get(pair.right, SO_TIMESTAMP), 0);
    CHECK_EQ(get(pair.right, SO_TIMESTAMPNS), 1);
    SYS(set(pair.right, SO_TIMESTAMPNS, 0));
    CHECK_EQ(get(pair.right, SO_TIMESTAMPNS), 0);
  }
}

TEST(buffer_sizes_can_be_forced_by_the_administrator) {
  need_root();
  const Pair pair = make_pair(SOCK_STREAM);
  SYS(set(pair.left, SO_RCVBUFFORCE, 10000000));
  CHECK_EQ(get(pair.left, SO_RCVBUF), 20000000);
  SYS(set(pair.left, SO_SNDBUFFORCE, 10000000));
  CHECK_EQ(get(pair.left, SO_SNDBUF), 20000000);
  SYS(set(pair.left, SO_RCVBUF, 10000000));
  CHECK(get(pair.left, SO_RCVBUF) < 20000000);
  IN_CHILD([&] {
    SYS(setresuid(1000, 1000, 1000));
    CHECK_ERRNO(set(pair.left, SO_RCVBUFFORCE, 4096), EPERM);
    CHECK_ERRNO(set(pair.left, SO_SNDBUFFORCE, 4096), EPERM);
    SYS(set(pair.left, SO_SNDBUF, 4096));
    CHECK_EQ(get(pair.left, SO_SNDBUF), 8192);
  });
}

// A connection through a listener that a child has made; gives its end and the child's.
struct Connection {
  int client, server;
};
Connection connect_to_listener() {
  const int listener = static_cast<int>(SYS(socket(AF_UNIX, SOCK_STREAM, 0)));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  SYS(bind(listener, reinterpret_cast<sockaddr *>(&address), sizeof(sa_family_t)));
  socklen_t length = sizeof address;
  SYS(getsockname(listener, reinterpret_cast<sockaddr *>(&address), &length));
  SYS(listen(listener, 1));
  const int client = static_cast<int>(SYS(socket(AF_UNIX, SOCK_STREAM, 0)));
  SYS(connect(client, reinterpret_cast<sockaddr *>(&address), length));
  return {client, static_cast<int>(SYS(accept(listener, nullptr, nullptr)))};
}

TEST(the_groups_of_the_peer) {
  need_root();
  IN_CHILD([] {
    const gid_t groups[] = {7, 100, 2000};
    SYS(setgroups(3, groups));
    const Connection connection = connect_to_listener();
    SYS(setgroups(0, nullptr));
    for (const int fd : {connection.client, connection.server}) {
      gid_t got[8] = {};
      socklen_t length = 4;
      CHECK_ERRNO(getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, got, &length), ERANGE);
      CHECK_EQ(length, sizeof groups);
      length = sizeof got;
      SYS(getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, got, &length));
      CHECK_EQ(length, sizeof groups);
      CHECK_EQ(memcmp(got, groups, sizeof groups), 0);
    }
    gid_t got[8];
    socklen_t length = sizeof got;
    const int alone = static_cast<int>(SYS(socket(AF_UNIX, SOCK_STREAM, 0)));
    CHECK_ERRNO(getsockopt(alone, SOL_SOCKET, SO_PEERGROUPS, got, &length), ENODATA);
  });
}

TEST(a_descriptor_of_the_peers_process) {
  const Pair pair = make_pair(SOCK_STREAM);
  int fd = -1;
  socklen_t length = sizeof fd;
  if (getsockopt(pair.left, SOL_SOCKET, SO_PEERPIDFD, &fd, &length) < 0 && errno == ENOPROTOOPT)
    SKIP("no SO_PEERPIDFD");
  CHECK_EQ(length, sizeof fd);
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0), 0);
  const int alone = static_cast<int>(SYS(socket(AF_UNIX, SOCK_STREAM, 0)));
  CHECK_ERRNO(getsockopt(alone, SOL_SOCKET, SO_PEERPIDFD, &fd, &length), ENODATA);
  // It is the process that connected, whoever has the socket now.
  int ends[2];
  SYS(pipe(ends));
  const pid_t maker = start_child([&] {
    int made[2];
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, made));
    char byte = 'f';
    iovec place{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &place, message.msg_iovlen = 1;
    message.msg_control = control, message.msg_controllen = sizeof control;
    cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET, rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &made[0], sizeof(int));
    CHECK_EQ(sendmsg(pair.right, &message, 0), 1);
    close(ends[1]);
    CHECK_EQ(read(ends[0], &byte, 1), 0);
  });
  close(ends[0]);
  char byte;
  iovec place{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &place, message.msg_iovlen = 1;
  message.msg_control = control, message.msg_controllen = sizeof control;
  CHECK_EQ(recvmsg(pair.left, &message, 0), 1);
  int received = -1;
  memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof received);
  length = sizeof fd;
  SYS(getsockopt(received, SOL_SOCKET, SO_PEERPIDFD, &fd, &length));
  pollfd ended{fd, POLLIN, 0};
  CHECK_EQ(poll(&ended, 1, 0), 0);
  close(ends[1]);
  CHECK_EQ(poll(&ended, 1, -1), 1);
  CHECK_EQ(wait_for(maker), 0);
}

}  // namespace

TAP_MAIN()
