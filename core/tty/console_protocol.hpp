// The protocol between `cowbird console` and a guest, on the stream socket `console` of the
// instance directory. Both sides send frames; the client speaks first. For tty/console_server.hpp,
// the client (cli/console_client.hpp) and tests; anyone may include this header.
//
//   frame     u8 type, u8 zero, u16 length, then `length` bytes; numbers are little-endian
//
//   client    Hello   u32 magic, u16 version, u16 flags (1: only watches), u16 rows, u16 columns,
//                     then the device's name; empty: con0. The first frame, once
//             Data    typed bytes
//             Window  u16 rows, u16 columns, after a change of the client's terminal
//   server    Welcome u16 version, u16 flags (1: the guest has not opened the device yet), u8
//   length
//                     of the device's name, its name, then the guest's name. Answers Hello; the
//                     latest output follows as Data
//             Refused a sentence: why Hello was not accepted. The server closes
//             Data    output of the device, whole frames in order
//             HangUp  a sentence: the device or the guest has ended. The server closes
//             Dropped a sentence: the server gives the client up (it was too slow, it does not
//                     keep to the protocol), and closes
//
// A client leaves by closing the socket. When the guest ends, the socket closes without a frame.
// Rows and columns 0 mean that the client has no window. Versions: a server refuses a Hello of
// another version in a Refused frame; what is above stays as it is in all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cowbird::console_protocol {

inline constexpr std::uint32_t kMagic = 0x4e4f4357;  // "WCON"
inline constexpr std::uint16_t kVersion = 1;
inline constexpr std::size_t kHeaderSize = 4;
inline constexpr std::size_t kMaxPayload = 8192;
inline constexpr std::size_t kMaxDeviceName = 32;

enum class FrameType : std::uint8_t {
  Hello = 1,
  Data = 2,
  Window = 3,
  Welcome = 4,
  Refused = 5,
  HangUp = 6,
  Dropped = 7,
};

struct Frame {
  FrameType type;
  std::span<const std::byte> payload;  // into the bytes that were given
};

// Splits a stream into frames. Bytes are kept until take() has given the frame that they belong to,
// so at most one frame and what was fed at once.
class FrameReader {
 public:
  void feed(std::span<const std::byte> bytes);
  // The next whole frame, valid until the next call of feed() or next(); nullopt: more bytes are
  // needed, or bad() is true.
  std::optional<Frame> next();
  // The stream is not this protocol: unknown type, second byte not zero, too long a frame. Final.
  bool bad() const { return bad_; }
  std::size_t buffered() const { return bytes_.size() - used_; }

 private:
  std::vector<std::byte> bytes_;
  std::size_t used_ = 0;
  bool bad_ = false;
};

// Appends a frame to `to`. `payload` is at most kMaxPayload long.
void append_frame(std::vector<std::byte> &to, FrameType type, std::span<const std::byte> payload);
void append_frame(std::vector<std::byte> &to, FrameType type, std::string_view text);
// As many Data frames as it takes.
void append_data(std::vector<std::byte> &to, std::span<const std::byte> bytes);

struct WindowSize {
  std::uint16_t rows = 0;
  std::uint16_t columns = 0;
};
struct Hello {
  std::uint32_t magic = kMagic;
  std::uint16_t version = kVersion;
  bool read_only = false;
  WindowSize window;
  std::string device;
};
struct Welcome {
  std::uint16_t version = kVersion;
  bool unopened = false;
  std::string device;
  std::string guest;
};

void append_hello(std::vector<std::byte> &to, const Hello &hello);
void append_welcome(std::vector<std::byte> &to, const Welcome &welcome);
void append_window(std::vector<std::byte> &to, WindowSize size);

// nullopt: too short, names too long, or bytes in a name that no name has.
std::optional<Hello> parse_hello(std::span<const std::byte> payload);
std::optional<Welcome> parse_welcome(std::span<const std::byte> payload);
std::optional<WindowSize> parse_window(std::span<const std::byte> payload);
std::string text_of(std::span<const std::byte> payload);

}  // namespace cowbird::console_protocol
