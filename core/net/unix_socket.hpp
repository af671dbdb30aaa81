// The inside of AF_UNIX, unix(7): stream, datagram and sequenced-packet sockets. Of
// net/unix_socket.cpp (names, connections, options) and net/unix_transfer.cpp (data) alone.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/socket.hpp"
#include "proc/task.hpp"

namespace cowbird {

// One send: bytes with what travels beside them.
struct UnixPacket {
  std::string data;
  std::size_t taken = 0;  // bytes of a stream's piece that were read
  std::size_t cost = 0;   // counted in queued_everywhere
  std::int64_t sent_ns = 0;
  Ancillary ancillary;
  SocketAddress from;
  ~UnixPacket();
};
using UnixPacketPtr = std::unique_ptr<UnixPacket>;

class UnixSocket;

// What a socket inode of a file system leads to; the socket may be gone.
struct UnixBinding {
  UnixSocket *socket = nullptr;
};

// Of the calling task, as SO_PEERCRED and its like report it.
abi::Ucred own_credentials();

// What a queued message costs besides its bytes: empty ones are not free.
inline constexpr std::size_t kPacketCost = 512;

class UnixSocket final : public Socket {
 public:
  UnixSocket(int type, std::uint32_t flags) : Socket(abi::kAF_UNIX, type, 0, flags) {}
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
  const Peer *peer() const override {
    const auto &known = listening_ && listen_identity_ ? listen_identity_ : peer_identity_;
    return known ? &*known : nullptr;
  }
  bool connected() const override { return peer_ != nullptr; }

 private:
  bool is_stream() const { return type() == abi::kSOCK_STREAM; }
  bool is_datagram() const { return type() == abi::kSOCK_DGRAM; }
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
  void deliver(UnixSocket &target, UnixPacketPtr packet);
  void stamp(UnixPacket &packet, Ancillary &&ancillary, const UnixSocket &target) const;
  Result<std::uint64_t> send_stream(SendRequest &request, UnixSocket &target);
  Result<std::uint64_t> send_piece(SendRequest &request, UnixSocket &target, std::size_t bytes,
                                   std::int64_t deadline);
  void mark_out_of_band(UnixSocket &target);

  Result<bool> wait_readable(std::uint32_t flags, std::int64_t deadline, std::size_t behind = 0);
  Result<std::uint64_t> receive_stream(ReceiveRequest &request);
  Result<std::uint64_t> receive_packet(ReceiveRequest &request);
  Result<std::uint64_t> receive_out_of_band(ReceiveRequest &request);
  enum class Mark : std::uint8_t { None, Passed, Stop };
  Mark meet_mark(std::size_t &at, bool peek, bool has_data);
  std::size_t find_packet(std::uint64_t &skip) const;
  bool at_mark() const;
  // SO_PEEK_OFF: what the next peek passes over.
  std::uint64_t peek_skip(bool peek) const {
    return peek && peek_offset_ > 0 ? static_cast<std::uint64_t>(peek_offset_) : 0;
  }
  void move_peek_offset(std::int64_t by) {
    if (peek_offset_ < 0) return;
    peek_offset_ =
        static_cast<std::int32_t>(std::clamp<std::int64_t>(peek_offset_ + by, 0, INT32_MAX));
  }
  void fill_ancillary(ReceiveRequest &request, UnixPacket &packet, bool peek) const;
  void consumed(std::size_t bytes);
  bool at_end() const { return read_shut_ || peer_gone_; }

  std::string bound_name_;  // path, or '\0' and an abstract name; empty: unnamed
  std::string shown_name_;  // an accepted socket's: its listener's, by which it is not found
  std::shared_ptr<UnixBinding> binding_;        // of a path
  UnixSocket *peer_ = nullptr;                  // connected; cleared by its destructor
  std::vector<UnixSocket *> datagram_senders_;  // those whose peer_ is this (datagram)
  std::string peer_name_;
  std::optional<abi::Ucred> peer_credentials_;
  std::optional<Peer> peer_identity_;
  bool peer_gone_ = false;  // the peer closed or shut its writing side
  bool was_connected_ = false;
  bool read_shut_ = false, write_shut_ = false;

  std::deque<UnixPacketPtr> queue_;
  std::size_t queued_bytes_ = 0;
  SleepMutex read_lock_{"unix_read"};  // held while what is in the queue is copied out
  WaitQueue read_wait_;
  WaitQueue write_wait_;  // senders to this socket's peer, and datagram senders to it

  std::deque<Ref<UnixSocket>> pending_;  // connections to accept
  std::size_t backlog_ = 0;
  std::optional<abi::Ucred> listen_credentials_;
  std::optional<Peer> listen_identity_;

  // MSG_OOB: the piece of one byte in queue_ that is the latest out-of-band data and was not
  // received. A piece that was stays in the queue without data, as the mark at its place.
  const UnixPacket *out_of_band_ = nullptr;
  std::int32_t peek_offset_ = -1;  // SO_PEEK_OFF; negative: off
};

}  // namespace cowbird
