// A stream with a peer that comes and goes: the reads and writes of a channel whose other side is a
// connected socket or a terminal that somebody opened. For the channel plugins, on the device's own
// calls.
//
// Nobody there: reads have nothing, what is written goes to a backlog, the guest is not held up. A
// peer comes: CONNECTED, then it gets the backlog. While it is there nothing is lost: a peer that
// does not read makes writes answer -EAGAIN. It goes: what it sent is read first, then comes HANGUP
// and the end of file, until the next one. A guest that reads nothing of it for a while does not
// keep the dead peer for ever; the rest is dropped.
#pragma once

#include <cowbird/channel.hpp>
#include <functional>
#include <vector>

#include "common/backlog.hpp"
#include "common/readiness.hpp"

namespace channels {

// What a peer has sent, in the guest's form.
struct Received {
  std::string bytes;
  std::vector<std::size_t> breaks;  // how many of the bytes were before each break of the line

  bool empty() const { return bytes.empty() && breaks.empty(); }
};

// What lies between the guest's bytes and those on the wire. Each function appends.
class Codec {
 public:
  virtual ~Codec() = default;
  // A new peer.
  virtual void start(std::string &wire) = 0;
  // Bytes from the peer; answers to it go to `wire`. False: the peer breaks the protocol and has to
  // go.
  virtual bool decode(std::span<const std::byte> received, Received &plain, std::string &wire) = 0;
  virtual void encode(std::span<const std::byte> plain, std::string &wire) = 0;
  // A break for the peer; false: it knows none.
  virtual bool encode_break(std::string &) { return false; }
};

class PeerStream {
 public:
  // `gone` is called when the peer has left, after the stream has let go of its descriptor.
  PeerStream(const cowbird::sdk::Host &host, std::function<void()> gone)
      : host_(host), readiness_(host), gone_(std::move(gone)) {}

  // A peer is there. `fd` does not block and stays the caller's until gone() or stop(). `codec` may
  // be null: bytes pass as they are.
  void connect(int fd, Codec *codec = nullptr);
  // The channel was closed; forgets the peer and the backlog. Sends what can be sent at once.
  void stop() noexcept;
  bool connected() const { return fd_ >= 0; }

  // As cowbird_channel_ops.
  std::int64_t read(std::span<std::byte> buffer);
  std::int64_t write(std::span<const std::byte> data);
  // Sends a break through the codec; -ENOTTY without one that can.
  int send_break();
  // Bytes that wait for a peer that is there, in the wire's form.
  std::int64_t unsent() const { return fd_ < 0 ? 0 : static_cast<std::int64_t>(unsent_.size()); }

 private:
  static constexpr std::size_t kChunk = 4096;
  static constexpr int kMostChunks = 64;  // that one read takes
  // Bytes that wait for the peer, above which it is not listened to: it answers nothing either.
  static constexpr std::size_t kMaxUnsent = 256ul * 1024;

  // How long a peer that has gone waits for the guest to read on.
  static constexpr std::int64_t kPatienceNs = 5'000'000'000;

  void on_ready(std::uint32_t events);
  void peer_leaves();
  void peer_stays();
  void lose_patience();
  std::int64_t nothing_yet();
  std::int64_t read_plain(std::span<std::byte> buffer);
  bool flush();  // false: there is something left
  std::int64_t read_decoded(std::span<std::byte> buffer);
  std::int64_t take_decoded(std::span<std::byte> buffer);
  std::int64_t owe(std::uint32_t events);
  std::int64_t end();
  void notify(std::uint32_t events) const { host_.table().channel_notify(host_.device(), events); }

  const cowbird::sdk::Host &host_;
  Readiness readiness_;
  const std::function<void()> gone_;
  int fd_ = -1;
  Codec *codec_ = nullptr;
  bool ended_ = false;    // a peer has gone and no other has come
  bool leaving_ = false;  // the peer has gone, and what it sent is not all read
  cowbird::sdk::Timer patience_;
  bool broken_ = false;  // the peer takes nothing any more; reads will find the end
  Backlog backlog_;
  Received decoded_;    // from the peer, not read yet
  std::string unsent_;  // for the peer, in the wire's form
};

}  // namespace channels
