#include "syscall/file_args.hpp"

#include <algorithm>

namespace cowbird {

Result<WalkContext> walk_from(Task &task, int directory_fd, std::string_view name) {
  if (directory_fd == abi::kAT_FDCWD || name.starts_with('/')) return walk_here(task);
  const Ref<File> file = TRY(task.files->get(directory_fd, true));
  if (!file->path) return Err(Errno::NotDir);
  if (!name.empty() && !file->path.inode().is_directory()) return Err(Errno::NotDir);
  return WalkContext{*task.fs, task.credentials, file->path};
}

Result<Path> lookup_at(Task &task, int directory_fd, std::uint64_t name_address, LookupFlag flags) {
  if (name_address == 0 && has(flags, LookupFlag::EmptyPath)) {
    return file_path(*TRY(task.files->get(directory_fd, true)));
  }
  const std::string name = TRY(read_path(name_address));
  if (name.empty() && has(flags, LookupFlag::EmptyPath)) {
    if (directory_fd == abi::kAT_FDCWD) return task.fs->cwd;
    return file_path(*TRY(task.files->get(directory_fd, true)));
  }
  const WalkContext walk = TRY(walk_from(task, directory_fd, name));
  return lookup(walk, name, flags);
}

Result<LookupFlag> at_flags(std::uint32_t flags, std::uint32_t allowed) {
  if (flags & ~allowed) return Err(Errno::Inval);
  LookupFlag result = LookupFlag::Follow;
  if (allowed & abi::kAT_SYMLINK_FOLLOW) {
    // linkat: links are followed only when asked for.
    if (!(flags & abi::kAT_SYMLINK_FOLLOW)) result = LookupFlag::None;
  } else if (flags & abi::kAT_SYMLINK_NOFOLLOW) {
    result = LookupFlag::None;
  }
  if (flags & abi::kAT_EMPTY_PATH) result = result | LookupFlag::EmptyPath;
  return result;
}

Result<Ref<File>> readable_file(Task &task, int fd) {
  Ref<File> file = TRY(task.files->get(fd));
  if (!file->readable()) return Err(Errno::BadF);
  return file;
}

Result<Ref<File>> writable_file(Task &task, int fd) {
  Ref<File> file = TRY(task.files->get(fd));
  if (!file->writable()) return Err(Errno::BadF);
  return file;
}

Result<void> check_readable(const File &file) {
  if (!file.readable()) return Err(Errno::BadF);
  return file.can_read() ? Result<void>() : Result<void>(Err(Errno::Inval));
}

Result<void> check_writable(const File &file) {
  if (!file.writable()) return Err(Errno::BadF);
  return file.can_write() ? Result<void>() : Result<void>(Err(Errno::Inval));
}

Result<IovIter> user_buffer(std::uint64_t address, std::uint64_t length) {
  constexpr VirtAddr kLinuxTaskSize = 0x7fff'ffff'f000;
  if (address > kLinuxTaskSize || length > kLinuxTaskSize - address) return Err(Errno::Fault);
  return IovIter::user(address, std::min(length, abi::kMaxTransfer));
}

Result<IovIter> read_iovec(std::uint64_t address, std::uint64_t count) {
  if (count > abi::kIOV_MAX) return Err(Errno::Inval);
  const auto vectors = TRY(UserPtr<abi::Iovec>(address).read_array(count));
  std::vector<IovIter::Segment> segments;
  segments.reserve(count);
  std::uint64_t room = abi::kMaxTransfer;
  for (const abi::Iovec &vector : vectors) {
    if (vector.iov_len > static_cast<std::uint64_t>(INT64_MAX)) return Err(Errno::Inval);
    const std::uint64_t length = std::min(vector.iov_len, room);
    room -= length;
    if (length > 0) segments.push_back({vector.iov_base, length});
  }
  return IovIter::user(std::move(segments));
}

Result<int> install_file(Task &task, Ref<File> file, bool close_on_exec, int first) {
  return task.files->install(std::move(file), close_on_exec, task.process->limit(Limit::NoFile),
                             first);
}

}  // namespace cowbird
