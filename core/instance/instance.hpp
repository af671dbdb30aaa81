// The run-time directory of a running guest, by which other programs find it: UML's umid directory
// (<uml_dir>/<name>/, by default ~/.uml/<name>/) with the same files, so that UML's own tools work on
// us, and ours beside them:
//
//   pid        the process id in decimal and a newline, made exclusively, mode 0644
//   mconsole   the management console's datagram socket
//   console    stream socket of `cowbird console` (core/tty/console_server.hpp)
//   debug      stream socket of the debug agent (core/debug_agent/)
//   gdb        what the gdb server listens on, one line: "tcp:127.0.0.1:1234"; absent without one
//   info       what `cowbird ls` shows and never changes: lines of key=value (program, machine
//              file, start time)
//
// The directory is mode 0700, so that no other user can reach the sockets. Host side only: called by
// the program before the kernel runs and when it ends, and by the client commands; any one thread,
// blocking.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace cowbird {

inline constexpr std::size_t kMaxInstanceName = 63;

// `configured` ([machine] directory, UML's uml_dir=), else the environment variable COWBIRD_DIR, else
// ~/.uml. nullopt and a sentence when there is no HOME.
std::optional<std::filesystem::path> instance_root(const std::string &configured,
                                                   std::string &error);

// The directory of this process's guest. Removed with everything in it by the destructor, and by
// the emergency list after a panic or a deadly signal (emergency_remove).
class InstanceDirectory {
 public:
  // Claims <root>/<name>. A directory whose process is dead is emptied and used again; a live one is
  // refused: nullptr and a sentence. `name` must be a valid machine name.
  static std::unique_ptr<InstanceDirectory> claim(const std::filesystem::path &root,
                                                  const std::string &name, std::string &error);
  ~InstanceDirectory();
  const std::filesystem::path &path() const { return path_; }
  const std::string &name() const { return name_; }
  // "mconsole" -> the absolute path of that file; it is removed with the directory.
  std::filesystem::path file(const std::string &leaf) const { return path_ / leaf; }
  // Writes a small file in one go (mode 0644).
  bool write(const std::string &leaf, const std::string &text, std::string &error);
  // Async-signal-safe; for boot::at_emergency.
  static void emergency_remove(void *self);

 private:
  InstanceDirectory(std::filesystem::path path, std::string name);
  std::filesystem::path path_;
  std::string name_;
  // Paths of all that may be in it, as C strings, for emergency_remove.
  struct Names;
  std::unique_ptr<Names> names_;
};

// A guest that runs now.
struct RunningInstance {
  std::string name;
  std::filesystem::path directory;
  pid_t pid = 0;
  std::filesystem::path program;  // the executable of the process, as it was started
  std::chrono::system_clock::time_point started;
};
// All of the calling user's under `root`, by name; stale directories are left out.
std::vector<RunningInstance> running_instances(const std::filesystem::path &root);
// By name, by the path of its directory or socket, or by process id. nullopt and a sentence, with
// the names that there are.
std::optional<RunningInstance> find_instance(const std::filesystem::path &root,
                                             const std::string &what, std::string &error);

}  // namespace cowbird
