// AF_UNIX sockets, unix(7): stream, datagram and sequenced-packet.
#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>

#include "abi/poll.hpp"
#include "mm/phys_memory.hpp"
#include "mm/user_access.hpp"
#include "net/socket.hpp"
#include "proc/task.hpp"
#include "vfs/path.hpp"

namespace cowbird {

using namespace abi;

namespace {

constexpr std::size_t kPieceMax = 32768;    // of one queued piece of a stream
constexpr std::size_t kMaxBacklog = 4096;   // net.core.somaxconn
constexpr std::size_t kDatagramQueue = 10;  // net.unix.max_dgram_qlen, for unconnected senders
constexpr std::size_t kMaxFilesInFlight = 16384;
// What a queued message costs besides its bytes: empty ones are not free.
constexpr std::size_t kPacketCost = 512;
constexpr std::uint32_t kFIONREAD = 0x541B, kSIOCOUTQ = 0x5411;

std::size_t files_in_flight = 0;
std::size_t queued_everywhere = 0;  // bytes and costs of all messages that wait to be read

// Unread messages are the kernel's own memory: all sockets together get an eighth of the guest's.
std::size_t max_queued_everywhere() {
  return std::max<std::size_t>(8 * kMiB, phys().total_pages() * kPageSize / 8);
}

// Lets files go that nobody received. Such a file may be a socket in whose queue others wait, and
// so on for thousands; they go one after the other, not each inside the end of the one before.
void let_go(std::vector<Ref<File>> &&files) {
  static auto *waiting = new std::vector<Ref<File>>;
  static bool busy = false;
  for (Ref<File> &file : files) waiting->push_back(std::move(file));
  if (busy) return;
  busy = true;
  while (!waiting->empty()) {
    const Ref<File> next = std::move(waiting->back());
    waiting->pop_back();
  }
  busy = false;
}

// One send: bytes with what travels beside them.
struct Packet {
  std::string data;
  std::size_t taken = 0;  // bytes of a stream's piece that were read
  std::size_t cost = 0;   // counted in queued_everywhere
  Ancillary ancillary;
  SocketAddress from;
  ~Packet() {
    queued_everywhere -= cost;
    if (ancillary.files.empty()) return;
    files_in_flight -= ancillary.files.size();
    let_go(std::move(ancillary.files));
  }
};
using PacketPtr = std::unique_ptr<Packet>;

class UnixSocket;

// What a socket inode of a file system leads to; the socket may be gone.
struct Binding {
  UnixSocket *socket = nullptr;
};

std::map<std::string, UnixSocket *> &abstract_names() {
  static std::map<std::string, UnixSocket *> names;
  return names;
}

abi::Ucred own_credentials() {
  const Task &task = current_task();
  return {task.process->pid, task.credentials.euid, task.credentials.egid};
}

class UnixSocket final : public Socket {
 public:
  UnixSocket(int type, std::uint32_t flags) : Socket(kAF_UNIX, type, 0, flags) {}
  ~UnixSocket() override;

  static void join(UnixSocket &a, UnixSocket &b);
  // socketpair(2).
  static void pair_up(UnixSocket &a, UnixSocket &b);

  Result<void> bind(const SocketAddress &address) override;
  Result<void> connect(const SocketAddress &address) override;
  Result<void> listen(int backlog) override;
  Result<Ref<Socket>> accept(std::uint32_t new_flags) override;
  Result<SocketAddress> local_address() override {
    return address_text(bound_name_.empty() ? shown_name_ : bound_name_);
  }
  Result<SocketAddress> peer_address() override;
  Result<std::uint64_t> send(SendRequest &request) override;
  Result<std::uint64_t> receive(ReceiveRequest &request) override;
  Result<void> shutdown(int how) override;
  Result<std::string> get_option(int level, int name, std::size_t room) override;
  Result<void> set_option(int level, int name, std::string_view value) override;
  Result<std::int64_t> ioctl(Task &task, std::uint32_t command, std::uint64_t argument) override;
  std::uint32_t poll(PollTable *table) override;

 private:
  bool is_stream() const { return type() == kSOCK_STREAM; }
  bool is_datagram() const { return type() == kSOCK_DGRAM; }
  static SocketAddress address_text(const std::string &name);
  static Result<std::string> name_of(const SocketAddress &address);
  static Result<Ref<UnixSocket>> find(const std::string &name, int type);
  Result<void> autobind();
  void set_bound_name(const std::string &name) {
    bound_name_ = name;
    shown_address_ = name;
    if (!name.empty() && name[0] == '\0') shown_address_[0] = '@';
  }
  Result<void> connect_datagram(const SocketAddress &address);
  Result<void> connect_connection(const std::string &name);

  // How much of what was sent sits unread in the peer's queue.
  std::size_t unread_by(const UnixSocket &peer) const { return peer.queued_bytes_; }
  // The same with the costs of the messages, which count against the send buffer.
  std::size_t queue_cost() const { return queued_bytes_ + queue_.size() * kPacketCost; }
  bool has_room_at(const UnixSocket &peer, std::size_t bytes) const;
  Result<Ref<UnixSocket>> target_of(const SendRequest &request);
  Result<void> wait_for_room(UnixSocket &target, std::size_t bytes, std::uint32_t flags,
                             std::int64_t deadline);
  void deliver(UnixSocket &target, PacketPtr packet);
  void stamp(Packet &packet, Ancillary &&ancillary, const UnixSocket &target) const;
  Result<std::uint64_t> send_stream(SendRequest &request, UnixSocket &target);

  Result<bool> wait_readable(std::uint32_t flags, std::int64_t deadline);
  Result<std::uint64_t> receive_stream(ReceiveRequest &request);
  Result<std::uint64_t> receive_packet(ReceiveRequest &request);
  void fill_ancillary(ReceiveRequest &request, Packet &packet, bool peek) const;
  void consumed(std::size_t bytes);
  bool at_end() const { return read_shut_ || peer_gone_; }

  std::string bound_name_;  // path, or '\0' and an abstract name; empty: unnamed
  std::string shown_name_;  // an accepted socket's: its listener's, by which it is not found
  std::shared_ptr<Binding> binding_;            // of a path
  UnixSocket *peer_ = nullptr;                  // connected; cleared by its destructor
  std::vector<UnixSocket *> datagram_senders_;  // those whose peer_ is this (datagram)
  std::string peer_name_;
  std::optional<Ucred> peer_credentials_;
  bool peer_gone_ = false;  // the peer closed or shut its writing side
  bool was_connected_ = false;
  bool read_shut_ = false, write_shut_ = false;

  std::deque<PacketPtr> queue_;
  std::size_t queued_bytes_ = 0;
  SleepMutex read_lock_{"unix_read"};  // held while what is in the queue is copied out
  WaitQueue read_wait_;
  WaitQueue write_wait_;  // senders to this socket's peer, and datagram senders to it

  std::deque<Ref<UnixSocket>> pending_;  // connections to accept
  std::size_t backlog_ = 0;
  std::optional<Ucred> listen_credentials_;
};

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
    const auto binding = std::static_pointer_cast<Binding>(place.inode().attached);
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
  if (name.empty()) return Err(Errno::Inval);
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
  binding_ = std::make_shared<Binding>();
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
  server->pass_credentials_ = listener->pass_credentials_;
  peer_name_ = listener->bound_name_;
  peer_credentials_ = listener->listen_credentials_;
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

// --- sending

bool UnixSocket::has_room_at(const UnixSocket &peer, std::size_t bytes) const {
  if (is_datagram() && peer.peer_ != this && peer.queue_.size() > kDatagramQueue) return false;
  // One message always fits into an empty queue; a stream's pieces fill up to the buffer.
  return peer.queue_.empty() || peer.queue_cost() + bytes + kPacketCost <= send_buffer_;
}

Result<Ref<UnixSocket>> UnixSocket::target_of(const SendRequest &request) {
  if (request.to != nullptr && !request.to->empty()) {
    if (!is_datagram()) return Err(peer_ ? Errno::IsConn : Errno::OpNotSupp);
    const std::string name = TRY(name_of(*request.to));
    Ref<UnixSocket> target = TRY(find(name, type()));
    // A datagram socket that is connected elsewhere takes nothing from others.
    if (target->peer_ != nullptr && target->peer_ != this) return Err(Errno::Perm);
    return target;
  }
  if (peer_ == nullptr) {
    if (is_datagram()) return Err(was_connected_ ? Errno::ConnRefused : Errno::NotConn);
    if (was_connected_) return Err(Errno::Pipe);
    return Err(Errno::NotConn);
  }
  return Ref<UnixSocket>(peer_);
}

Result<void> UnixSocket::wait_for_room(UnixSocket &target, std::size_t bytes, std::uint32_t flags,
                                       std::int64_t deadline) {
  if (has_room_at(target, bytes)) return {};
  if (is_nonblocking(flags)) return Err(Errno::Again);
  const auto gone = [&] { return write_shut_ || (!is_datagram() && peer_ == nullptr); };
  // Connected senders are woken on their own queue by the reader, others on the target's.
  WaitQueue &queue = is_datagram() ? target.write_wait_ : write_wait_;
  const auto waited = wait_event(
      queue, [&] { return gone() || target.read_shut_ || has_room_at(target, bytes); },
      SleepMode::Interruptible, "unix_send", deadline);
  if (waited.is(Errno::TimedOut)) return Err(Errno::Again);
  return waited;
}

void UnixSocket::stamp(Packet &packet, Ancillary &&ancillary, const UnixSocket &target) const {
  packet.ancillary = std::move(ancillary);
  files_in_flight += packet.ancillary.files.size();
  if (!packet.ancillary.credentials && (target.pass_credentials_ || pass_credentials_)) {
    packet.ancillary.credentials = own_credentials();
  }
  if (!bound_name_.empty()) packet.from = address_text(bound_name_);
}

void UnixSocket::deliver(UnixSocket &target, PacketPtr packet) {
  packet->cost = packet->data.size() + kPacketCost;
  queued_everywhere += packet->cost;
  target.queued_bytes_ += packet->data.size();
  target.queue_.push_back(std::move(packet));
  target.read_wait_.wake_one(kPOLLIN | kPOLLRDNORM);
}

Result<std::uint64_t> UnixSocket::send(SendRequest &request) {
  if (request.flags & kMSG_OOB) return Err(Errno::OpNotSupp);
  if (pending_error_) {
    const Errno error = *pending_error_;
    pending_error_.reset();
    if (is_datagram()) return Err(error);
  }
  if (files_in_flight + request.ancillary.files.size() > kMaxFilesInFlight)
    return Err(Errno::NoBufs);
  auto found = target_of(request);
  if (found.is(Errno::Pipe)) return broken_pipe(request.flags);
  Ref<UnixSocket> target = TRY(found);
  if (write_shut_ || target->read_shut_) return broken_pipe(request.flags);
  if (is_stream()) return send_stream(request, *target);

  const std::uint64_t length = request.data.remaining();
  if (length > send_buffer_ - 32) return Err(Errno::MsgSize);
  TRY(wait_for_room(*target, length, request.flags, send_deadline()));
  if (queued_everywhere + length > max_queued_everywhere()) return Err(Errno::NoBufs);
  if (write_shut_ || target->read_shut_ || (!is_datagram() && peer_ == nullptr)) {
    return broken_pipe(request.flags);
  }
  auto packet = std::make_unique<Packet>();
  packet->data.resize(length);
  if (length > 0 &&
      TRY(request.data.copy_from(std::as_writable_bytes(std::span(packet->data)))) != length) {
    return Err(Errno::Fault);
  }
  stamp(*packet, std::move(request.ancillary), *target);
  deliver(*target, std::move(packet));
  return length;
}

Result<std::uint64_t> UnixSocket::send_stream(SendRequest &request, UnixSocket &target) {
  const std::int64_t deadline = send_deadline();
  std::uint64_t total = 0;
  const auto failed = [&](Err error) -> Result<std::uint64_t> {
    if (total > 0) return total;
    return error;
  };
  while (request.data.remaining() > 0) {
    const std::size_t want = std::min<std::uint64_t>(
        {request.data.remaining(), kPieceMax, std::max<std::uint64_t>(send_buffer_ / 2, 1)});
    const auto room = wait_for_room(target, want, request.flags, deadline);
    if (!room) return failed(Err(room.error()));
    if (write_shut_ || peer_ == nullptr || target.read_shut_) {
      if (total > 0) return total;
      return broken_pipe(request.flags);
    }
    if (queued_everywhere + want > max_queued_everywhere()) return failed(Err(Errno::NoBufs));
    auto packet = std::make_unique<Packet>();
    packet->data.resize(want);
    const auto copied = request.data.copy_from(std::as_writable_bytes(std::span(packet->data)));
    if (!copied) return failed(Err(copied.error()));
    // The copy may have slept for a page: the peer may have gone meanwhile.
    if (peer_ == nullptr)
      return total > 0 ? Result<std::uint64_t>(total) : broken_pipe(request.flags);
    packet->data.resize(*copied);
    stamp(*packet, std::exchange(request.ancillary, {}), target);
    deliver(target, std::move(packet));
    total += *copied;
    if (*copied < want) break;
  }
  return total;
}

// --- receiving

// True when there is something to read, false at the end.
Result<bool> UnixSocket::wait_readable(std::uint32_t flags, std::int64_t deadline) {
  if (!queue_.empty()) return true;
  if (pending_error_) {
    const Errno error = *pending_error_;
    pending_error_.reset();
    return Err(error);
  }
  if (at_end()) return false;
  if (is_nonblocking(flags)) return Err(Errno::Again);
  const auto waited = wait_event(
      read_wait_, [&] { return !queue_.empty() || at_end() || pending_error_; },
      SleepMode::Interruptible, "unix_receive", deadline, true);
  if (waited.is(Errno::TimedOut)) return Err(Errno::Again);
  TRY(waited);
  if (!queue_.empty()) return true;
  if (pending_error_) {
    const Errno error = *pending_error_;
    pending_error_.reset();
    return Err(error);
  }
  return false;
}

void UnixSocket::consumed(std::size_t bytes) {
  queued_bytes_ -= bytes;
  // The sender polls for a quarter of its buffer free, as Linux has it.
  if (peer_ && !is_datagram()) peer_->write_wait_.wake_all(kPOLLOUT | kPOLLWRNORM);
  if (is_datagram()) write_wait_.wake_all(kPOLLOUT | kPOLLWRNORM);
}

void UnixSocket::fill_ancillary(ReceiveRequest &request, Packet &packet, bool peek) const {
  if (packet.ancillary.credentials && pass_credentials_) {
    request.ancillary.credentials = packet.ancillary.credentials;
  }
  if (packet.ancillary.files.empty()) return;
  if (peek) {
    request.ancillary.files = packet.ancillary.files;
    return;
  }
  files_in_flight -= packet.ancillary.files.size();
  request.ancillary.files = std::exchange(packet.ancillary.files, {});
}

Result<std::uint64_t> UnixSocket::receive(ReceiveRequest &request) {
  if (request.flags & kMSG_OOB) return Err(Errno::OpNotSupp);
  if (!is_datagram() && peer_ == nullptr && !was_connected_) {
    return Err(is_stream() ? Errno::Inval : Errno::NotConn);
  }
  return is_stream() ? receive_stream(request) : receive_packet(request);
}

Result<std::uint64_t> UnixSocket::receive_stream(ReceiveRequest &request) {
  const std::int64_t deadline = receive_deadline();
  const bool peek = request.flags & kMSG_PEEK;
  std::uint64_t total = 0;
  std::size_t at = 0;  // of the piece, while peeking
  while (request.data.remaining() > 0) {
    if (at >= queue_.size()) {
      if (total > 0 && (!(request.flags & kMSG_WAITALL) || peek)) break;
      const auto ready = wait_readable(request.flags, deadline);
      if (!ready) return total > 0 ? Result<std::uint64_t>(total) : Err(ready.error());
      if (!*ready) break;
    }
    // Copying may sleep for a page; nobody else may take the piece meanwhile.
    SleepLock reading(read_lock_);
    if (at >= queue_.size()) continue;
    Packet &packet = *queue_[at];
    const bool has_files = !packet.ancillary.files.empty();
    // Descriptors and credentials stay with their bytes: data of another kind is for the next call.
    if (total > 0 &&
        (has_files ||
         (pass_credentials_ && packet.ancillary.credentials && request.ancillary.credentials &&
          packet.ancillary.credentials->pid != request.ancillary.credentials->pid))) {
      break;
    }
    const std::string_view rest = std::string_view(packet.data).substr(packet.taken);
    const auto copied = request.data.copy_to(std::as_bytes(std::span(rest)));
    if (!copied) return total > 0 ? Result<std::uint64_t>(total) : Err(copied.error());
    fill_ancillary(request, packet, peek);
    total += *copied;
    if (peek) {
      ++at;
    } else {
      packet.taken += *copied;
      const bool done = packet.taken == packet.data.size();
      if (done) queue_.pop_front();
      consumed(*copied);
    }
    if (has_files) break;
  }
  return total;
}

Result<std::uint64_t> UnixSocket::receive_packet(ReceiveRequest &request) {
  if (!TRY(wait_readable(request.flags, receive_deadline()))) return std::uint64_t{0};
  SleepLock reading(read_lock_);
  while (queue_.empty()) {
    // Another reader was faster.
    read_lock_.unlock();
    const auto ready = wait_readable(request.flags, receive_deadline());
    read_lock_.lock();
    if (!TRY(ready)) return std::uint64_t{0};
  }
  const bool peek = request.flags & kMSG_PEEK;
  Packet &front = *queue_.front();
  const std::uint64_t room = request.data.remaining();
  PacketPtr taken;
  if (!peek) {
    taken = std::move(queue_.front());
    queue_.pop_front();
    consumed(taken->data.size());
  }
  std::uint64_t copied = 0;
  if (room > 0 && !front.data.empty()) {
    copied = TRY(request.data.copy_to(std::as_bytes(std::span(front.data))));
  }
  request.full_length = front.data.size();
  if (front.data.size() > room) request.out_flags |= kMSG_TRUNC;
  if (type() == kSOCK_SEQPACKET) request.out_flags |= kMSG_EOR;
  request.from = front.from;
  fill_ancillary(request, front, peek);
  return copied;
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
  return get_common_option(name);
}

Result<void> UnixSocket::set_option(int level, int name, std::string_view value) {
  if (level != kSOL_SOCKET) return Err(Errno::OpNotSupp);
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
