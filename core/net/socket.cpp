#include "net/socket.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "abi/stat.hpp"
#include "proc/task.hpp"
#include "sched/clock.hpp"

namespace cowbird {

using namespace abi;

namespace {

// With Linux's allowance for its own book-keeping.
constexpr std::uint32_t kSendBufferMin = 4608, kReceiveBufferMin = 2304, kBufferMax = 2 * 212992;
constexpr std::uint32_t kForcedMax = 0x7fff'fffe;  // no limit but that of the number

std::vector<SocketFamily> &families() {
  static std::vector<SocketFamily> list;
  return list;
}

std::string as_option(std::int32_t value) {
  return {reinterpret_cast<const char *>(&value), sizeof(value)};
}

Result<std::int32_t> int_option(std::string_view value) {
  std::int32_t number = 0;
  if (value.size() < sizeof(number)) return Err(Errno::Inval);
  std::memcpy(&number, value.data(), sizeof(number));
  return number;
}

struct Timeval {
  std::int64_t sec, usec;
};

std::string timeout_option(std::int64_t ns) {
  const Timeval tv{ns / kNsPerSec, ns % kNsPerSec / kNsPerUs};
  return {reinterpret_cast<const char *>(&tv), sizeof(tv)};
}

Result<std::int64_t> parse_timeout(std::string_view value) {
  Timeval tv{};
  if (value.size() < sizeof(tv)) return Err(Errno::Inval);
  std::memcpy(&tv, value.data(), sizeof(tv));
  if (tv.usec < 0 || tv.usec >= 1'000'000) return Err(Errno::Dom);
  if (tv.sec < 0) return std::int64_t{0};
  constexpr std::int64_t kLongest = INT64_MAX / kNsPerSec / 2;
  if (tv.sec > kLongest) return std::int64_t{0};  // longer than the guest will live: no limit
  return tv.sec * kNsPerSec + tv.usec * kNsPerUs;
}

// Booleans that are kept and shown.
bool is_flag_option(int name) {
  return name == kSO_DEBUG || name == kSO_REUSEADDR || name == kSO_DONTROUTE ||
         name == kSO_BROADCAST || name == kSO_KEEPALIVE || name == kSO_OOBINLINE ||
         name == kSO_REUSEPORT;
}

}  // namespace

Socket::Socket(int domain, int type, int protocol, std::uint32_t flags)
    : File((flags & kSOCK_NONBLOCK) | 2u), domain_(domain), type_(type), protocol_(protocol) {
  inode = make_anonymous_inode(static_cast<std::uint32_t>(FileType::Socket) | 0777,
                               current_task().credentials);
  Sockets::all().push_back(*this);
}

constinit Sockets::All *Sockets::made = nullptr;

Sockets::All &Sockets::all() {
  // Never destroyed: sockets may outlive static objects.
  static auto *const sockets = made = new All;
  return *sockets;
}

std::string Socket::describe() const {
  return fmt::format("socket:[{}]", inode ? inode->number() : 0);
}

Result<std::uint64_t> Socket::read(IovIter &to, std::uint64_t &) {
  // Unlike recv(2) of nothing, this neither waits nor takes a datagram.
  if (to.remaining() == 0) return std::uint64_t{0};
  ReceiveRequest request{.data = to, .flags = 0, .from = {}, .ancillary = {}};
  return receive(request);
}

Result<std::uint64_t> Socket::write(IovIter &from, std::uint64_t &) {
  SendRequest request{.data = from, .to = nullptr, .ancillary = {}, .flags = 0};
  return send(request);
}

std::int64_t Socket::receive_deadline() const {
  return receive_timeout_ns_ == 0 ? kNoDeadline : clock::monotonic_ns() + receive_timeout_ns_;
}
std::int64_t Socket::send_deadline() const {
  return send_timeout_ns_ == 0 ? kNoDeadline : clock::monotonic_ns() + send_timeout_ns_;
}

Err Socket::broken_pipe(std::uint32_t message_flags) const {
  if (!(message_flags & kMSG_NOSIGNAL)) {
    SignalInfo info;
    info.signal = kSigPipe;
    info.code = 0x80;  // SI_KERNEL
    [[maybe_unused]] const auto sent = send_signal(current_task(), info);
  }
  return Err(Errno::Pipe);
}

Result<std::string> Socket::get_common_option(int name) {
  if (is_flag_option(name)) return as_option((flag_options_ >> name) & 1);
  switch (name) {
    case kSO_TYPE:
      return as_option(type_);
    case kSO_DOMAIN:
      return as_option(domain_);
    case kSO_PROTOCOL:
      return as_option(protocol_);
    case kSO_ACCEPTCONN:
      return as_option(listening_ ? 1 : 0);
    case kSO_ERROR: {
      const int error = pending_error_ ? static_cast<int>(*pending_error_) : 0;
      pending_error_.reset();
      return as_option(error);
    }
    case kSO_SNDBUF:
      return as_option(static_cast<std::int32_t>(send_buffer_));
    case kSO_RCVBUF:
      return as_option(static_cast<std::int32_t>(receive_buffer_));
    case kSO_RCVLOWAT:
      return as_option(static_cast<std::int32_t>(receive_low_water_));
    case kSO_PASSCRED:
      return as_option(pass_credentials_ ? 1 : 0);
    case kSO_RCVTIMEO:
      return timeout_option(receive_timeout_ns_);
    case kSO_SNDTIMEO:
      return timeout_option(send_timeout_ns_);
    case kSO_TIMESTAMP:
      return as_option(stamps_ == Stamps::Micro ? 1 : 0);
    case kSO_TIMESTAMPNS:
      return as_option(stamps_ == Stamps::Nano ? 1 : 0);
    case kSO_LINGER:
      return std::string(reinterpret_cast<const char *>(&linger_), sizeof(linger_));
    default:
      return Err(Errno::NoProtoOpt);
  }
}

// socket(7): the kernel doubles the value, to allow for its own book-keeping.
void Socket::set_buffer(bool sends, std::int32_t asked, std::uint32_t most) {
  const std::uint32_t doubled =
      std::min(static_cast<std::uint32_t>(std::max(0, asked)), most / 2) * 2;
  std::uint32_t &buffer = sends ? send_buffer_ : receive_buffer_;
  buffer = std::clamp(doubled, sends ? kSendBufferMin : kReceiveBufferMin, most);
}

Result<void> Socket::set_common_option(int name, std::string_view value) {
  if (is_flag_option(name)) {
    const bool on = TRY(int_option(value)) != 0;
    flag_options_ = (flag_options_ & ~(1u << name)) | (on ? 1u << name : 0);
    return {};
  }
  switch (name) {
    case kSO_SNDBUF:
    case kSO_RCVBUF:
      set_buffer(name == kSO_SNDBUF, TRY(int_option(value)), kBufferMax);
      return {};
    case kSO_SNDBUFFORCE:
    case kSO_RCVBUFFORCE:
      if (!current_task().credentials.capable(Capability::NetAdmin)) return Err(Errno::Perm);
      set_buffer(name == kSO_SNDBUFFORCE, TRY(int_option(value)), kForcedMax);
      return {};
    case kSO_TIMESTAMP:
    case kSO_TIMESTAMPNS: {
      const bool on = TRY(int_option(value)) != 0;
      stamps_ = !on ? Stamps::None : (name == kSO_TIMESTAMP ? Stamps::Micro : Stamps::Nano);
      return {};
    }
    case kSO_PASSCRED:
      pass_credentials_ = TRY(int_option(value)) != 0;
      return {};
    case kSO_RCVLOWAT:
      receive_low_water_ = static_cast<std::uint32_t>(std::max(1, TRY(int_option(value))));
      return {};
    case kSO_RCVTIMEO:
      receive_timeout_ns_ = TRY(parse_timeout(value));
      return {};
    case kSO_SNDTIMEO:
      send_timeout_ns_ = TRY(parse_timeout(value));
      return {};
    case kSO_LINGER:
      if (value.size() < sizeof(linger_)) return Err(Errno::Inval);
      std::memcpy(&linger_, value.data(), sizeof(linger_));
      return {};
    default:
      return Err(Errno::NoProtoOpt);
  }
}

void register_socket_family(SocketFamily family) { families().push_back(std::move(family)); }

Result<const SocketFamily *> find_socket_family(int domain) {
  for (const SocketFamily &family : families()) {
    if (family.domain == domain) return &family;
  }
  return Err(Errno::AfNoSupport);
}

}  // namespace cowbird
