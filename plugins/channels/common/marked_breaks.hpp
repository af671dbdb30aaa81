// What a serial port of the host reads as when its modes mark breaks (PARMRK without INPCK, see
// termios(3)): a break is \377 \0 \0, and a byte \377 is doubled. What the guest writes passes as
// it is. For TerminalPeer.
#pragma once

#include "common/peer_stream.hpp"

namespace channels {

class MarkedBreaks final : public Codec {
 public:
  void start(std::string &) override { state_ = State::Plain; }
  // Never false. Marks may come in pieces; what is no mark (somebody else has changed the modes)
  // passes as it is.
  bool decode(std::span<const std::byte> received, Received &plain, std::string &wire) override;
  void encode(std::span<const std::byte> plain, std::string &wire) override;

 private:
  enum class State : std::uint8_t { Plain, Marked, MarkedZero };  // nothing; \377; \377 \0

  State state_ = State::Plain;
};

}  // namespace channels
