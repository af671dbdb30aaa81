// Sockets as the rest of the kernel sees them: a Socket is an open file with the calls of socket(2)
// and its relatives. Address families register how to make theirs; AF_UNIX is in
// net/unix_socket.cpp. Needs the big kernel lock; calls may sleep unless the socket or the flags
// say otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "abi/socket.hpp"
#include "base/list.hpp"
#include "base/result.hpp"
#include "vfs/file.hpp"

namespace cowbird {

// A sockaddr: family and the rest, as the guest passed it. At most abi::kSockaddrMax bytes.
using SocketAddress = std::string;

// What travels beside the data (cmsg(3)).
struct Ancillary {
  std::vector<Ref<File>> files;           // SCM_RIGHTS
  std::optional<abi::Ucred> credentials;  // SCM_CREDENTIALS
  std::optional<std::int64_t> sent_ns;    // SCM_TIMESTAMP: wall-clock time
};

struct SendRequest {
  IovIter &data;
  const SocketAddress *to = nullptr;  // nullptr: the connected peer
  Ancillary ancillary;
  std::uint32_t flags = 0;  // MSG_*
};
struct ReceiveRequest {
  IovIter &data;
  std::uint32_t flags = 0;
  // Filled in:
  SocketAddress from;
  Ancillary ancillary;
  std::uint32_t out_flags = 0;  // MSG_TRUNC, MSG_EOR
  // The true length of a datagram that was cut (for MSG_TRUNC).
  std::uint64_t full_length = 0;
};

class Process;  // proc/task.hpp

class Socket : public File {
 public:
  Socket(int domain, int type, int protocol, std::uint32_t flags);

  int domain() const { return domain_; }
  int type() const { return type_; }
  int protocol() const { return protocol_; }

  virtual Result<void> bind(const SocketAddress &address) = 0;
  virtual Result<void> connect(const SocketAddress &address) = 0;
  virtual Result<void> listen(int backlog) = 0;
  // The new connection's socket; `nonblock` is the listener's or SOCK_NONBLOCK's to decide by the
  // caller.
  virtual Result<Ref<Socket>> accept(std::uint32_t new_flags) = 0;
  virtual Result<SocketAddress> local_address() = 0;
  virtual Result<SocketAddress> peer_address() = 0;
  virtual Result<std::uint64_t> send(SendRequest &request) = 0;
  virtual Result<std::uint64_t> receive(ReceiveRequest &request) = 0;
  virtual Result<void> shutdown(int how) = 0;
  // Options that SOL_SOCKET does not cover here, and those of the family; NoProtoOpt when unknown.
  virtual Result<std::string> get_option(int level, int name, std::size_t room) = 0;
  virtual Result<void> set_option(int level, int name, std::string_view value) = 0;

  // The options of SOL_SOCKET that all families share.
  Result<std::string> get_common_option(int name);
  Result<void> set_common_option(int name, std::string_view value);

  // How received messages tell when they were sent: SO_TIMESTAMP and SO_TIMESTAMPNS, or not at all.
  enum class Stamps : std::uint8_t { None, Micro, Nano };
  Stamps stamps() const { return stamps_; }
  // The peer as it was when the connection was made (SO_PEERGROUPS, SO_PEERPIDFD); nullptr when it
  // is not known.
  struct Peer {
    Ref<Process> process;
    std::vector<std::uint32_t> groups;
  };
  virtual const Peer *peer() const { return nullptr; }

  // For listings of all sockets (/proc/net/unix).
  bool listening() const { return listening_; }
  const std::string &shown_address() const { return shown_address_; }
  virtual bool connected() const { return false; }
  // A connection that nobody has accepted yet.
  bool unaccepted() const { return unaccepted_; }

  // File: read and write are receive and send without more.
  Result<std::uint64_t> read(IovIter &to, std::uint64_t &offset) override;
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &offset) override;
  std::string describe() const override;

 protected:
  std::int64_t receive_deadline() const;
  std::int64_t send_deadline() const;
  bool is_nonblocking(std::uint32_t message_flags) const {
    return nonblocking() || (message_flags & abi::kMSG_DONTWAIT) != 0;
  }
  // EPIPE, with SIGPIPE unless MSG_NOSIGNAL.
  Err broken_pipe(std::uint32_t message_flags) const;

  std::uint32_t send_buffer_ = 212992;     // net.core.wmem_default
  std::uint32_t receive_buffer_ = 212992;  // net.core.rmem_default
  bool pass_credentials_ = false;
  std::optional<Errno> pending_error_;  // SO_ERROR
  bool listening_ = false;
  bool unaccepted_ = false;
  Stamps stamps_ = Stamps::None;
  bool out_of_band_inline() const { return (flag_options_ >> abi::kSO_OOBINLINE) & 1; }
  // For listings of all sockets: where it is bound, in words; empty when it is not.
  std::string shown_address_;

 private:
  void set_buffer(bool sends, std::int32_t asked, std::uint32_t most);

  friend struct DebugLayout;
  friend class Sockets;
  ListNode all_link_;
  int domain_, type_, protocol_;
  std::int64_t receive_timeout_ns_ = 0, send_timeout_ns_ = 0;
  std::uint32_t receive_low_water_ = 1;
  abi::Linger linger_{0, 0};
  std::uint32_t flag_options_ = 0;  // bit n: the boolean option number n is on
};

// All sockets of the guest, in the order in which they were made.
class Sockets {
 public:
  using All = List<Socket, &Socket::all_link_>;
  static All &all();
  static All *made;  // what all() gives, or nullptr before; for the debugger
};

// An address family: makes sockets, and pairs where it can (OpNotSupp otherwise). `type` without
// the SOCK_ flags.
struct SocketFamily {
  int domain;
  std::function<Result<Ref<Socket>>(int type, int protocol, std::uint32_t flags)> create;
  std::function<Result<std::pair<Ref<Socket>, Ref<Socket>>>(int type, int protocol,
                                                            std::uint32_t flags)>
      create_pair;
};
void register_socket_family(SocketFamily family);
// AfNoSupport when nobody registered the domain.
Result<const SocketFamily *> find_socket_family(int domain);

// AF_UNIX, unix(7).
void register_unix_sockets();

}  // namespace cowbird
