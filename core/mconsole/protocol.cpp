#include "mconsole/protocol.hpp"

#include <algorithm>
#include <cstring>

namespace cowbird::mconsole {

namespace {

constexpr CommandHelp kCommands[] = {
    {Command::Version, "version", "", "the kernel's name, release and version"},
    {Command::Halt, "halt", "", "write everything back and end the guest"},
    {Command::Reboot, "reboot", "", "write everything back and start the guest again"},
    {Command::Config, "config", "<dev>=<config>", "add a device or change it; <dev> alone asks"},
    {Command::Remove, "remove", "<dev>", "remove a device"},
    {Command::Sysrq, "sysrq", "<letter>", "run the system request of this letter"},
    {Command::Help, "help", "", "this text"},
    {Command::Cad, "cad", "", "press Ctrl-Alt-Del"},
    {Command::Stop, "stop", "", "the guest stands still, and its time, until 'go'"},
    {Command::Go, "go", "", "the guest goes on after 'stop'"},
    {Command::Log, "log", "<text>", "put text into the kernel log"},
    {Command::Proc, "proc", "<file>", "what is in the guest's /proc/<file>"},
    {Command::Devices, "devices", "",
     "the devices: name=setting, and [open] where the guest uses it"},
    {Command::Stack, "stack", "<pid>", "registers and kernel stack of a process"},
    {Command::Tracer, "tracer", "<host pid>", "let this process of the host debug the guest"},
};

constexpr std::size_t kMaxPiece = kMaxData - 1;

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::string encode_piece(std::string_view piece, bool err, bool more) {
  ReplyPacket packet{};
  packet.err = err ? 1 : 0;
  packet.more = more ? 1 : 0;
  packet.len = static_cast<std::uint32_t>(piece.size() + 1);
  std::ranges::copy(piece, packet.data);
  const auto *bytes = reinterpret_cast<const char *>(&packet);
  return {bytes, offsetof(ReplyPacket, data) + packet.len};
}

}  // namespace

Request parse_request(std::span<const std::byte> datagram) {
  RequestPacket packet{};
  if (!datagram.empty()) {
    std::memcpy(&packet, datagram.data(), std::min(datagram.size(), sizeof packet));
  }
  Request request;
  if (datagram.size() < sizeof packet.magic || packet.magic != kMagic) {
    request.plain = true;
    request.why = "ERR Version 0 mconsole clients are not supported by this driver";
    return request;
  }
  if (datagram.size() < offsetof(RequestPacket, data)) {
    request.why = "Request too short";
    return request;
  }
  if (packet.len >= kMaxData) {
    request.why = "Request too large";
    return request;
  }
  if (packet.version != kVersion) {
    request.why = "This driver only supports version 2 clients";
    return request;
  }
  if (packet.len > datagram.size() - offsetof(RequestPacket, data)) {
    request.why = "Request shorter than its length says";
    return request;
  }
  request.good = true;
  // The text ends at a NUL if there is one before its length.
  request.text.assign(packet.data, ::strnlen(packet.data, packet.len));
  return request;
}

std::vector<std::string> encode_answer(const Answer &answer, std::string_view first) {
  std::vector<std::string> packets;
  std::string_view rest = answer.text;
  bool err = !answer.ok;
  if (!first.empty()) {
    packets.push_back(encode_piece(first.substr(0, kMaxPiece), err, true));
    err = false;
  }
  do {
    const std::string_view piece = rest.substr(0, kMaxPiece);
    rest.remove_prefix(piece.size());
    packets.push_back(encode_piece(piece, err, !rest.empty()));
    err = false;
  } while (!rest.empty());
  return packets;
}

std::string encode_plain(const Answer &answer) { return answer.text; }

std::size_t encode_notify(NotifyPacket &packet, NotifyKind kind, std::string_view text) {
  packet.magic = kMagic;
  packet.version = kVersion;
  packet.kind = kind;
  const std::size_t length = std::min(text.size(), kMaxData);
  packet.len = static_cast<std::uint32_t>(length);
  std::copy_n(text.data(), length, packet.data);
  return offsetof(NotifyPacket, data) + length;
}

std::string encode_request(std::string_view command) {
  RequestPacket packet{};
  if (command.size() >= kMaxData) return {};
  packet.magic = kMagic;
  packet.version = kVersion;
  packet.len = static_cast<std::uint32_t>(command.size());
  std::ranges::copy(command, packet.data);
  return {reinterpret_cast<const char *>(&packet), sizeof packet};
}

Reply parse_reply(std::span<const std::byte> datagram) {
  Reply reply;
  ReplyPacket packet{};
  if (datagram.size() < offsetof(ReplyPacket, data) || datagram.size() > sizeof packet) {
    return reply;
  }
  std::memcpy(&packet, datagram.data(), datagram.size());
  const std::size_t there = datagram.size() - offsetof(ReplyPacket, data);
  const std::size_t length = std::min<std::size_t>(packet.len, there);
  reply.good = true;
  reply.err = packet.err != 0;
  reply.more = packet.more != 0;
  reply.text.assign(packet.data, length);
  // The NUL is counted; a peer that does not is forgiven.
  if (reply.text.ends_with('\0')) reply.text.pop_back();
  return reply;
}

CommandLine parse_command(std::string_view line) {
  const std::string_view text = line.substr(std::min(line.size(), line.find_first_not_of(" \t")));
  for (const CommandHelp &known : kCommands) {
    if (!text.starts_with(known.name)) continue;
    return {known.command, std::string(trimmed(text.substr(known.name.size())))};
  }
  return {Command::Unknown, std::string(trimmed(text))};
}

std::span<const CommandHelp> commands() { return kCommands; }

}  // namespace cowbird::mconsole
