#include "cli/gdb_client.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/host_process.hpp"
#include "base/own_program.hpp"
#include "base/unique_fd.hpp"
#include "boot/boot.hpp"
#include "instance/instance.hpp"

namespace cowbird::cli {
namespace {

namespace fs = std::filesystem;

// The file that a process runs: by its name, or by way of the process when the file was replaced.
std::string program_of(pid_t pid) {
  std::string link = fmt::format("/proc/{}/exe", pid);
  std::error_code error;
  const fs::path path = fs::read_symlink(link, error);
  if (error || !fs::equivalent(path, link, error) || error) return link;
  return path.string();
}

// As installed, or as in a build tree.
std::optional<std::string> script_for(const std::string &program) {
  std::error_code error;
  const fs::path folder = fs::path(program).parent_path();
  for (const fs::path &share : {folder / "share", folder.parent_path() / "share"}) {
    const fs::path script = share / "cowbird" / "cowbird-gdb.py";
    if (fs::exists(script, error)) return script.string();
  }
  return std::nullopt;
}

std::string environment(const char *name) {
  const char *const value = std::getenv(name);
  return value ? value : "";
}

// --- the server

// The server becomes a child of gdb, which this process is about to be, and ends with it. ^C at
// the terminal is for gdb, which tells the server in its own way.
[[noreturn]] void become_server(const std::string &program, std::vector<char *> argv, int announce,
                                pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(1);
  ::setsid();
  const int null = ::open("/dev/null", O_RDWR);
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  ::fcntl(announce, F_SETFD, 0);
  ::execv(program.c_str(), argv.data());
  const std::string words =
      fmt::format("!The gdb server {} cannot be started: {}.\n", program, std::strerror(errno));
  [[maybe_unused]] const auto written = ::write(announce, words.data(), words.size());
  ::_exit(1);
}

// Starts `program gdbserver WHAT` and returns the socket it listens on, or nothing and a sentence.
// Not by gdb's `target remote | program`: gdb reads from a pipe byte by byte, a system call for
// each, and libraries by the megabyte.
std::optional<std::string> start_server(const std::string &program,
                                        const std::vector<std::string> &what, std::string &error) {
  const std::string runtime = environment("XDG_RUNTIME_DIR");
  const fs::path folder = ::access(runtime.c_str(), W_OK | X_OK) == 0 ? runtime : "/tmp";
  const std::string path = folder / fmt::format("cowbird-gdb-{}", ::getpid());
  std::array<int, 2> ends;
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    error = fmt::format("The gdb server cannot be started: {}.", std::strerror(errno));
    return std::nullopt;
  }
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  std::vector<std::string> words = {"cowbird", "gdbserver"};
  words.insert(words.end(), what.begin(), what.end());
  words.insert(words.end(),
               {"--listen", "unix:" + path, "--announce", std::to_string(writer.get())});
  const std::vector<char *> argv = exec_pointers(words);
  const pid_t self = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) become_server(program, argv, writer.get(), self);
  if (child < 0) {
    error = fmt::format("The gdb server cannot be started: {}.", std::strerror(errno));
    return std::nullopt;
  }
  writer.reset();
  const std::string answer = read_first_line(reader.get(), -1);
  if (!answer.empty() && answer[0] != '!') return path;
  error = answer.empty() ? "The gdb server ended before it listened." : answer.substr(1);
  return std::nullopt;
}

// --- gdb's index

// gdb writes down what it has found in a program's symbols (14 MB for a kernel) and need not read
// them again next time. Of each new build something is left there, so the oldest are removed.
constexpr std::uintmax_t kMostIndexBytes = 256 << 20;

void prune(const fs::path &folder) {
  struct Index {
    fs::path path;
    fs::file_time_type time;
    std::uintmax_t size;
  };
  std::vector<Index> all;
  std::error_code error;
  for (const auto &entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".gdb-index") continue;
    std::error_code gone;
    const Index index{entry.path(), entry.last_write_time(gone), entry.file_size(gone)};
    if (!gone) all.push_back(index);
  }
  std::sort(all.begin(), all.end(), [](const auto &a, const auto &b) { return a.time > b.time; });
  std::uintmax_t bytes = 0;
  for (const Index &index : all) {
    bytes += index.size;
    if (bytes > kMostIndexBytes) fs::remove(index.path, error);
  }
}

// Empty: there is no place for it.
std::string index_folder() {
  const std::string cache = environment("XDG_CACHE_HOME"), home = environment("HOME");
  if (cache.empty() && home.empty()) return "";
  const fs::path folder =
      (cache.empty() ? fs::path(home) / ".cache" : fs::path(cache)) / "cowbird" / "gdb";
  std::error_code error;
  fs::create_directories(folder, error);
  if (::access(folder.c_str(), W_OK | X_OK) != 0) return "";
  prune(folder);
  return folder;
}

std::vector<std::string> gdb_words(const GdbArguments &arguments, const std::string &program,
                                   const std::string &socket) {
  // The program is the guest's own, so gdb need not compare it, and can look into the file for code
  // instead of asking: half of the packets of `info threads`. It reads stacks in larger pieces than
  // its 64 bytes. Breakpoints stay where they are from stop to stop, which is a third of the
  // packets of a `next`; the server hides them from gdb's reads. A guest on a slow host gets more
  // time than gdb's two seconds.
  std::vector<std::string> words = {"gdb",  "-q",
                                    "-iex", "set remotetimeout 60",
                                    "-iex", "set exec-file-mismatch off",
                                    "-iex", "set trust-readonly-sections on",
                                    "-iex", "set dcache line-size 1024",
                                    "-iex", "set breakpoint always-inserted on"};
  const std::string index = index_folder();
  if (!index.empty()) {
    words.insert(words.end(), {"-iex", "set index-cache directory " + index, "-iex",
                               "set index-cache enabled on"});
  }
  const auto script = arguments.no_script ? std::nullopt : script_for(own_program_path());
  if (script) words.insert(words.end(), {"-ex", "source " + *script});
  words.insert(words.end(), {"-ex", "target extended-remote " + socket});
  words.insert(words.end(), arguments.gdb_arguments.begin(), arguments.gdb_arguments.end());
  if (!program.empty()) words.push_back(program);
  return words;
}

}  // namespace

int start_gdb(const GdbArguments &arguments, std::string &error) {
  std::string program, server = own_program_path();
  std::vector<std::string> what;
  if (arguments.core.empty()) {
    const auto root = instance_root(arguments.directory, error);
    const auto guest = root ? find_instance(*root, arguments.guest, error) : std::nullopt;
    if (!guest) return kExitHostError;
    // The guest's own program knows the guest's own structures.
    program = server = program_of(guest->pid);
    what = {"--pid", std::to_string(guest->pid)};
  } else {
    if (::access(arguments.core.c_str(), R_OK) != 0) {
      error =
          fmt::format("The core file {} cannot be read: {}.", arguments.core, std::strerror(errno));
      return kExitHostError;
    }
    program = arguments.program;
    what = {"--core", fs::absolute(arguments.core).string()};
    if (!program.empty()) what.insert(what.end(), {"--program", fs::absolute(program).string()});
  }
  const auto socket = start_server(server, what, error);
  if (!socket) return kExitHostError;
  std::vector<std::string> words = gdb_words(arguments, program, *socket);
  const std::vector<char *> argv = exec_pointers(words);
  ::execvp("gdb", argv.data());
  error = errno == ENOENT ? "There is no gdb on this host: install the Debian package gdb."
                          : fmt::format("gdb cannot be started: {}.", std::strerror(errno));
  return kExitHostError;
}

}  // namespace cowbird::cli
