#include "tty/console_protocol.hpp"

#include <algorithm>

namespace cowbird::console_protocol {
namespace {

constexpr std::uint16_t kFlagReadOnly = 1;
constexpr std::uint16_t kFlagUnopened = 1;
constexpr std::size_t kHelloSize = 12;
constexpr std::size_t kWelcomeSize = 5;

void put16(std::vector<std::byte> &to, std::uint16_t value) {
  to.push_back(static_cast<std::byte>(value & 0xff));
  to.push_back(static_cast<std::byte>(value >> 8));
}

void put32(std::vector<std::byte> &to, std::uint32_t value) {
  put16(to, static_cast<std::uint16_t>(value & 0xffff));
  put16(to, static_cast<std::uint16_t>(value >> 16));
}

std::uint16_t get16(std::span<const std::byte> from, std::size_t at) {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(from[at]) |
                                    std::to_integer<unsigned>(from[at + 1]) << 8);
}

std::uint32_t get32(std::span<const std::byte> from, std::size_t at) {
  return get16(from, at) | std::uint32_t{get16(from, at + 2)} << 16;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

bool is_name(std::string_view name) {
  return name.size() <= kMaxDeviceName &&
         std::ranges::all_of(name, [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace

void FrameReader::feed(std::span<const std::byte> bytes) {
  if (bad_) return;
  bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(used_));
  used_ = 0;
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

std::optional<Frame> FrameReader::next() {
  const auto rest = std::span<const std::byte>(bytes_).subspan(used_);
  if (bad_ || rest.size() < kHeaderSize) return std::nullopt;
  const auto type = std::to_integer<std::uint8_t>(rest[0]);
  const std::size_t length = get16(rest, 2);
  if (type < static_cast<std::uint8_t>(FrameType::Hello) ||
      type > static_cast<std::uint8_t>(FrameType::Dropped) || rest[1] != std::byte{0} ||
      length > kMaxPayload) {
    bad_ = true;
    return std::nullopt;
  }
  if (rest.size() - kHeaderSize < length) return std::nullopt;
  used_ += kHeaderSize + length;
  return Frame{static_cast<FrameType>(type), rest.subspan(kHeaderSize, length)};
}

void append_frame(std::vector<std::byte> &to, FrameType type, std::span<const std::byte> payload) {
  to.push_back(static_cast<std::byte>(type));
  to.push_back(std::byte{0});
  put16(to, static_cast<std::uint16_t>(payload.size()));
  to.insert(to.end(), payload.begin(), payload.end());
}

void append_frame(std::vector<std::byte> &to, FrameType type, std::string_view text) {
  append_frame(to, type, bytes_of(text.substr(0, kMaxPayload)));
}

void append_data(std::vector<std::byte> &to, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), kMaxPayload));
    append_frame(to, FrameType::Data, part);
    bytes = bytes.subspan(part.size());
  }
}

void append_hello(std::vector<std::byte> &to, const Hello &hello) {
  std::vector<std::byte> payload;
  put32(payload, hello.magic);
  put16(payload, hello.version);
  put16(payload, hello.read_only ? kFlagReadOnly : 0);
  put16(payload, hello.window.rows);
  put16(payload, hello.window.columns);
  const auto name = bytes_of(hello.device);
  payload.insert(payload.end(), name.begin(), name.end());
  append_frame(to, FrameType::Hello, payload);
}

void append_welcome(std::vector<std::byte> &to, const Welcome &welcome) {
  std::vector<std::byte> payload;
  put16(payload, welcome.version);
  put16(payload, welcome.unopened ? kFlagUnopened : 0);
  payload.push_back(static_cast<std::byte>(welcome.device.size()));
  for (const auto &name : {welcome.device, welcome.guest}) {
    const auto bytes = bytes_of(name);
    payload.insert(payload.end(), bytes.begin(), bytes.end());
  }
  append_frame(to, FrameType::Welcome, payload);
}

void append_window(std::vector<std::byte> &to, WindowSize size) {
  std::vector<std::byte> payload;
  put16(payload, size.rows);
  put16(payload, size.columns);
  append_frame(to, FrameType::Window, payload);
}

std::optional<Hello> parse_hello(std::span<const std::byte> payload) {
  if (payload.size() < kHelloSize) return std::nullopt;
  Hello hello;
  hello.magic = get32(payload, 0);
  hello.version = get16(payload, 4);
  hello.read_only = (get16(payload, 6) & kFlagReadOnly) != 0;
  hello.window = {get16(payload, 8), get16(payload, 10)};
  hello.device = text_of(payload.subspan(kHelloSize));
  if (!is_name(hello.device)) return std::nullopt;
  return hello;
}

std::optional<Welcome> parse_welcome(std::span<const std::byte> payload) {
  if (payload.size() < kWelcomeSize) return std::nullopt;
  const auto length = std::to_integer<std::size_t>(payload[4]);
  if (payload.size() - kWelcomeSize < length) return std::nullopt;
  Welcome welcome;
  welcome.version = get16(payload, 0);
  welcome.unopened = (get16(payload, 2) & kFlagUnopened) != 0;
  welcome.device = text_of(payload.subspan(kWelcomeSize, length));
  welcome.guest = text_of(payload.subspan(kWelcomeSize + length));
  if (!is_name(welcome.device)) return std::nullopt;
  return welcome;
}

std::optional<WindowSize> parse_window(std::span<const std::byte> payload) {
  if (payload.size() != 4) return std::nullopt;
  return WindowSize{get16(payload, 0), get16(payload, 2)};
}

std::string text_of(std::span<const std::byte> payload) {
  std::string text(payload.size(), '\0');
  std::ranges::transform(payload, text.begin(), [](std::byte b) { return static_cast<char>(b); });
  return text;
}

}  // namespace cowbird::console_protocol
