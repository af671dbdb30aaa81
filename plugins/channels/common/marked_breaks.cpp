#include "common/marked_breaks.hpp"

namespace channels {

bool MarkedBreaks::decode(std::span<const std::byte> received, Received &plain, std::string &) {
  constexpr char kMark = '\377';
  for (const std::byte byte : received) {
    const char c = static_cast<char>(byte);
    switch (state_) {
      case State::Plain:
        if (c == kMark) {
          state_ = State::Marked;
        } else {
          plain.bytes += c;
        }
        break;
      case State::Marked:
        state_ = c == '\0' ? State::MarkedZero : State::Plain;
        if (c == '\0') break;
        plain.bytes += kMark;
        if (c != kMark) plain.bytes += c;
        break;
      case State::MarkedZero:
        state_ = State::Plain;
        if (c == '\0') {
          plain.breaks.push_back(plain.bytes.size());
        } else {
          plain.bytes += c;  // a byte with a wrong parity, which is not looked at
        }
        break;
    }
  }
  return true;
}

void MarkedBreaks::encode(std::span<const std::byte> plain, std::string &wire) {
  wire.append(reinterpret_cast<const char *>(plain.data()), plain.size());
}

}  // namespace channels
