#include "debug/server/file_service.hpp"

#include <fmt/format.h>

#include <array>

#include "debug/rsp/requests.hpp"

namespace cowbird::debug {

namespace {

constexpr std::uint64_t kMaxPid = 0x7fffffff;

// "File-I/O Protocol" has numbers of its own for a few errors, and one for all that it does not
// know.
std::string failure(Errno error) {
  constexpr unsigned kNameTooLong = 91, kUnknown = 9999;
  switch (error) {
    case Errno::Perm:
    case Errno::NoEnt:
    case Errno::Intr:
    case Errno::BadF:
    case Errno::Access:
    case Errno::Fault:
    case Errno::Busy:
    case Errno::Exist:
    case Errno::NoDev:
    case Errno::NotDir:
    case Errno::IsDir:
    case Errno::Inval:
    case Errno::NFile:
    case Errno::MFile:
    case Errno::FBig:
    case Errno::NoSpc:
    case Errno::SPipe:
    case Errno::RoFs:
      return fmt::format("F-1,{:x}", static_cast<unsigned>(error));
    case Errno::NameTooLong:
      return fmt::format("F-1,{:x}", kNameTooLong);
    default:
      return fmt::format("F-1,{:x}", kUnknown);
  }
}

void append_big_endian(std::string &out, std::uint64_t value, unsigned bytes) {
  while (bytes-- > 0) out += static_cast<char>(value >> (8 * bytes));
}

// "struct stat" of the File-I/O protocol.
std::string stat_reply(const FileStat &s) {
  std::string out = "F40;";
  for (const std::uint64_t field :
       {s.device, s.inode, std::uint64_t{s.mode}, std::uint64_t{s.links}, std::uint64_t{s.uid},
        std::uint64_t{s.gid}, std::uint64_t{0}})
    append_big_endian(out, field, 4);
  for (const std::uint64_t field : {s.size, s.block_size, s.blocks})
    append_big_endian(out, field, 8);
  for (const std::int64_t field : {s.atime, s.mtime, s.ctime})
    append_big_endian(out, static_cast<std::uint64_t>(field), 4);
  return out;
}

}  // namespace

std::string FileService::handle(std::string_view request) {
  const auto colon = request.find(':');
  if (colon == std::string_view::npos) return "";
  const auto name = request.substr(0, colon);
  const auto arguments = request.substr(colon + 1);
  if (name == "open") return open(arguments);
  if (name == "close") return close(arguments);
  if (name == "pread") return pread(arguments);
  if (name == "fstat") return fstat(arguments);
  if (name == "stat") return stat(arguments);
  if (name == "readlink") return readlink(arguments);
  if (name == "setfs") return setfs(arguments);
  if (name == "pwrite" || name == "unlink") return failure(Errno::RoFs);
  return "";
}

std::string FileService::setfs(std::string_view arguments) {
  const auto args = Arguments::parse("n", arguments);
  if (!args || args->number(0) > kMaxPid) return failure(Errno::Inval);
  const auto pid = static_cast<std::int64_t>(args->number(0));
  pid_ = pid == kKernelPid ? 0 : pid;  // the kernel's files are the host's
  return "F0";
}

std::string FileService::open(std::string_view arguments) {
  constexpr std::uint64_t kAccessMode = 3,
                          kWrites = 0x8 | 0x200 | 0x400;  // append, create, truncate
  const auto args = Arguments::parse("x,n,n", arguments);
  if (!args) return failure(Errno::Inval);
  if ((args->number(1) & kAccessMode) != 0 || (args->number(1) & kWrites) != 0)
    return failure(Errno::RoFs);
  if (files_.size() >= kMaxOpen) return failure(Errno::MFile);
  auto file = target_.open_file(pid_, args->text(0));
  if (!file) return failure(file.error());
  const auto fd = next_++;
  files_[fd].file = std::move(*file);
  return fmt::format("F{:x}", fd);
}

std::string FileService::close(std::string_view arguments) {
  const auto args = Arguments::parse("n", arguments);
  if (!args || files_.erase(args->number(0)) == 0) return failure(Errno::BadF);
  return "F0";
}

Result<std::string> FileService::read_window(OpenFile &open, std::uint64_t offset,
                                             std::uint64_t wanted) {
  const bool goes_on = offset == open.next && offset != 0;
  open.window = goes_on ? std::min(open.window * kWindowGrowth, max_data_) : kFirstWindow;
  std::string data(std::min<std::uint64_t>(wanted, std::min(open.window, max_data_)), '\0');
  const auto bytes = std::as_writable_bytes(std::span(data.data(), data.size()));
  std::size_t filled = 0;
  while (filled < bytes.size()) {  // a file of /proc gives a page at a time
    const auto done = open.file->read_at(offset + filled, bytes.subspan(filled));
    if (!done && filled == 0) return Err(done.error());
    if (!done || *done == 0) break;
    filled += std::min(*done, bytes.size() - filled);
  }
  data.resize(filled);
  open.next = offset + filled;
  return data;
}

std::string FileService::pread(std::string_view arguments) {
  const auto args = Arguments::parse("n,n,n", arguments);
  if (!args) return failure(Errno::Inval);
  const auto file = files_.find(args->number(0));
  if (file == files_.end()) return failure(Errno::BadF);
  const auto data = read_window(file->second, args->number(2), args->number(1));
  if (!data) return failure(data.error());
  return fmt::format("F{:x};", data->size()) + *data;
}

std::string FileService::fstat(std::string_view arguments) {
  const auto args = Arguments::parse("n", arguments);
  const auto file = args ? files_.find(args->number(0)) : files_.end();
  if (file == files_.end()) return failure(Errno::BadF);
  const auto stat = file->second.file->stat();
  return stat ? stat_reply(*stat) : failure(stat.error());
}

std::string FileService::stat(std::string_view arguments) {
  const auto args = Arguments::parse("x", arguments);
  if (!args) return failure(Errno::Inval);
  const auto file = target_.open_file(pid_, args->text(0));
  if (!file) return failure(file.error());
  const auto stat = (*file)->stat();
  return stat ? stat_reply(*stat) : failure(stat.error());
}

std::string FileService::readlink(std::string_view arguments) {
  const auto args = Arguments::parse("x", arguments);
  if (!args) return failure(Errno::Inval);
  const auto to = target_.read_link(pid_, args->text(0));
  if (!to) return failure(to.error());
  return fmt::format("F{:x};", to->size()) + *to;
}

}  // namespace cowbird::debug
