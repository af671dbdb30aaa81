// What the unit tests of the file layer share: memory, a root on a tmpfs of its own for each test,
// a caller without a task, and short ways to make and read files.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "abi/fcntl.hpp"
#include "abi/poll.hpp"
#include "abi/stat.hpp"
#include "fs/tmpfs.hpp"
#include "vfs/file.hpp"
#include "vfs/mount.hpp"
#include "vfs/path.hpp"

namespace cowbird::vfs_test {

// The calling "task": its limit, and the signals it was sent.
struct Caller {
  std::uint64_t file_size_limit = ~0ull;
  std::vector<int> signals;
  Credentials credentials;
};
Caller &caller();

// Runs a test's body on a kernel thread, with a fresh caller.
void run(const std::function<void()> &body);
// Several bodies at once, each on a thread of its own.
void run_together(std::vector<std::function<void()>> bodies);

struct Tree {
  explicit Tree(TmpfsOptions options = {});
  WalkContext walk() { return {*fs, caller().credentials, fs->cwd}; }

  Result<Ref<File>> open(std::string_view name, std::uint32_t flags = abi::kO_RDONLY,
                         std::uint32_t mode = 0644) {
    return open_path(walk(), name, flags, mode);
  }
  Result<Path> find(std::string_view name, LookupFlag flags = LookupFlag::Follow) {
    return lookup(walk(), name, flags);
  }
  void mkdir(std::string_view name, std::uint32_t mode = 0755);
  void write(std::string_view name, std::string_view contents);
  std::string read(std::string_view name);
  std::vector<std::string> list(std::string_view name);

  Ref<FsContext> fs;
};

std::string read_some(File &file, std::size_t bytes = 65536);
Result<std::uint64_t> write_some(File &file, std::string_view bytes);

// An unprivileged user.
Credentials user(std::uint32_t id);

#define VFS_TEST_NAME(line) VFS_TEST_NAME_(line)
#define VFS_TEST_NAME_(line) vfs_test_body_##line
#define VFS_TEST(name)                                                          \
  static void VFS_TEST_NAME(__LINE__)();                                        \
  TEST_CASE(name, "[vfs]") { cowbird::vfs_test::run(VFS_TEST_NAME(__LINE__)); } \
  static void VFS_TEST_NAME(__LINE__)()
#define CHECK_ERROR(expression, code) CHECK((expression).is(cowbird::Errno::code))

}  // namespace cowbird::vfs_test
