// The management console's protocol, version 2, as UML and its client uml_mconsole speak it:
// datagrams on a UNIX socket, numbers in the byte order of the host. Pure functions for the server,
// the client and the tests; any thread.
//
//   request       magic, version, len (of data, without its NUL), data[512]
//   reply         err, more, len (with the NUL), data: at most 511 bytes and a NUL; the datagram is
//   as
//                 long as what is in it. An answer may take many; `more` is 0 in the last one. err
//                 is in the first one only.
//   notification  magic, version, type, len, data: at most 512 bytes; shortened likewise
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cowbird::mconsole {

inline constexpr std::uint32_t kMagic = 0xcafebabe;
inline constexpr std::uint32_t kVersion = 2;
inline constexpr std::size_t kMaxData = 512;

struct RequestPacket {
  std::uint32_t magic, version, len;
  char data[kMaxData];
};
static_assert(sizeof(RequestPacket) == 524 && offsetof(RequestPacket, data) == 12);

struct ReplyPacket {
  std::uint32_t err, more, len;
  char data[kMaxData];
};
static_assert(sizeof(ReplyPacket) == 524 && offsetof(ReplyPacket, data) == 12);

enum class NotifyKind : std::uint32_t { Socket = 0, Panic = 1, Hang = 2, User = 3 };
struct NotifyPacket {
  std::uint32_t magic, version;
  NotifyKind kind;
  std::uint32_t len;
  char data[kMaxData];
};
static_assert(sizeof(NotifyPacket) == 528 && offsetof(NotifyPacket, data) == 16);

// What a client gets: text, and whether it is one ("OK") or an error ("ERR").
struct Answer {
  bool ok = true;
  std::string text;
  static Answer done(std::string text = {}) { return {true, std::move(text)}; }
  static Answer error(std::string text) { return {false, std::move(text)}; }
};

// A request as it came. `plain`: the sender does not speak version 2 but sent bare text, and is
// answered so.
struct Request {
  bool good = false;
  bool plain = false;
  std::string text;  // of a good one: the command line
  std::string why;   // else: what the sender is told
};
Request parse_request(std::span<const std::byte> datagram);

// The datagrams of an answer, at least one. A text that begins a listing may ask for a first packet
// of its own (`first`), as `proc` does with a newline.
std::vector<std::string> encode_answer(const Answer &answer, std::string_view first = {});
// The bytes that a plain request is answered with.
std::string encode_plain(const Answer &answer);
// The datagram; text that is too long is cut. Async-signal-safe: the packet is the caller's, the
// result its used length.
std::size_t encode_notify(NotifyPacket &packet, NotifyKind kind, std::string_view text);

// Of the client. Empty when the command is too long for a request.
std::string encode_request(std::string_view command);
struct Reply {
  bool good = false;  // false: not a packet of this protocol
  bool err = false, more = false;
  std::string text;
};
Reply parse_reply(std::span<const std::byte> datagram);

// The commands. Clients send the whole line; it is recognised by its beginning, as UML does.
enum class Command : std::uint8_t {
  Version,
  Help,
  Halt,
  Reboot,
  Config,
  Remove,
  Sysrq,
  Cad,
  Stop,
  Go,
  Log,
  Proc,
  Stack,
  Tracer,
  Devices,  // not UML's
  Unknown,
};
struct CommandLine {
  Command command = Command::Unknown;
  std::string argument;  // without blanks around it
};
CommandLine parse_command(std::string_view line);
struct CommandHelp {
  Command command;
  std::string_view name, arguments, help;
};
std::span<const CommandHelp> commands();

}  // namespace cowbird::mconsole
