// The system calls of sockets: socket(2), bind(2), send(2), recv(2) and their relatives.
#include <algorithm>
#include <cstring>

#include "abi/fcntl.hpp"
#include "abi/socket.hpp"
#include "abi/uio.hpp"
#include "net/socket.hpp"
#include "proc/proc_internal.hpp"
#include "proc/task.hpp"
#include "sched/clock.hpp"
#include "syscall/syscall.hpp"

namespace cowbird {

using namespace abi;

namespace {

constexpr std::uint64_t kMaxIovecs = 1024;    // UIO_MAXIOV
constexpr std::uint64_t kMaxControl = 65536;  // bound on ancillary data of one message
constexpr std::size_t kMaxRights = 253;       // SCM_MAX_FD
constexpr std::uint64_t kMaxMessage = 0x7ffff000;

std::size_t align8(std::size_t n) { return (n + 7) & ~std::size_t{7}; }

Result<Ref<Socket>> socket_of(Task &task, int fd) {
  Ref<File> file = TRY(task.files->get(fd));
  auto *socket = dynamic_cast<Socket *>(file.get());
  if (socket == nullptr) return Err(Errno::NotSock);
  return Ref<Socket>(socket);
}

SysResult install(Task &task, Ref<File> file, int flags) {
  return std::int64_t{TRY(task.files->install(std::move(file), (flags & kSOCK_CLOEXEC) != 0,
                                              task.process->limit(Limit::NoFile)))};
}

Result<SocketAddress> read_address(std::uint64_t address, std::int32_t length) {
  if (length < 0 || static_cast<std::size_t>(length) > kSockaddrMax) return Err(Errno::Inval);
  SocketAddress text(static_cast<std::size_t>(length), '\0');
  TRY(copy_in(text.data(), address, text.size()));
  return text;
}

// As Linux's move_addr_to_user: what fits, and the true length.
Result<void> write_address(const SocketAddress &text, std::uint64_t address,
                           std::uint64_t length_at) {
  const std::int32_t room = TRY(UserPtr<std::int32_t>(length_at).read());
  if (room < 0) return Err(Errno::Inval);
  const std::size_t bytes = std::min<std::size_t>(text.size(), static_cast<std::size_t>(room));
  TRY(copy_out(address, text.data(), bytes));
  return UserPtr<std::int32_t>(length_at).write(static_cast<std::int32_t>(text.size()));
}

Result<IovIter> read_iovecs(std::uint64_t address, std::uint64_t count) {
  if (count > kMaxIovecs) return Err(Errno::MsgSize);
  const auto vectors = TRY(UserPtr<IovIter::Segment>(address).read_array(count));
  std::vector<IovIter::Segment> segments;
  std::uint64_t total = 0;
  for (IovIter::Segment segment : vectors) {
    if (static_cast<std::int64_t>(segment.length) < 0) return Err(Errno::Inval);
    segment.length = std::min(segment.length, kMaxMessage - total);
    total += segment.length;
    segments.push_back(segment);
  }
  return IovIter::user(std::move(segments));
}

// --- ancillary data

Result<void> parse_rights(Task &task, std::string_view data, Ancillary &out) {
  const std::size_t count = data.size() / sizeof(std::int32_t);
  if (out.files.size() + count > kMaxRights) return Err(Errno::Inval);
  for (std::size_t i = 0; i < count; ++i) {
    std::int32_t fd = 0;
    std::memcpy(&fd, data.data() + i * sizeof(fd), sizeof(fd));
    out.files.push_back(TRY(task.files->get(fd, true)));
  }
  return {};
}

Result<void> parse_credentials(const Task &task, std::string_view data, Ancillary &out) {
  Ucred cred{};
  if (data.size() != sizeof(cred)) return Err(Errno::Inval);
  std::memcpy(&cred, data.data(), sizeof(cred));
  const Credentials &own = task.credentials;
  const bool pid_ok = cred.pid == task.process->pid || own.capable(Capability::SysAdmin);
  const bool uid_ok = cred.uid == own.uid || cred.uid == own.euid || cred.uid == own.suid ||
                      own.capable(Capability::SetUid);
  const bool gid_ok = cred.gid == own.gid || cred.gid == own.egid || cred.gid == own.sgid ||
                      own.capable(Capability::SetGid);
  if (!pid_ok || !uid_ok || !gid_ok) return Err(Errno::Perm);
  if (!find_process(cred.pid)) return Err(Errno::Srch);
  out.credentials = cred;
  return {};
}

Result<Ancillary> read_control(Task &task, const Msghdr &header) {
  Ancillary out;
  if (header.control_length == 0 || header.control == 0) return out;
  if (header.control_length > kMaxControl) return Err(Errno::NoBufs);
  std::string control(header.control_length, '\0');
  TRY(copy_in(control.data(), header.control, control.size()));
  for (std::size_t at = 0; at + sizeof(Cmsghdr) <= control.size();) {
    Cmsghdr cmsg{};
    std::memcpy(&cmsg, control.data() + at, sizeof(cmsg));
    if (cmsg.length < sizeof(Cmsghdr) || cmsg.length > control.size() - at)
      return Err(Errno::Inval);
    const std::string_view data =
        std::string_view(control).substr(at + sizeof(Cmsghdr), cmsg.length - sizeof(Cmsghdr));
    if (cmsg.level == kSOL_SOCKET) {
      if (cmsg.type == kSCM_RIGHTS) {
        TRY(parse_rights(task, data, out));
      } else if (cmsg.type == kSCM_CREDENTIALS) {
        TRY(parse_credentials(task, data, out));
      } else {
        return Err(Errno::Inval);
      }
    }
    at += align8(cmsg.length);
  }
  return out;
}

// Writes one control message; false when there is no room for it (it is cut off or left out).
bool append_control(std::string &out, std::size_t room, int type, std::string_view data) {
  const std::size_t length = sizeof(Cmsghdr) + data.size();
  if (out.size() + length > room) return false;
  const Cmsghdr cmsg{length, kSOL_SOCKET, type};
  out.append(reinterpret_cast<const char *>(&cmsg), sizeof(cmsg));
  out.append(data);
  out.resize(std::min(align8(out.size()), room), '\0');
  return true;
}

// Installs as many descriptors as the guest has room for; the rest are closed (MSG_CTRUNC).
std::string install_rights(Task &task, std::vector<Ref<File>> &files, std::size_t most,
                           bool close_on_exec, bool &truncated) {
  std::string numbers;
  for (Ref<File> &file : files) {
    if (numbers.size() / sizeof(std::int32_t) == most) {
      truncated = true;
      break;
    }
    const auto fd =
        task.files->install(std::move(file), close_on_exec, task.process->limit(Limit::NoFile));
    if (!fd) {
      truncated = true;
      break;
    }
    const std::int32_t number = *fd;
    numbers.append(reinterpret_cast<const char *>(&number), sizeof(number));
  }
  return numbers;
}

Result<void> write_control(Task &task, const Socket &socket, ReceiveRequest &request,
                           Msghdr &header) {
  const std::size_t room = header.control ? std::min(header.control_length, kMaxControl) : 0;
  std::string out;
  bool truncated = false;
  if (request.ancillary.credentials) {
    const std::string_view cred(reinterpret_cast<const char *>(&*request.ancillary.credentials),
                                sizeof(Ucred));
    truncated = !append_control(out, room, kSCM_CREDENTIALS, cred);
  }
  if (request.ancillary.sent_ns) {
    const bool nano = socket.stamps() == Socket::Stamps::Nano;
    const std::int64_t ns = *request.ancillary.sent_ns % kNsPerSec;
    const std::int64_t time[2] = {*request.ancillary.sent_ns / kNsPerSec,
                                  nano ? ns : ns / kNsPerUs};
    const std::string_view data(reinterpret_cast<const char *>(time), sizeof(time));
    truncated |= !append_control(out, room, nano ? kSCM_TIMESTAMPNS : kSCM_TIMESTAMP, data);
  }
  if (!request.ancillary.files.empty()) {
    const std::size_t space =
        room > out.size() + sizeof(Cmsghdr) ? room - out.size() - sizeof(Cmsghdr) : 0;
    const std::string numbers =
        install_rights(task, request.ancillary.files, space / sizeof(std::int32_t),
                       (request.flags & kMSG_CMSG_CLOEXEC) != 0, truncated);
    if (!numbers.empty()) append_control(out, room, kSCM_RIGHTS, numbers);
  }
  if (truncated) request.out_flags |= kMSG_CTRUNC;
  if (!out.empty()) TRY(copy_out(header.control, out.data(), out.size()));
  header.control_length = out.size();
  return {};
}

SysResult send_message(Task &task, Socket &socket, std::uint64_t address, std::uint32_t flags) {
  const Msghdr header = TRY(UserPtr<Msghdr>(address).read());
  SocketAddress to;
  if (header.name != 0 && header.name_length != 0) {
    to = TRY(read_address(header.name, static_cast<std::int32_t>(header.name_length)));
  }
  IovIter data = TRY(read_iovecs(header.iov, header.iov_count));
  SendRequest request{.data = data,
                      .to = to.empty() ? nullptr : &to,
                      .ancillary = TRY(read_control(task, header)),
                      .flags = flags};
  return static_cast<std::int64_t>(TRY(socket.send(request)));
}

SysResult receive_message(Task &task, Socket &socket, std::uint64_t address, std::uint32_t flags) {
  Msghdr header = TRY(UserPtr<Msghdr>(address).read());
  IovIter data = TRY(read_iovecs(header.iov, header.iov_count));
  ReceiveRequest request{.data = data, .flags = flags, .from = {}, .ancillary = {}};
  const std::uint64_t got = TRY(socket.receive(request));
  if (header.name != 0) {
    const std::size_t bytes = std::min<std::size_t>(request.from.size(), header.name_length);
    TRY(copy_out(header.name, request.from.data(), bytes));
    header.name_length = static_cast<std::uint32_t>(request.from.size());
  }
  TRY(write_control(task, socket, request, header));
  header.flags = request.out_flags | (flags & kMSG_CMSG_CLOEXEC);
  TRY(UserPtr<Msghdr>(address).write(header));
  const bool true_length = (flags & kMSG_TRUNC) && (request.out_flags & kMSG_TRUNC);
  return static_cast<std::int64_t>(true_length ? request.full_length : got);
}

// The supplementary groups of the peer; Range, and how long the list is, when there is no room.
SysResult peer_groups(const Socket &socket, std::uint64_t to, UserPtr<std::int32_t> length,
                      std::int32_t room) {
  const Socket::Peer *peer = socket.peer();
  if (!peer) return Err(Errno::NoData);
  const std::size_t bytes = peer->groups.size() * sizeof(std::uint32_t);
  const bool fits = bytes <= static_cast<std::size_t>(room);
  const std::vector<std::uint32_t> groups = peer->groups;
  if (fits) TRY(copy_out(to, groups.data(), bytes));
  TRY(length.write(static_cast<std::int32_t>(bytes)));
  return fits ? SysResult(0) : SysResult(Err(Errno::Range));
}

// A descriptor of the peer's process.
SysResult peer_pidfd(Task &task, const Socket &socket, std::uint64_t to,
                     UserPtr<std::int32_t> length, std::int32_t room) {
  const Socket::Peer *peer = socket.peer();
  if (!peer) return Err(Errno::NoData);
  // One that was reaped has no number that a descriptor could stand for.
  if (find_process(peer->process->pid) != peer->process) return Err(Errno::Inval);
  const int fd = TRY(task.files->install(make_pidfd(peer->process, kO_RDWR), true,
                                         task.process->limit(Limit::NoFile)));
  const std::int32_t number = fd;
  const std::size_t bytes = std::min<std::size_t>(sizeof(number), static_cast<std::size_t>(room));
  Result<void> written = length.write(static_cast<std::int32_t>(bytes));
  if (written) written = copy_out(to, &number, bytes);
  if (!written) {
    (void)task.files->close(fd, task);
    return Err(written.error());
  }
  return 0;
}

}  // namespace

SysResult sys_socket(Task &task, const SysArgs &args) {
  const int type = args.s32(1) & kSOCK_TYPE_MASK, flags = args.s32(1) & ~kSOCK_TYPE_MASK;
  if (flags & ~(kSOCK_CLOEXEC | kSOCK_NONBLOCK)) return Err(Errno::Inval);
  const SocketFamily *family = TRY(find_socket_family(args.s32(0)));
  Ref<Socket> socket = TRY(family->create(type, args.s32(2), static_cast<std::uint32_t>(flags)));
  return install(task, std::move(socket), flags);
}

SysResult sys_socketpair(Task &task, const SysArgs &args) {
  const int type = args.s32(1) & kSOCK_TYPE_MASK, flags = args.s32(1) & ~kSOCK_TYPE_MASK;
  if (flags & ~(kSOCK_CLOEXEC | kSOCK_NONBLOCK)) return Err(Errno::Inval);
  const SocketFamily *family = TRY(find_socket_family(args.s32(0)));
  if (!family->create_pair) return Err(Errno::OpNotSupp);
  auto pair = TRY(family->create_pair(type, args.s32(2), static_cast<std::uint32_t>(flags)));
  std::int32_t fds[2];
  fds[0] = static_cast<std::int32_t>(TRY(install(task, std::move(pair.first), flags)));
  const auto second = install(task, std::move(pair.second), flags);
  if (!second) {
    TRY(task.files->close(fds[0], task));
    return Err(second.error());
  }
  fds[1] = static_cast<std::int32_t>(*second);
  if (const auto copied = copy_out(args.u64(3), fds, sizeof(fds)); !copied) {
    TRY(task.files->close(fds[0], task));
    TRY(task.files->close(fds[1], task));
    return Err(copied.error());
  }
  return std::int64_t{0};
}

SysResult sys_bind(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  TRY(socket->bind(TRY(read_address(args.u64(1), args.s32(2)))));
  return std::int64_t{0};
}

SysResult sys_connect(Task &task, const SysArgs &args) {
  // The address is looked at before what the descriptor is.
  TRY(task.files->get(args.fd(0)));
  const SocketAddress address = TRY(read_address(args.u64(1), args.s32(2)));
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  TRY(socket->connect(address));
  return std::int64_t{0};
}

SysResult sys_listen(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  TRY(socket->listen(args.s32(1)));
  return std::int64_t{0};
}

SysResult sys_accept4(Task &task, const SysArgs &args) {
  const int flags = args.s32(3);
  TRY(task.files->get(args.fd(0)));
  if (flags & ~(kSOCK_CLOEXEC | kSOCK_NONBLOCK)) return Err(Errno::Inval);
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  // Before a connection is taken, which would be lost.
  TRY(task.files->check_room(task.process->limit(Limit::NoFile)));
  Ref<Socket> connection = TRY(socket->accept(static_cast<std::uint32_t>(flags)));
  if (args.u64(1) != 0) {
    const auto peer = connection->peer_address();
    TRY(write_address(peer ? *peer : SocketAddress(2, '\1'), args.u64(1), args.u64(2)));
  }
  return install(task, std::move(connection), flags);
}

SysResult sys_accept(Task &task, const SysArgs &args) {
  SysArgs with_flags = args;
  with_flags.value[3] = 0;
  return sys_accept4(task, with_flags);
}

SysResult sys_getsockname(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  TRY(write_address(TRY(socket->local_address()), args.u64(1), args.u64(2)));
  return std::int64_t{0};
}

SysResult sys_getpeername(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  TRY(write_address(TRY(socket->peer_address()), args.u64(1), args.u64(2)));
  return std::int64_t{0};
}

SysResult sys_sendto(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  SocketAddress to;
  if (args.u64(4) != 0) to = TRY(read_address(args.u64(4), args.s32(5)));
  IovIter data = IovIter::user(args.u64(1), std::min(args.u64(2), kMaxMessage));
  SendRequest request{
      .data = data, .to = to.empty() ? nullptr : &to, .ancillary = {}, .flags = args.u32(3)};
  return static_cast<std::int64_t>(TRY(socket->send(request)));
}

SysResult sys_recvfrom(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  IovIter data = IovIter::user(args.u64(1), std::min(args.u64(2), kMaxMessage));
  ReceiveRequest request{.data = data, .flags = args.u32(3), .from = {}, .ancillary = {}};
  const std::uint64_t got = TRY(socket->receive(request));
  if (args.u64(4) != 0) TRY(write_address(request.from, args.u64(4), args.u64(5)));
  const bool true_length = (args.u32(3) & kMSG_TRUNC) && (request.out_flags & kMSG_TRUNC);
  return static_cast<std::int64_t>(true_length ? request.full_length : got);
}

SysResult sys_sendmsg(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  return send_message(task, *socket, args.u64(1), args.u32(2));
}

SysResult sys_recvmsg(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  return receive_message(task, *socket, args.u64(1), args.u32(2));
}

SysResult sys_sendmmsg(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  const std::uint64_t count = std::min<std::uint64_t>(args.u32(2), kMaxIovecs);
  std::int64_t done = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t at = args.u64(1) + i * sizeof(Mmsghdr);
    const auto sent = send_message(task, *socket, at, args.u32(3));
    if (!sent) return done > 0 ? SysResult(done) : Err(sent.error());
    TRY(UserPtr<std::uint32_t>(at + offsetof(Mmsghdr, length))
            .write(static_cast<std::uint32_t>(*sent)));
    ++done;
  }
  return done;
}

SysResult sys_recvmmsg(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  const std::uint64_t count = std::min<std::uint64_t>(args.u32(2), kMaxIovecs);
  std::int64_t deadline = kNoDeadline;
  if (args.u64(4) != 0) {
    const auto timeout = TRY(UserPtr<Timespec>(args.u64(4)).read());
    if (timeout.sec < 0 || timeout.nsec < 0 || timeout.nsec >= kNsPerSec) return Err(Errno::Inval);
    if (timeout.sec < INT64_MAX / kNsPerSec / 2) {
      deadline = clock::monotonic_ns() + timeout.sec * kNsPerSec + timeout.nsec;
    }
  }
  std::uint32_t flags = args.u32(3);
  std::int64_t done = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t at = args.u64(1) + i * sizeof(Mmsghdr);
    const auto got = receive_message(task, *socket, at, flags & ~kMSG_WAITFORONE);
    if (!got) return done > 0 ? SysResult(done) : Err(got.error());
    TRY(UserPtr<std::uint32_t>(at + offsetof(Mmsghdr, length))
            .write(static_cast<std::uint32_t>(*got)));
    ++done;
    if (flags & kMSG_WAITFORONE) flags |= kMSG_DONTWAIT;
    // recvmmsg(2): the timeout is looked at after each message only.
    if (clock::monotonic_ns() >= deadline) break;
  }
  return done;
}

SysResult sys_shutdown(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  if (args.s32(1) < kSHUT_RD || args.s32(1) > kSHUT_RDWR) return Err(Errno::Inval);
  TRY(socket->shutdown(args.s32(1)));
  return std::int64_t{0};
}

SysResult sys_setsockopt(Task &task, const SysArgs &args) {
  constexpr std::int32_t kMaxOption = 4096;
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  if (args.s32(4) < 0 || args.s32(4) > kMaxOption) return Err(Errno::Inval);
  std::string value(static_cast<std::size_t>(args.s32(4)), '\0');
  TRY(copy_in(value.data(), args.u64(3), value.size()));
  TRY(socket->set_option(args.s32(1), args.s32(2), value));
  return std::int64_t{0};
}

SysResult sys_getsockopt(Task &task, const SysArgs &args) {
  Ref<Socket> socket = TRY(socket_of(task, args.fd(0)));
  const auto length = args.ptr<std::int32_t>(4);
  const std::int32_t room = TRY(length.read());
  if (room < 0) return Err(Errno::Inval);
  if (args.s32(1) == kSOL_SOCKET && args.s32(2) == kSO_PEERGROUPS)
    return peer_groups(*socket, args.u64(3), length, room);
  if (args.s32(1) == kSOL_SOCKET && args.s32(2) == kSO_PEERPIDFD)
    return peer_pidfd(task, *socket, args.u64(3), length, room);
  const std::string value =
      TRY(socket->get_option(args.s32(1), args.s32(2), static_cast<std::size_t>(room)));
  const std::size_t bytes = std::min<std::size_t>(value.size(), static_cast<std::size_t>(room));
  TRY(copy_out(args.u64(3), value.data(), bytes));
  TRY(length.write(static_cast<std::int32_t>(bytes)));
  return std::int64_t{0};
}

}  // namespace cowbird
