#include "vfs/fd_table.hpp"

#include <algorithm>

#include "vfs/file_lock.hpp"

namespace cowbird {

std::size_t FdTable::bound(std::uint64_t limit) {
  return std::min<std::uint64_t>(limit, static_cast<std::uint64_t>(kMaxDescriptors));
}

std::size_t FdTable::first_free(int first) const {
  auto fd = static_cast<std::size_t>(std::max(first, lowest_free_));
  while (fd < slots_.size() && slots_[fd].file) ++fd;
  return fd;
}

Result<void> FdTable::check_room(std::uint64_t limit) const {
  return first_free(0) < bound(limit) ? Result<void>() : Result<void>(Err(Errno::MFile));
}

Result<int> FdTable::install(Ref<File> file, bool close_on_exec, std::uint64_t limit, int first) {
  if (first < 0) return Err(Errno::Inval);
  if (File::open_count() > File::max_open()) return Err(Errno::NFile);
  const std::size_t most = bound(limit);
  const std::size_t fd = first_free(first);
  if (fd >= most) return Err(Errno::MFile);
  if (fd >= slots_.size()) slots_.resize(std::max(fd + 1, std::min(most, slots_.size() * 2)));
  slots_[fd] = {std::move(file), close_on_exec};
  if (first <= lowest_free_) lowest_free_ = static_cast<int>(fd) + 1;
  return static_cast<int>(fd);
}

Result<void> FdTable::install_at(int fd, Ref<File> file, bool close_on_exec, std::uint64_t limit,
                                 Task &task) {
  if (fd < 0 || static_cast<std::uint64_t>(fd) >= limit || fd >= kMaxDescriptors)
    return Err(Errno::BadF);
  const auto index = static_cast<std::size_t>(fd);
  if (index >= slots_.size()) slots_.resize(index + 1);
  Ref<File> old = std::move(slots_[index].file);
  slots_[index] = {std::move(file), close_on_exec};
  if (old) {
    release_posix_locks(*old, this);
    // dup2 does not report errors of the close it does.
    (void)old->flush(task);
  }
  return {};
}

Result<Ref<File>> FdTable::get(int fd, bool path_ok) const {
  const auto index = static_cast<std::size_t>(fd);
  if (fd < 0 || index >= slots_.size() || !slots_[index].file) return Err(Errno::BadF);
  const Ref<File> &file = slots_[index].file;
  if (!path_ok && file->is_path_only()) return Err(Errno::BadF);
  return file;
}

Result<void> FdTable::close(int fd, Task &task) {
  const auto index = static_cast<std::size_t>(fd);
  if (fd < 0 || index >= slots_.size() || !slots_[index].file) return Err(Errno::BadF);
  Ref<File> file = std::move(slots_[index].file);
  slots_[index] = {};
  lowest_free_ = std::min(lowest_free_, fd);
  release_posix_locks(*file, this);
  return file->flush(task);
}

Result<bool> FdTable::close_on_exec(int fd) const {
  TRY(get(fd, true));
  return slots_[static_cast<std::size_t>(fd)].close_on_exec;
}

Result<void> FdTable::set_close_on_exec(int fd, bool on) {
  TRY(get(fd, true));
  slots_[static_cast<std::size_t>(fd)].close_on_exec = on;
  return {};
}

void FdTable::close_for_exec(Task &task) {
  for (std::size_t fd = 0; fd < slots_.size(); ++fd) {
    if (slots_[fd].file && slots_[fd].close_on_exec) (void)close(static_cast<int>(fd), task);
  }
}

void FdTable::close_all(Task &task) {
  for (std::size_t fd = 0; fd < slots_.size(); ++fd) {
    if (slots_[fd].file) (void)close(static_cast<int>(fd), task);
  }
}

Ref<FdTable> FdTable::clone() const {
  auto copy = make_ref<FdTable>();
  copy->slots_ = slots_;
  copy->lowest_free_ = lowest_free_;
  return copy;
}

std::vector<int> FdTable::list() const {
  std::vector<int> result;
  for (std::size_t fd = 0; fd < slots_.size(); ++fd) {
    if (slots_[fd].file) result.push_back(static_cast<int>(fd));
  }
  return result;
}

}  // namespace cowbird
