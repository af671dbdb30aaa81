// AF_UNIX sockets, unix(7): names, connections, options and readiness.
#include "net/unix_socket.hpp"

#include <cstring>
#include <map>

#include "abi/poll.hpp"
#include "mm/user_access.hpp"
#include "vfs/path.hpp"

namespace cowbird {

using namespace abi;

namespace {

constexpr std::size_t kMaxBacklog = 4096;  // net.core.somaxconn
constexpr std::uint32_t kFIONREAD = 0x541B, kSIOCOUTQ = 0x5411, kSIOCATMARK = 0x8905;

std::map<std::string, UnixSocket *> &abstract_names() {
  static std::map<std::string, UnixSocket *> names;
  return names;
}

Socket::Peer own_identity() {
  const Task &task = current_task();
  return {task.process, task.credentials.groups};
}

}  // namespace

Ucred own_credentials() {
  const Task &task = current_task();
  return {task.process->pid, task.credentials.euid, task.credentials.egid};
}

// --- names

SocketAddress UnixSocket::address_text(const std::string &name) {
  const std::uint16_t family = kAF_UNIX;
  SocketAddress text(reinterpret_cast<const char *>(&family), sizeof(family));
  text += name;
  if (!name.empty() && name[0] != '\0') text += '\0';
  return text;
}

Result<std::string> UnixSocket::name_of(const SocketAddress &address) {
  std::uint16_t family = 0;
  if (address.size() < sizeof(family)) return Err(Errno::Inval);
  std::memcpy(&family, address.data(), sizeof(family));
  if (family != kAF_UNIX || address.size() > sizeof(SockaddrUn)) return Err(Errno::Inval);
  std::string name = address.substr(sizeof(family));
  // A path ends at its zero byte; an abstract name is all that was passed.
  if (!name.empty() && name[0] != '\0') name.resize(std::strlen(name.c_str()));
  return name;
}

Result<Ref<UnixSocket>> UnixSocket::find(const std::string &name, int type) {
  UnixSocket *found = nullptr;
  if (name.empty()) return Err(Errno::Inval);
  if (!name.empty() && name[0] == '\0') {
    const auto entry = abstract_names().find(name);
    if (entry == abstract_names().end()) return Err(Errno::ConnRefused);
    found = entry->second;
  } else {
    Task &task = current_task();
    const Path place =
        TRY(lookup({*task.fs, task.credentials, task.fs->cwd}, name, LookupFlag::Follow));
    if (place.inode().type() != FileType::Socket) return Err(Errno::ConnRefused);
    TRY(check_permission(place.inode(), 2, task.credentials));
    const auto binding = std::static_pointer_cast<UnixBinding>(place.inode().attached);
    if (!binding || binding->socket == nullptr) return Err(Errno::ConnRefused);
    found = binding->socket;
  }
  if (found->type() != type) return Err(Errno::Prototype);
  return Ref<UnixSocket>(found);
}

Result<void> UnixSocket::autobind() {
  // Five hexadecimal digits in the abstract name space, unix(7).
  static std::uint32_t next = 0;
  for (std::uint32_t tries = 0; tries <= 0xfffff; ++tries) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string name(1, '\0');
    const std::uint32_t number = next++ & 0xfffff;
    for (int shift = 16; shift >= 0; shift -= 4) name += kDigits[(number >> shift) & 0xf];
    if (abstract_names().try_emplace(name, this).second) {
      set_bound_name(name);
      return {};
    }
  }
  return Err(Errno::NoSpc);
}

Result<void> UnixSocket::bind(const SocketAddress &address) {
  const std::string name = TRY(name_of(address));
  if (!bound_name_.empty()) return Err(Errno::Inval);
  if (name.empty()) return autobind();
  if (name[0] == '\0') {
    if (!abstract_names().try_emplace(name, this).second) return Err(Errno::AddrInUse);
    set_bound_name(name);
    return {};
  }
  Task &task = current_task();
  const WalkContext walk{*task.fs, task.credentials, task.fs->cwd};
  const auto made =
      make_node(walk, name, static_cast<std::uint32_t>(FileType::Socket) | 0777, DeviceNumber{});
  if (made.is(Errno::Exist)) return Err(Errno::AddrInUse);
  TRY(made);
  const Path bound = TRY(lookup(walk, name, LookupFlag::None));
  // Both may have slept: another thread may have bound this socket, or put another file in the
  // node's place. What hangs on an inode is of the kind of its type.
  if (!bound_name_.empty()) return Err(Errno::Inval);
  if (bound.inode().type() != FileType::Socket || bound.inode().attached)
    return Err(Errno::AddrInUse);
  binding_ = std::make_shared<UnixBinding>();
  binding_->socket = this;
  bound.inode().attached = binding_;
  set_bound_name(name);
  return {};
}

Result<SocketAddress> UnixSocket::peer_address() {
  if (peer_ == nullptr && !(was_connected_ && peer_gone_)) return Err(Errno::NotConn);
  return address_text(peer_name_);
}

// --- life

void UnixSocket::join(UnixSocket &a, UnixSocket &b) {
  a.peer_ = &b;
  b.peer_ = &a;
  a.was_connected_ = b.was_connected_ = true;
}

void UnixSocket::pair_up(UnixSocket &a, UnixSocket &b) {
  join(a, b);
  a.peer_credentials_ = b.peer_credentials_ = own_credentials();
  a.peer_identity_ = b.peer_identity_ = own_identity();
  if (!a.is_datagram()) return;
  a.datagram_senders_.push_back(&b);
  b.datagram_senders_.push_back(&a);
}

UnixSocket::~UnixSocket() {
  if (!bound_name_.empty() && bound_name_[0] == '\0') abstract_names().erase(bound_name_);
  if (binding_) binding_->socket = nullptr;
  if (is_datagram()) {
    for (UnixSocket *sender : datagram_senders_) {
      sender->peer_ = nullptr;
      if (!sender->pending_error_) sender->pending_error_ = Errno::ConnReset;
      sender->write_wait_.wake_all(kPOLLOUT | kPOLLERR);
    }
    if (peer_) std::erase(peer_->datagram_senders_, this);
    write_wait_.wake_all(kPOLLOUT);
    return;
  }
  // Connections that nobody accepted break: destroying their sockets tells the clients.
  pending_.clear();
  if (peer_ == nullptr) return;
  // What we did not read is lost to the sender: it learns by a reset.
  if (!queue_.empty()) peer_->pending_error_ = Errno::ConnReset;
  peer_->peer_ = nullptr;
  peer_->peer_gone_ = true;
  peer_->read_wait_.wake_all(kPOLLIN | kPOLLHUP | kPOLLRDHUP);
  peer_->write_wait_.wake_all(kPOLLOUT | kPOLLHUP);
}

Result<void> UnixSocket::connect_datagram(const SocketAddress &address) {
  std::uint16_t family = 0;
  if (address.size() < sizeof(family)) return Err(Errno::Inval);
  std::memcpy(&family, address.data(), sizeof(family));
  Ref<UnixSocket> target;
  std::string name;
  if (family != kAF_UNSPEC) {  // AF_UNSPEC dissolves the association
    name = TRY(name_of(address));
    target = TRY(find(name, type()));
  }
  if (peer_) std::erase(peer_->datagram_senders_, this);
  peer_ = target.get();
  peer_name_ = name;
  was_connected_ = peer_ != nullptr;
  if (peer_) peer_->datagram_senders_.push_back(this);
  return {};
}

Result<void> UnixSocket::connect(const SocketAddress &address) {
  if (is_datagram()) return connect_datagram(address);
  const std::string name = TRY(name_of(address));
  if (listening_) return Err(Errno::Inval);
  if (peer_ != nullptr) return Err(Errno::IsConn);
  return connect_connection(name);
}

Result<void> UnixSocket::connect_connection(const std::string &name) {
  const std::int64_t deadline = send_deadline();
  Ref<UnixSocket> listener = TRY(find(name, type()));
  while (true) {
    if (!listener->listening_ || listener->read_shut_) return Err(Errno::ConnRefused);
    if (listener->pending_.size() <= listener->backlog_) break;
    if (nonblocking()) return Err(Errno::Again);
    const auto waited = wait_event(
        listener->write_wait_,
        [&] {
          return !listener->listening_ || listener->read_shut_ ||
                 listener->pending_.size() <= listener->backlog_;
        },
        SleepMode::Interruptible, "unix_connect", deadline);
    if (waited.is(Errno::TimedOut)) return Err(Errno::Again);
    TRY(waited);
  }
  if (peer_ != nullptr) return Err(Errno::IsConn);
  // The server's end has no descriptor before it is accepted, where open files are counted.
  if (File::open_count() > File::max_open()) return Err(Errno::NFile);
  auto server = make_ref<UnixSocket>(type(), 0u);
  join(*this, *server);
  server->shown_name_ = listener->bound_name_;
  server->shown_address_ = listener->shown_address_;
  server->peer_name_ = bound_name_;
  server->peer_credentials_ = own_credentials();
  server->peer_identity_ = own_identity();
  server->unaccepted_ = true;
  server->pass_credentials_ = listener->pass_credentials_;
  peer_name_ = listener->bound_name_;
  peer_credentials_ = listener->listen_credentials_;
  peer_identity_ = listener->listen_identity_;
  listener->pending_.push_back(std::move(server));
  listener->read_wait_.wake_one(kPOLLIN);
  return {};
}

Result<void> UnixSocket::listen(int backlog) {
  if (is_datagram()) return Err(Errno::OpNotSupp);
  if (bound_name_.empty() || peer_ != nullptr) return Err(Errno::Inval);
  backlog_ = std::min<std::size_t>(backlog < 0 ? kMaxBacklog : static_cast<std::size_t>(backlog),
                                   kMaxBacklog);
  listening_ = true;
  listen_credentials_ = own_credentials();
  listen_identity_ = own_identity();
  write_wait_.wake_all(kPOLLOUT);
  return {};
}

Result<Ref<Socket>> UnixSocket::accept(std::uint32_t new_flags) {
  if (is_datagram()) return Err(Errno::OpNotSupp);
  if (!listening_) return Err(Errno::Inval);
  if (pending_.empty()) {
    if (read_shut_) return Err(Errno::Inval);
    if (nonblocking()) return Err(Errno::Again);
    const auto waited = wait_event(
        read_wait_, [&] { return !pending_.empty() || read_shut_; }, SleepMode::Interruptible,
        "unix_accept", receive_deadline(), true);
    if (waited.is(Errno::TimedOut)) return Err(Errno::Again);
    TRY(waited);
    if (pending_.empty()) return Err(Errno::Inval);
  }
  Ref<UnixSocket> connection = std::move(pending_.front());
  pending_.pop_front();
  connection->unaccepted_ = false;
  write_wait_.wake_all(kPOLLOUT);
  connection->set_flags((connection->flags() & ~static_cast<std::uint32_t>(kSOCK_NONBLOCK)) |
                        (new_flags & kSOCK_NONBLOCK));
  return Ref<Socket>(std::move(connection));
}

Result<void> UnixSocket::shutdown(int how) {
  if (!is_datagram() && !listening_ && peer_ == nullptr && !was_connected_)
    return Err(Errno::NotConn);
  if (how == kSHUT_RD || how == kSHUT_RDWR) read_shut_ = true;
  if (how == kSHUT_WR || how == kSHUT_RDWR) write_shut_ = true;
  if (peer_ && !is_datagram()) {
    if (write_shut_) peer_->peer_gone_ = true;
    if (read_shut_) peer_->write_shut_ = true;
    peer_->read_wait_.wake_all(kPOLLIN | kPOLLRDHUP | kPOLLHUP);
    peer_->write_wait_.wake_all(kPOLLOUT);
  }
  read_wait_.wake_all(kPOLLIN | kPOLLRDHUP | kPOLLHUP);
  write_wait_.wake_all(kPOLLOUT);
  return {};
}

// --- options, readiness

Result<std::string> UnixSocket::get_option(int level, int name, std::size_t) {
  if (level != kSOL_SOCKET) return Err(Errno::OpNotSupp);
  if (name == kSO_PEERCRED) {
    const Ucred cred = listening_ && listen_credentials_
                           ? *listen_credentials_
                           : peer_credentials_.value_or(Ucred{0, ~0u, ~0u});
    return std::string(reinterpret_cast<const char *>(&cred), sizeof(cred));
  }
  if (name == kSO_PEEK_OFF)
    return std::string(reinterpret_cast<const char *>(&peek_offset_), sizeof(peek_offset_));
  return get_common_option(name);
}

Result<void> UnixSocket::set_option(int level, int name, std::string_view value) {
  if (level != kSOL_SOCKET) return Err(Errno::OpNotSupp);
  if (name == kSO_PEEK_OFF) {
    if (value.size() < sizeof(peek_offset_)) return Err(Errno::Inval);
    std::memcpy(&peek_offset_, value.data(), sizeof(peek_offset_));
    return {};
  }
  return set_common_option(name, value);
}

Result<std::int64_t> UnixSocket::ioctl(Task &task, std::uint32_t command, std::uint64_t argument) {
  std::size_t bytes = 0;
  if (command == kFIONREAD) {
    if (listening_) return Err(Errno::Inval);
    if (is_datagram()) {
      bytes = queue_.empty() ? 0 : queue_.front()->data.size();
    } else {
      bytes = queued_bytes_;
    }
  } else if (command == kSIOCOUTQ) {
    bytes = peer_ ? unread_by(*peer_) : 0;
  } else if (command == kSIOCATMARK && is_stream()) {
    bytes = at_mark() ? 1 : 0;
  } else {
    return Socket::ioctl(task, command, argument);
  }
  TRY(UserPtr<std::int32_t>(argument).write(static_cast<std::int32_t>(bytes)));
  return std::int64_t{0};
}

std::uint32_t UnixSocket::poll(PollTable *table) {
  if (table) {
    table->wait(read_wait_);
    table->wait(write_wait_);
  }
  std::uint32_t events = 0;
  if (pending_error_) events |= kPOLLERR;
  if (at_end()) events |= kPOLLRDHUP | kPOLLIN | kPOLLRDNORM;
  if (at_end() && write_shut_) events |= kPOLLHUP;
  // A listener that was shut down is ready too: accept(2) would fail at once.
  if (listening_) return events | (pending_.empty() ? 0u : kPOLLIN | kPOLLRDNORM);
  if (!queue_.empty()) events |= kPOLLIN | kPOLLRDNORM;
  if (out_of_band_) events |= kPOLLPRI;
  if (!is_datagram()) {
    if (peer_ == nullptr) events |= kPOLLHUP;
    if (peer_ == nullptr || write_shut_ || peer_->queue_cost() * 4 <= send_buffer_) {
      events |= kPOLLOUT | kPOLLWRNORM | kPOLLWRBAND;
    }
  } else if (peer_ == nullptr || has_room_at(*peer_, 1)) {
    events |= kPOLLOUT | kPOLLWRNORM | kPOLLWRBAND;
  }
  return events;
}

namespace {

Result<Ref<Socket>> create(int type, int protocol, std::uint32_t flags) {
  if (protocol != 0 && protocol != kAF_UNIX) return Err(Errno::ProtoNoSupport);
  if (type == kSOCK_RAW) type = kSOCK_DGRAM;  // as Linux has it since BSD
  if (type != kSOCK_STREAM && type != kSOCK_DGRAM && type != kSOCK_SEQPACKET) {
    return Err(Errno::SockTNoSupport);
  }
  return Ref<Socket>(make_ref<UnixSocket>(type, flags));
}

}  // namespace

void register_unix_sockets() {
  register_socket_family({kAF_UNIX, create,
                          [](int type, int protocol,
                             std::uint32_t flags) -> Result<std::pair<Ref<Socket>, Ref<Socket>>> {
                            Ref<Socket> a = TRY(create(type, protocol, flags));
                            Ref<Socket> b = TRY(create(type, protocol, flags));
                            UnixSocket::pair_up(static_cast<UnixSocket &>(*a),
                                                static_cast<UnixSocket &>(*b));
                            return std::pair(std::move(a), std::move(b));
                          }});
}

}  // namespace cowbird
