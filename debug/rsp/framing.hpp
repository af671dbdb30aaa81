// Framing of gdb's remote serial protocol (GDB manual, "Overview" and "Packet Acknowledgment"):
// bytes become packets, acknowledgements and interrupts; payloads become bytes. No input crashes it
// or makes it keep more than one packet of the largest size.
//
// Used by the session, one reader for each connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cowbird::debug {

class PacketReader {
 public:
  enum class Event : std::uint8_t {
    None,         // more bytes are needed
    Packet,       // take() has the payload
    Interrupt,    // 0x03 between packets
    Ack,          // '+'
    Nack,         // '-': send the last packet again
    BadChecksum,  // a packet came damaged and was dropped
    TooLong,      // a packet was longer than max_size and was dropped
  };

  explicit PacketReader(std::size_t max_size) : max_size_(max_size) {}

  // One byte of the connection.
  Event push(unsigned char c);
  // The payload of the last Packet, escapes resolved.
  std::string take() { return std::move(payload_); }
  // After QStartNoAckMode the checksum is still there but means nothing.
  void ignore_checksums() { check_ = false; }

 private:
  enum class State : std::uint8_t { Idle, Payload, Escaped, Sum1, Sum2 };
  Event idle(unsigned char c);
  void payload(unsigned char c);
  void store(unsigned char c);
  void begin();
  Event finish();

  std::size_t max_size_;
  State state_ = State::Idle;
  bool check_ = true;
  bool notification_ = false;  // gdb sends none; one is dropped whole
  bool too_long_ = false;
  unsigned char sum_ = 0;
  char expected_[2] = {};
  std::string payload_;
};

// Appends `$payload#sum`: escaped, and runs of one character shortened (a register dump is mostly
// zeros).
void append_packet(std::string &out, std::string_view payload);
// Appends `%payload#sum`.
void append_notification(std::string &out, std::string_view payload);

}  // namespace cowbird::debug
