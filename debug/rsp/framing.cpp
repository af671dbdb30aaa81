#include "debug/rsp/framing.hpp"

#include <algorithm>
#include <array>

#include "debug/rsp/hex.hpp"

namespace cowbird::debug {

namespace {

constexpr char kEscape = '}';
constexpr char kEscapeBit = 0x20;
constexpr unsigned char kInterrupt = 3;

constexpr bool must_escape(char c) { return c == '$' || c == '#' || c == '}' || c == '*'; }

// "x*n" is x and n-29 more of it, n printable. The manual forbids counts that look like '#' and
// '$';
// '+' and '-' would confuse those who look for acknowledgements.
constexpr std::size_t kMinRepeat = 3;
constexpr std::size_t kMaxRepeat = 126 - 29;
constexpr std::size_t allowed_repeat(std::size_t n) {
  n = std::min(n, kMaxRepeat);
  while (n + 29 == '#' || n + 29 == '$' || n + 29 == '+' || n + 29 == '-') --n;
  return n;
}

void append_frame(std::string &out, char start, std::string_view payload) {
  const auto from = out.size() + 1;
  out += start;
  for (std::size_t i = 0; i < payload.size();) {
    const char c = payload[i];
    if (must_escape(c)) {
      out += kEscape;
      out += static_cast<char>(c ^ kEscapeBit);
      ++i;
      continue;
    }
    out += c;
    auto end = i + 1;
    while (end < payload.size() && payload[end] == c && end - i <= kMaxRepeat) ++end;
    auto repeat = end - i - 1;
    if (repeat >= kMinRepeat) {
      repeat = allowed_repeat(repeat);
      out += '*';
      out += static_cast<char>(repeat + 29);
    } else {
      repeat = 0;
    }
    i += 1 + repeat;
  }
  unsigned char sum = 0;
  for (auto i = from; i < out.size(); ++i)
    sum = static_cast<unsigned char>(sum + static_cast<unsigned char>(out[i]));
  out += '#';
  append_hex(out, std::array{std::byte{sum}});
}

}  // namespace

PacketReader::Event PacketReader::push(unsigned char c) {
  switch (state_) {
    case State::Idle:
      return idle(c);
    case State::Payload:
    case State::Escaped:
      payload(c);
      return Event::None;
    case State::Sum1:
      expected_[0] = static_cast<char>(c);
      state_ = State::Sum2;
      return Event::None;
    case State::Sum2:
      expected_[1] = static_cast<char>(c);
      return finish();
  }
  return Event::None;
}

PacketReader::Event PacketReader::idle(unsigned char c) {
  switch (c) {
    case '$':
    case '%':
      begin();
      notification_ = c == '%';
      return Event::None;
    case '+':
      return Event::Ack;
    case '-':
      return Event::Nack;
    case kInterrupt:
      return Event::Interrupt;
    default:
      return Event::None;  // noise of a line, or the rest of a packet that was cut
  }
}

void PacketReader::begin() {
  state_ = State::Payload;
  payload_.clear();
  sum_ = 0;
  too_long_ = notification_ = false;
}

void PacketReader::payload(unsigned char c) {
  if (state_ == State::Payload && c == '$') {  // it is always escaped inside: the last one was cut
    begin();
    return;
  }
  if (state_ == State::Payload && c == '#') {
    state_ = State::Sum1;
    return;
  }
  sum_ = static_cast<unsigned char>(sum_ + c);
  if (state_ == State::Payload && c == kEscape) {
    state_ = State::Escaped;
    return;
  }
  if (state_ == State::Escaped) c = static_cast<unsigned char>(c ^ kEscapeBit);
  state_ = State::Payload;
  store(c);
}

void PacketReader::store(unsigned char c) {
  if (payload_.size() >= max_size_) {
    too_long_ = true;
    return;
  }
  payload_ += static_cast<char>(c);
}

PacketReader::Event PacketReader::finish() {
  state_ = State::Idle;
  if (notification_) return Event::None;
  if (check_ && hex_number(std::string_view(expected_, 2)) != sum_) return Event::BadChecksum;
  return too_long_ ? Event::TooLong : Event::Packet;
}

void append_packet(std::string &out, std::string_view payload) { append_frame(out, '$', payload); }

void append_notification(std::string &out, std::string_view payload) {
  append_frame(out, '%', payload);
}

}  // namespace cowbird::debug
