// Formatting of traced system calls.
#include "syscall/trace.hpp"

#include <fmt/format.h>

#include <array>

#include "proc/task.hpp"

namespace cowbird {
namespace {

constexpr std::size_t kShownBytes = 48;

struct Flag {
  std::uint64_t value;
  std::string_view name;
};

std::string join_flags(std::uint64_t value, std::span<const Flag> flags) {
  std::string text;
  for (const Flag &flag : flags) {
    if ((value & flag.value) != flag.value) continue;
    value &= ~flag.value;
    text += text.empty() ? "" : "|";
    text += flag.name;
  }
  if (value != 0 || text.empty()) {
    text += fmt::format("{}{:#x}", text.empty() ? "" : "|", value);
  }
  return text;
}

std::string open_flags(std::uint32_t value) {
  static constexpr std::array<std::string_view, 4> kAccess = {"O_RDONLY", "O_WRONLY", "O_RDWR",
                                                              "O_ACCMODE"};
  static constexpr Flag kFlags[] = {
      {0100, "O_CREAT"},        {0200, "O_EXCL"},        {0400, "O_NOCTTY"},
      {01000, "O_TRUNC"},       {02000, "O_APPEND"},     {04000, "O_NONBLOCK"},
      {04010000, "O_SYNC"},     {010000, "O_DSYNC"},     {020200000, "O_TMPFILE"},
      {0200000, "O_DIRECTORY"}, {0400000, "O_NOFOLLOW"}, {02000000, "O_CLOEXEC"},
      {010000000, "O_PATH"}};
  std::string text(kAccess[value & 3]);
  if ((value & ~3u) != 0) text += "|" + join_flags(value & ~3u, kFlags);
  return text;
}

std::string protection(std::uint32_t value) {
  static constexpr Flag kFlags[] = {{1, "PROT_READ"}, {2, "PROT_WRITE"}, {4, "PROT_EXEC"}};
  return value == 0 ? "PROT_NONE" : join_flags(value, kFlags);
}

std::string map_flags(std::uint32_t value) {
  static constexpr Flag kFlags[] = {
      {1, "MAP_SHARED"},        {2, "MAP_PRIVATE"},       {0x10, "MAP_FIXED"},
      {0x20, "MAP_ANONYMOUS"},  {0x100, "MAP_GROWSDOWN"}, {0x4000, "MAP_NORESERVE"},
      {0x8000, "MAP_POPULATE"}, {0x20000, "MAP_STACK"},   {0x100000, "MAP_FIXED_NOREPLACE"}};
  return join_flags(value, kFlags);
}

std::string quoted(std::string_view bytes) {
  std::string text = "\"";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      text += "\\n";
    } else if (c == '"' || c == '\\') {
      text += '\\';
      text += c;
    } else if (byte < 0x20 || byte >= 0x7f) {
      text += fmt::format("\\{:o}", byte);
    } else {
      text += c;
    }
  }
  return text + "\"";
}

std::string path_argument(std::uint64_t address) {
  if (address == 0) return "NULL";
  std::array<char, kShownBytes * 2> bytes;
  const std::size_t got = copy_in_partial(bytes.data(), address, bytes.size());
  if (got == 0) return fmt::format("{:#x}", address);
  const std::string_view all(bytes.data(), got);
  const std::size_t end = all.find('\0');
  return end == all.npos ? quoted(all) + "..." : quoted(all.substr(0, end));
}

std::string format_argument(ArgKind kind, std::uint64_t value) {
  switch (kind) {
    case ArgKind::None:
      return "";
    case ArgKind::Int:
    case ArgKind::Fd:
    case ArgKind::Pid:
      return fmt::format("{}", static_cast<std::int32_t>(value));
    case ArgKind::DirFd:
      return static_cast<std::int32_t>(value) == -100
                 ? "AT_FDCWD"
                 : fmt::format("{}", static_cast<std::int32_t>(value));
    case ArgKind::Uint:
    case ArgKind::Size:
      return fmt::format("{}", value);
    case ArgKind::Offset:
      return fmt::format("{}", static_cast<std::int64_t>(value));
    case ArgKind::Signal:
      return fmt::format("SIG{}", static_cast<std::int32_t>(value));
    case ArgKind::Octal:
    case ArgKind::Mode:
      return fmt::format("0{:o}", static_cast<std::uint32_t>(value));
    case ArgKind::Path:
      return path_argument(value);
    case ArgKind::OpenFlags:
      return open_flags(static_cast<std::uint32_t>(value));
    case ArgKind::Prot:
      return protection(static_cast<std::uint32_t>(value));
    case ArgKind::MapFlags:
      return map_flags(static_cast<std::uint32_t>(value));
    case ArgKind::Pointer:
    case ArgKind::Buffer:
    case ArgKind::Struct:
      return value == 0 ? "NULL" : fmt::format("{:#x}", value);
    case ArgKind::Hex:
      break;
  }
  return fmt::format("{:#x}", value);
}

}  // namespace

std::string format_syscall(const Task &task, const SyscallRow &row, const SysArgs &args) {
  std::string text = fmt::format("{}[{}] {}(", task.comm, task.tid, row.name);
  for (int i = 0; i < 6 && row.args[i] != ArgKind::None; ++i) {
    if (i > 0) text += ", ";
    // What is written is readable before the call; what is read is not there yet.
    const bool written = row.args[i] == ArgKind::Buffer && row.name.find("write") != row.name.npos;
    if (written && i < 5 && row.args[i + 1] == ArgKind::Size) {
      std::array<char, kShownBytes> bytes;
      const std::size_t wanted = std::min<std::uint64_t>(args.u64(i + 1), bytes.size());
      const std::size_t got = copy_in_partial(bytes.data(), args.u64(i), wanted);
      text += quoted({bytes.data(), got});
      if (args.u64(i + 1) > got) text += "...";
      continue;
    }
    text += format_argument(row.args[i], args.value[i]);
  }
  return text + ")";
}

std::string format_syscall_result(const SysResult &result) {
  if (!result) {
    return fmt::format("-1 {} ({})", errno_name(result.error()), errno_text(result.error()));
  }
  const std::int64_t value = *result;
  return value > 0xffffff || value < -4096 ? fmt::format("{:#x}", value) : fmt::format("{}", value);
}

}  // namespace cowbird
