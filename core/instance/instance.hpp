// The run-time directory of a running guest, by which other programs find it: UML's umid directory
// (<uml_dir>/<name>/, by default ~/.uml/<name>/) with the same files, so that UML's own tools work
// on us, and ours beside them:
//
//   pid        the process id in decimal and a newline, made exclusively, mode 0644
//   mconsole   the management console's datagram socket
//   console    stream socket of `cowbird console` (core/tty/console_server.hpp)
//   debug      stream socket of the debug agent (core/debug_agent/)
//   gdb        what the gdb server listens on, one line: "tcp:127.0.0.1:1234"; absent without one
//   info       what `cowbird ls` shows and never changes: lines of key=value: program (its path),
//              started (seconds since 1970), file (the machine file, absolute; absent without one),
//              run (the command of `cowbird run`)
//
// The directory is mode 0700, so that no other user can reach the sockets. The owner holds a lock
// on the pid file (F_OFD_SETLK) for as long as it lives, so a directory that was left behind is
// known for what it is even when its process id is somebody else's now. (UML takes no such lock;
// without a file `info` a process of that id counts as its owner.)
//
// Host side only: called by the program before the kernel runs and when it ends, and by the client
// commands; any one thread, blocking.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.hpp"

namespace cowbird {

inline constexpr std::size_t kMaxInstanceName = 63;
using InstanceInfo = std::map<std::string, std::string>;

// `configured` ([machine] directory, UML's uml_dir=), else the environment variable COWBIRD_DIR,
// else
// ~/.uml. nullopt and a sentence when there is no HOME.
std::optional<std::filesystem::path> instance_root(const std::string &configured,
                                                   std::string &error);

// The directory of this process's guest. Removed with everything in it by the destructor, and by
// the emergency list after a panic or a deadly signal (emergency_remove).
class InstanceDirectory {
 public:
  // Claims <root>/<name>; missing directories are made, for this user alone. A directory whose
  // process is dead is emptied and used again; a live one is refused: nullptr and a sentence, and
  // so is one that holds anything but files of a guest. `name` must be a valid machine name.
  // `info` goes to the file of that name, with `program` and `started` added.
  // What dead guests with random names have left under the root is removed.
  static std::unique_ptr<InstanceDirectory> claim(const std::filesystem::path &root,
                                                  const std::string &name, InstanceInfo info,
                                                  std::string &error);
  // Does nothing in a process that was forked off.
  ~InstanceDirectory();
  InstanceDirectory(const InstanceDirectory &) = delete;
  InstanceDirectory &operator=(const InstanceDirectory &) = delete;
  const std::filesystem::path &path() const { return path_; }
  const std::string &name() const { return name_; }
  // "mconsole" -> the absolute path of that file, one of the above, which all are short enough for
  // the address of a socket. It is removed with the directory.
  std::filesystem::path file(const std::string &leaf) const { return path_ / leaf; }
  // Writes a small file (mode 0644); readers see the old one or the new one.
  bool write(const std::string &leaf, const std::string &text, std::string &error);
  // Async-signal-safe; for boot::at_emergency.
  static void emergency_remove(void *self);

 private:
  InstanceDirectory(std::filesystem::path path, std::string name);
  void remove();
  std::filesystem::path path_;
  std::string name_;
  pid_t owner_;
  UniqueFd root_fd_;
  UniqueFd directory_fd_;
  UniqueFd pid_fd_;  // holds the lock
};

// A guest that runs now.
struct RunningInstance {
  std::string name;
  std::filesystem::path directory;
  pid_t pid = 0;
  std::filesystem::path program;  // the executable of the process, as it was started
  std::chrono::system_clock::time_point started;
  InstanceInfo info;  // the file of that name; empty for UML
};
// All of the calling user's under `root`, by name; stale directories are left out.
std::vector<RunningInstance> running_instances(const std::filesystem::path &root);
// By name, by the path of its directory or of a file in it, or by process id. nullopt and a
// sentence, with the names that there are.
std::optional<RunningInstance> find_instance(const std::filesystem::path &root,
                                             const std::string &what, std::string &error);

}  // namespace cowbird
