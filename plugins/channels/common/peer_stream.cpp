#include "common/peer_stream.hpp"

#include <poll.h>
#include <unistd.h>

#include <array>

namespace channels {

namespace {

// Bytes, 0 at the end, -EAGAIN. A terminal whose other side is closed says EIO, a socket
// ECONNRESET: the end too.
std::int64_t read_some(int fd, std::span<std::byte> buffer) {
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n >= 0) return n;
    if (errno == EAGAIN) return -EAGAIN;
    if (errno != EINTR) return 0;
  }
}

// Bytes, -EAGAIN, or -EPIPE when the peer takes nothing any more. SIGPIPE is ignored by the host.
std::int64_t write_some(int fd, const void *data, std::size_t size) {
  for (;;) {
    const ssize_t n = ::write(fd, data, size);
    if (n > 0) return n;
    if (n < 0 && errno == EINTR) continue;
    return n < 0 && errno == EAGAIN ? -EAGAIN : -EPIPE;
  }
}

std::span<const std::byte> bytes_of(const std::string &text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

void PeerStream::connect(int fd, Codec *codec) {
  fd_ = fd;
  codec_ = codec;
  ended_ = broken_ = false;
  decoded_ = {};
  unsent_.clear();
  const std::string waiting = backlog_.take();
  if (codec_) {
    codec_->start(unsent_);
    codec_->encode(bytes_of(waiting), unsent_);
  } else {
    unsent_ = waiting;
  }
  readiness_.attach(fd, [this](std::uint32_t events) { on_ready(events); });
  // The guest may not be reading; that the peer goes must be seen all the same.
  readiness_.want(COWBIRD_WATCH_PEER_CLOSED | (flush() ? 0 : COWBIRD_WATCH_WRITABLE));
  notify(COWBIRD_CHANNEL_CONNECTED | COWBIRD_CHANNEL_READABLE | COWBIRD_CHANNEL_WRITABLE);
}

void PeerStream::stop() noexcept {
  if (fd_ >= 0) flush();
  readiness_.detach();
  patience_.reset();
  leaving_ = false;
  fd_ = -1;
  ended_ = false;
  backlog_.clear();
  decoded_ = {};
  unsent_.clear();
}

void PeerStream::peer_leaves() {
  if (leaving_) return;
  // Without a timer it waits as long as the guest likes.
  leaving_ = host_.add_timer(patience_, [this] { lose_patience(); }) == 0;
  if (leaving_) patience_.arm(kPatienceNs);
}

// Somebody has opened the pseudoterminal before the end of the one before was read.
void PeerStream::peer_stays() {
  leaving_ = false;
  patience_.reset();
  readiness_.want(COWBIRD_WATCH_PEER_CLOSED);
}

void PeerStream::lose_patience() {
  pollfd peer{fd_, POLLRDHUP, 0};
  if (poll(&peer, 1, 0) == 0) return peer_stays();
  end();
}

// One that has gone reads as an end, not as nothing yet.
std::int64_t PeerStream::nothing_yet() {
  if (leaving_) peer_stays();
  return owe(COWBIRD_WATCH_READABLE);
}

void PeerStream::on_ready(std::uint32_t events) {
  if (events & (COWBIRD_WATCH_PEER_CLOSED | COWBIRD_WATCH_HANGUP | COWBIRD_WATCH_ERROR)) {
    peer_leaves();
  }
  std::uint32_t notice = events & COWBIRD_WATCH_READABLE ? COWBIRD_CHANNEL_READABLE : 0;
  if (events & COWBIRD_WATCH_WRITABLE) {
    if (flush()) {
      notice |= COWBIRD_CHANNEL_WRITABLE;
    } else {
      readiness_.want(COWBIRD_WATCH_WRITABLE);
    }
    // Reading waited for that: see read_decoded.
    if (codec_) notice |= COWBIRD_CHANNEL_READABLE;
  }
  if (notice) notify(notice);
}

bool PeerStream::flush() {
  std::size_t sent = 0;
  while (sent < unsent_.size() && !broken_) {
    const std::int64_t n = write_some(fd_, unsent_.data() + sent, unsent_.size() - sent);
    if (n == -EAGAIN) break;
    if (n < 0) {
      broken_ = true;
    } else {
      sent += static_cast<std::size_t>(n);
    }
  }
  unsent_.erase(0, broken_ ? std::string::npos : sent);
  return unsent_.empty();
}

std::int64_t PeerStream::owe(std::uint32_t events) {
  return readiness_.want(events) == 0 ? -EAGAIN : -EIO;
}

std::int64_t PeerStream::end() {
  readiness_.detach();
  patience_.reset();
  leaving_ = false;
  decoded_ = {};
  fd_ = -1;
  ended_ = true;
  unsent_.clear();
  notify(COWBIRD_CHANNEL_HANGUP);
  gone_();
  return 0;
}

std::int64_t PeerStream::read(std::span<std::byte> buffer) {
  if (fd_ < 0) return ended_ ? 0 : -EAGAIN;
  const std::int64_t n = codec_ ? read_decoded(buffer) : read_plain(buffer);
  if (n > 0 && leaving_) patience_.arm(kPatienceNs);
  return n;
}

std::int64_t PeerStream::read_plain(std::span<std::byte> buffer) {
  const std::int64_t n = read_some(fd_, buffer);
  if (n == -EAGAIN) return nothing_yet();
  return n == 0 ? end() : n;
}

std::int64_t PeerStream::take_decoded(std::span<std::byte> buffer) {
  auto &[bytes, breaks] = decoded_;
  if (!breaks.empty() && breaks.front() == 0) {
    // Told by a notice, which needs a read that ends here; what follows is read after it.
    breaks.erase(breaks.begin());
    notify(COWBIRD_CHANNEL_BREAK | COWBIRD_CHANNEL_READABLE);
    return -EAGAIN;
  }
  const std::size_t end = breaks.empty() ? bytes.size() : breaks.front();
  const std::size_t n = std::min(buffer.size(), end);
  std::memcpy(buffer.data(), bytes.data(), n);
  bytes.erase(0, n);
  for (std::size_t &place : breaks) place -= n;
  return static_cast<std::int64_t>(n);
}

std::int64_t PeerStream::read_decoded(std::span<std::byte> buffer) {
  // A peer that sends nothing for the guest, and that without end, is not alone in the world.
  for (int i = 0; decoded_.empty(); ++i) {
    if (i == kMostChunks) return owe(COWBIRD_WATCH_READABLE);
    // A peer that asks and asks and does not take the answers fills no memory.
    if (unsent_.size() > kMaxUnsent) return owe(COWBIRD_WATCH_WRITABLE);
    std::array<std::byte, kChunk> received;
    const std::int64_t n = read_some(fd_, received);
    if (n == -EAGAIN) return nothing_yet();
    const bool good =
        n > 0 &&
        codec_->decode(std::span(received).first(static_cast<std::size_t>(n)), decoded_, unsent_);
    if (!good) return end();
    if (!flush() && owe(COWBIRD_WATCH_WRITABLE) != -EAGAIN) return -EIO;
  }
  return take_decoded(buffer);
}

int PeerStream::send_break() {
  if (fd_ < 0 || !codec_ || unsent_.size() > kMaxUnsent || !codec_->encode_break(unsent_)) {
    return -ENOTTY;
  }
  if (!flush() && owe(COWBIRD_WATCH_WRITABLE) != -EAGAIN) return -EIO;
  return 0;
}

std::int64_t PeerStream::write(std::span<const std::byte> data) {
  if (fd_ < 0) {
    backlog_.add(data);
    return static_cast<std::int64_t>(data.size());
  }
  if (!flush()) return owe(COWBIRD_WATCH_WRITABLE);
  if (broken_) return -EPIPE;
  if (codec_) {
    const auto chunk = data.first(std::min(data.size(), kChunk));
    codec_->encode(chunk, unsent_);
    if (!flush() && owe(COWBIRD_WATCH_WRITABLE) != -EAGAIN) return -EIO;
    return static_cast<std::int64_t>(chunk.size());
  }
  const std::int64_t n = write_some(fd_, data.data(), data.size());
  if (n == -EAGAIN) return owe(COWBIRD_WATCH_WRITABLE);
  if (n < 0) broken_ = true;
  return n;
}

}  // namespace channels
