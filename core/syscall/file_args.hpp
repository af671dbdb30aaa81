// Decoding of the arguments that file system calls share. For the sys_*.cpp files.
#pragma once

#include <string>

#include "abi/fcntl.hpp"
#include "abi/uio.hpp"
#include "mm/iov_iter.hpp"
#include "mm/user_access.hpp"
#include "proc/task.hpp"
#include "syscall/syscall.hpp"
#include "vfs/file.hpp"
#include "vfs/path.hpp"

namespace cowbird {

// A path from guest memory: NameTooLong, Fault.
inline Result<std::string> read_path(std::uint64_t address) {
  return copy_in_string(address, abi::kPATH_MAX - 1);
}

// Where relative names of a *at call start: the working directory (AT_FDCWD), or a descriptor of a
// directory (BadF, NotDir). Absolute names do not look at the descriptor.
Result<WalkContext> walk_from(Task &task, int directory_fd, std::string_view name);
inline WalkContext walk_here(Task &task) { return {*task.fs, task.credentials, task.fs->cwd}; }

// The object of a *at call with AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW decoded by the caller. With
// an empty name and EmptyPath, the descriptor itself (of any kind).
Result<Path> lookup_at(Task &task, int directory_fd, std::uint64_t name_address, LookupFlag flags);
// lookup_at's flags for AT_* bits; Inval for bits outside of `allowed`.
Result<LookupFlag> at_flags(std::uint32_t flags, std::uint32_t allowed);

// A descriptor's file open for reading or writing: BadF.
Result<Ref<File>> readable_file(Task &task, int fd);
Result<Ref<File>> writable_file(Task &task, int fd);
// The same for a file that is known, and Inval when its kind has no such operation.
Result<void> check_readable(const File &file);
Result<void> check_writable(const File &file);

// The transfer of readv, writev and their kin: Inval, Fault. More than the largest transfer is cut.
Result<IovIter> read_iovec(std::uint64_t address, std::uint64_t count);
// The transfer of read, write and their kin: Fault when it is not in the range of programs at all.
Result<IovIter> user_buffer(std::uint64_t address, std::uint64_t length);
// A transfer must end where an offset can be told: Inval.
inline Result<void> check_range(std::uint64_t offset, std::uint64_t length) {
  constexpr auto kEnd = static_cast<std::uint64_t>(INT64_MAX);
  if (offset > kEnd || length > kEnd - offset) return Err(Errno::Inval);
  return {};
}

Result<int> install_file(Task &task, Ref<File> file, bool close_on_exec, int first = 0);

}  // namespace cowbird
