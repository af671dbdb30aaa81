#include "debug_agent/protocol.hpp"

namespace cowbird::debug_agent {
namespace {

template <typename T>
T load(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

bool is_request(std::uint16_t command) {
  return command >= static_cast<std::uint16_t>(Command::Hello) &&
         command <= static_cast<std::uint16_t>(Command::ReadLink);
}

// What `bytes` may be for each command.
bool bytes_allowed(Command command, std::size_t size) {
  switch (command) {
    case Command::SetRegisters:
      return size >= sizeof(abi::UserRegs) && size <= sizeof(abi::UserRegs) + 64ul * 1024;
    case Command::WriteMemory:
      return size <= kMaxTransfer;
    case Command::Resume:
      return size % sizeof(ResumeRecord) == 0 && size <= kMaxActions * sizeof(ResumeRecord);
    case Command::SetSignalInfo:
      return size == 128;
    case Command::OpenFile:
    case Command::ReadLink:
      return size > 0 && size < kMaxPath;
    default:
      return size == 0;
  }
}

bool numbers_allowed(Command command, std::size_t count) {
  switch (command) {
    case Command::Hello:
    case Command::ReadFile:
      return count == 1;
    case Command::CatchSyscalls:
      return count <= kMaxNumbers;
    default:
      return count == 0;
  }
}

bool length_allowed(Command command, std::uint64_t length) {
  const bool transfers = command == Command::ReadMemory || command == Command::ReadFile;
  return transfers ? length <= kMaxTransfer : length == 0;
}

}  // namespace

Result<Header> parse_header(std::span<const std::byte> input) {
  if (input.size() < sizeof(Header)) return Err(Errno::Again);
  const auto header = load<Header>(input);
  if (header.magic != kMagic || header.size > kMaxBody) return Err(Errno::Proto);
  return header;
}

Result<Request> parse_request(const Header &header, std::span<const std::byte> body) {
  if (!is_request(header.command) || body.size() != header.size) return Err(Errno::Inval);
  if (body.size() < sizeof(RequestFields)) return Err(Errno::Inval);
  Request request;
  request.command = static_cast<Command>(header.command);
  request.id = header.id;
  request.fields = load<RequestFields>(body);
  body = body.subspan(sizeof(RequestFields));
  const std::size_t count = request.fields.count;
  if (!numbers_allowed(request.command, count) || count * 8 > body.size()) return Err(Errno::Inval);
  request.numbers = records<std::uint64_t>(body.first(count * 8));
  request.bytes = body.subspan(count * 8);
  if (!bytes_allowed(request.command, request.bytes.size())) return Err(Errno::Inval);
  if (!length_allowed(request.command, request.fields.length)) return Err(Errno::Inval);
  if (request.text().find('\0') != std::string_view::npos &&
      (request.command == Command::OpenFile || request.command == Command::ReadLink)) {
    return Err(Errno::Inval);
  }
  return request;
}

std::vector<std::byte> encode_request(Command command, std::uint32_t id, RequestFields fields,
                                      std::span<const std::uint64_t> numbers,
                                      std::span<const std::byte> bytes) {
  fields.count = static_cast<std::uint32_t>(numbers.size());
  Header header;
  header.command = static_cast<std::uint16_t>(command);
  header.id = id;
  header.size = static_cast<std::uint32_t>(sizeof(fields) + numbers.size_bytes() + bytes.size());
  std::vector<std::byte> message(sizeof(header) + header.size);
  std::byte *at = message.data();
  const auto put = [&at](const void *from, std::size_t size) {
    if (size != 0) std::memcpy(at, from, size);
    at += size;
  };
  put(&header, sizeof(header));
  put(&fields, sizeof(fields));
  put(numbers.data(), numbers.size_bytes());
  put(bytes.data(), bytes.size());
  return message;
}

}  // namespace cowbird::debug_agent
