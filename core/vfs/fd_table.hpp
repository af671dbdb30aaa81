// The descriptor table of a process. Shared by CLONE_FILES. Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ref.hpp"
#include "base/result.hpp"
#include "vfs/file.hpp"

namespace cowbird {

class FdTable : public RefCounted<FdTable> {
 public:
  static constexpr int kMaxDescriptors = 1 << 20;  // the ceiling of RLIMIT_NOFILE (fs.nr_open)

  // The lowest free number >= first and < limit (RLIMIT_NOFILE); MFile.
  Result<int> install(Ref<File> file, bool close_on_exec, std::uint64_t limit, int first = 0);
  // Whether install() would find a number: MFile.
  Result<void> check_room(std::uint64_t limit) const;
  // dup2/dup3: closes what is there.
  Result<void> install_at(int fd, Ref<File> file, bool close_on_exec, std::uint64_t limit,
                          Task &task);
  // BadF; O_PATH descriptors only with `path_ok`.
  Result<Ref<File>> get(int fd, bool path_ok = false) const;
  Result<void> close(int fd, Task &task);
  Result<bool> close_on_exec(int fd) const;
  Result<void> set_close_on_exec(int fd, bool on);
  void close_for_exec(Task &task);
  void close_all(Task &task);
  Ref<FdTable> clone() const;
  // For /proc/PID/fd; ascending.
  std::vector<int> list() const;

 private:
  static std::size_t bound(std::uint64_t limit);
  std::size_t first_free(int first) const;

  struct Slot {
    Ref<File> file;
    bool close_on_exec = false;
  };
  std::vector<Slot> slots_;
  int lowest_free_ = 0;
};

}  // namespace cowbird
