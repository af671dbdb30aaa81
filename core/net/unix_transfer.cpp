// AF_UNIX sockets, unix(7): sending and receiving.
#include "abi/poll.hpp"
#include "mm/phys_memory.hpp"
#include "net/unix_socket.hpp"
#include "sched/clock.hpp"
#include "vfs/caller.hpp"

namespace cowbird {

using namespace abi;

namespace {

constexpr std::size_t kPieceMax = 32768;    // of one queued piece of a stream
constexpr std::size_t kDatagramQueue = 10;  // net.unix.max_dgram_qlen, for unconnected senders
constexpr std::size_t kMaxFilesInFlight = 16384;

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

}  // namespace

UnixPacket::~UnixPacket() {
  queued_everywhere -= cost;
  if (ancillary.files.empty()) return;
  files_in_flight -= ancillary.files.size();
  let_go(std::move(ancillary.files));
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

void UnixSocket::stamp(UnixPacket &packet, Ancillary &&ancillary, const UnixSocket &target) const {
  packet.ancillary = std::move(ancillary);
  files_in_flight += packet.ancillary.files.size();
  if (!packet.ancillary.credentials && (target.pass_credentials_ || pass_credentials_)) {
    packet.ancillary.credentials = own_credentials();
  }
  if (!bound_name_.empty()) packet.from = address_text(bound_name_);
  packet.sent_ns = clock::realtime_ns();
}

void UnixSocket::deliver(UnixSocket &target, UnixPacketPtr packet) {
  packet->cost = packet->data.size() + kPacketCost;
  queued_everywhere += packet->cost;
  target.queued_bytes_ += packet->data.size();
  target.queue_.push_back(std::move(packet));
  target.read_wait_.wake_one(kPOLLIN | kPOLLRDNORM);
}

Result<std::uint64_t> UnixSocket::send(SendRequest &request) {
  if ((request.flags & kMSG_OOB) && (!is_stream() || request.data.remaining() == 0))
    return Err(Errno::OpNotSupp);
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
  auto packet = std::make_unique<UnixPacket>();
  packet->data.resize(length);
  if (length > 0 &&
      TRY(request.data.copy_from(std::as_writable_bytes(std::span(packet->data)))) != length) {
    return Err(Errno::Fault);
  }
  stamp(*packet, std::move(request.ancillary), *target);
  deliver(*target, std::move(packet));
  return length;
}

// Sends at most `bytes` more, as one piece.
Result<std::uint64_t> UnixSocket::send_piece(SendRequest &request, UnixSocket &target,
                                             std::size_t bytes, std::int64_t deadline) {
  TRY(wait_for_room(target, bytes, request.flags, deadline));
  if (write_shut_ || peer_ == nullptr || target.read_shut_) return Err(Errno::Pipe);
  if (queued_everywhere + bytes > max_queued_everywhere()) return Err(Errno::NoBufs);
  auto packet = std::make_unique<UnixPacket>();
  packet->data.resize(bytes);
  const std::uint64_t copied =
      TRY(request.data.copy_from(std::as_writable_bytes(std::span(packet->data))));
  // The copy may have slept for a page: the peer may have gone meanwhile.
  if (peer_ == nullptr) return Err(Errno::Pipe);
  packet->data.resize(copied);
  stamp(*packet, std::exchange(request.ancillary, {}), target);
  deliver(target, std::move(packet));
  return copied;
}

// What was sent last is out-of-band data; what was so before becomes a part of the stream.
void UnixSocket::mark_out_of_band(UnixSocket &target) {
  target.out_of_band_ = target.queue_.back().get();
  target.read_wait_.wake_all(kPOLLIN | kPOLLPRI);
  if (target.async_owner == 0) return;
  caller::send_io_signal({.owner = target.async_owner,
                          .uid = target.async_uid,
                          .euid = target.async_euid,
                          .urgent = true});
}

Result<std::uint64_t> UnixSocket::send_stream(SendRequest &request, UnixSocket &target) {
  const std::int64_t deadline = send_deadline();
  const std::uint64_t length = request.data.remaining();
  // The last byte alone is out of band.
  const std::uint64_t ordinary = length - ((request.flags & kMSG_OOB) != 0 ? 1 : 0);
  std::uint64_t total = 0;
  while (total < length) {
    const std::size_t want =
        std::min<std::uint64_t>({total < ordinary ? ordinary - total : 1, kPieceMax,
                                 std::max<std::uint64_t>(send_buffer_ / 2, 1)});
    const auto sent = send_piece(request, target, want, deadline);
    if (!sent && total > 0) return total;
    if (sent.is(Errno::Pipe)) return broken_pipe(request.flags);
    total += TRY(sent);
    if (total > ordinary) mark_out_of_band(target);
    if (*sent < want) break;
  }
  return total;
}

// --- receiving

// True when there is something to read, false at the end.
// `behind`: messages that do not count, because they are peeked already.
Result<bool> UnixSocket::wait_readable(std::uint32_t flags, std::int64_t deadline,
                                       std::size_t behind) {
  if (queue_.size() > behind) return true;
  if (pending_error_) {
    const Errno error = *pending_error_;
    pending_error_.reset();
    return Err(error);
  }
  if (at_end()) return false;
  if (is_nonblocking(flags)) return Err(Errno::Again);
  const auto waited = wait_event(
      read_wait_, [&] { return queue_.size() > behind || at_end() || pending_error_; },
      SleepMode::Interruptible, "unix_receive", deadline, true);
  if (waited.is(Errno::TimedOut)) return Err(Errno::Again);
  TRY(waited);
  if (queue_.size() > behind) return true;
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

void UnixSocket::fill_ancillary(ReceiveRequest &request, UnixPacket &packet, bool peek) const {
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
  if ((request.flags & kMSG_OOB) && !is_stream()) return Err(Errno::OpNotSupp);
  if (!is_datagram() && peer_ == nullptr && !was_connected_) {
    return Err(is_stream() ? Errno::Inval : Errno::NotConn);
  }
  if (request.flags & kMSG_OOB) return receive_out_of_band(request);
  return is_stream() ? receive_stream(request) : receive_packet(request);
}

Result<std::uint64_t> UnixSocket::receive_out_of_band(ReceiveRequest &request) {
  SleepLock reading(read_lock_);
  const auto place = std::find_if(queue_.begin(), queue_.end(), [&](const UnixPacketPtr &packet) {
    return packet.get() == out_of_band_;
  });
  if (out_of_band_inline() || place == queue_.end()) return Err(Errno::Inval);
  UnixPacket &packet = **place;
  if (request.data.remaining() > 0)
    TRY(request.data.copy_to(std::as_bytes(std::span(packet.data))));
  fill_ancillary(request, packet, request.flags & kMSG_PEEK);
  request.out_flags |= kMSG_OOB;
  if (request.flags & kMSG_PEEK) return std::uint64_t{1};
  if (out_of_band_ == &packet) out_of_band_ = nullptr;
  packet.taken = packet.data.size();
  consumed(packet.data.size());
  return std::uint64_t{1};
}

// Whether the stream's next byte is where out-of-band data is or was (SIOCATMARK).
bool UnixSocket::at_mark() const {
  if (queue_.empty()) return false;
  const UnixPacket &front = *queue_.front();
  if (&front == out_of_band_) return true;
  const UnixPacket *next = queue_.size() > 1 ? queue_[1].get() : nullptr;
  return front.taken == front.data.size() && (!out_of_band_ || next == out_of_band_);
}

// The piece at `at` may be out-of-band data or the mark that it has left: a read stops there, and
// the next one passes it, without the data unless SO_OOBINLINE has it in the stream.
UnixSocket::Mark UnixSocket::meet_mark(std::size_t &at, bool peek, bool has_data) {
  UnixPacket &packet = *queue_[at];
  const std::size_t left = packet.data.size() - packet.taken;
  const bool current = &packet == out_of_band_;
  if (!current && left > 0) return Mark::None;
  if (has_data && (current || !out_of_band_)) return Mark::Stop;
  if (current && !peek) out_of_band_ = nullptr;
  if (current && out_of_band_inline()) return Mark::None;
  if (peek) {
    ++at;
    return Mark::Passed;
  }
  queue_.erase(queue_.begin() + static_cast<std::ptrdiff_t>(at));
  consumed(left);
  return Mark::Passed;
}

Result<std::uint64_t> UnixSocket::receive_stream(ReceiveRequest &request) {
  const std::int64_t deadline = receive_deadline();
  const bool peek = request.flags & kMSG_PEEK;
  std::uint64_t total = 0;
  std::size_t at = 0;  // of the piece, while peeking
  std::uint64_t skip = peek_skip(peek);
  while (request.data.remaining() > 0) {
    if (at >= queue_.size()) {
      if (total > 0 && (!(request.flags & kMSG_WAITALL) || peek)) break;
      const auto ready = wait_readable(request.flags, deadline, at);
      if (!ready) return total > 0 ? Result<std::uint64_t>(total) : Err(ready.error());
      if (!*ready) break;
    }
    // Copying may sleep for a page; nobody else may take the piece meanwhile.
    SleepLock reading(read_lock_);
    if (at >= queue_.size()) continue;
    const Mark mark = meet_mark(at, peek, total > 0);
    if (mark == Mark::Stop) break;
    if (mark == Mark::Passed) continue;
    UnixPacket &packet = *queue_[at];
    const bool has_files = !packet.ancillary.files.empty();
    // Descriptors and credentials stay with their bytes: data of another kind is for the next call.
    if (total > 0 &&
        (has_files ||
         (pass_credentials_ && packet.ancillary.credentials && request.ancillary.credentials &&
          packet.ancillary.credentials->pid != request.ancillary.credentials->pid))) {
      break;
    }
    std::string_view rest = std::string_view(packet.data).substr(packet.taken);
    if (skip >= rest.size()) {
      skip -= rest.size();
      ++at;
      continue;
    }
    rest.remove_prefix(skip);
    skip = 0;
    const auto copied = request.data.copy_to(std::as_bytes(std::span(rest)));
    if (!copied) return total > 0 ? Result<std::uint64_t>(total) : Err(copied.error());
    fill_ancillary(request, packet, peek);
    total += *copied;
    if (peek) {
      ++at;
      move_peek_offset(static_cast<std::int64_t>(*copied));
    } else {
      packet.taken += *copied;
      const bool done = packet.taken == packet.data.size();
      if (done) queue_.pop_front();
      consumed(*copied);
      move_peek_offset(-static_cast<std::int64_t>(*copied));
    }
    if (has_files) break;
  }
  return total;
}

// The message that a peek with SO_PEEK_OFF comes to; what is left of `skip` lies inside of it.
std::size_t UnixSocket::find_packet(std::uint64_t &skip) const {
  std::size_t at = 0;
  while (at < queue_.size() && skip > 0 && skip >= queue_[at]->data.size())
    skip -= queue_[at++]->data.size();
  return at;
}

Result<std::uint64_t> UnixSocket::receive_packet(ReceiveRequest &request) {
  const std::int64_t deadline = receive_deadline();
  const bool peek = request.flags & kMSG_PEEK;
  SleepLock reading(read_lock_);
  std::uint64_t skip = peek_skip(peek);
  std::size_t at = find_packet(skip);
  while (at >= queue_.size()) {
    // Nothing there, or another reader was faster.
    read_lock_.unlock();
    const auto ready = wait_readable(request.flags, deadline, at);
    read_lock_.lock();
    if (!TRY(ready)) return std::uint64_t{0};
    skip = peek_skip(peek);
    at = find_packet(skip);
  }
  UnixPacket &packet = *queue_[at];
  const std::uint64_t room = request.data.remaining();
  UnixPacketPtr taken;
  if (!peek) {
    taken = std::move(queue_.front());
    queue_.pop_front();
    consumed(taken->data.size());
    move_peek_offset(-static_cast<std::int64_t>(packet.data.size()));
  }
  const std::string_view data = std::string_view(packet.data).substr(skip);
  std::uint64_t copied = 0;
  if (room > 0 && !data.empty()) copied = TRY(request.data.copy_to(std::as_bytes(std::span(data))));
  if (peek) move_peek_offset(static_cast<std::int64_t>(copied));
  request.full_length = data.size();
  if (data.size() > room) request.out_flags |= kMSG_TRUNC;
  request.from = packet.from;
  if (stamps_ != Stamps::None) request.ancillary.sent_ns = packet.sent_ns;
  fill_ancillary(request, packet, peek);
  return copied;
}

}  // namespace cowbird
