#include "boot/gdb_server.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "base/host_process.hpp"
#include "base/own_program.hpp"
#include "base/unique_fd.hpp"

namespace cowbird {
namespace {

constexpr int kStartMs = 10'000;
constexpr int kEndPauses = 100;
constexpr timespec kPause{0, 20'000'000};
constexpr const char *kRestartVariable = "COWBIRD_GDB_SERVER";

class SpawnSettings {
 public:
  explicit SpawnSettings(bool stdio) {
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_init(&actions);
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (!stdio) {
      // Away from the terminal: its ^C is for the guest.
      flags |= POSIX_SPAWN_SETSID;
      for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        ::posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
      }
    }
    ::posix_spawnattr_setflags(&attributes, flags);
  }
  ~SpawnSettings() {
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
};

}  // namespace

std::unique_ptr<GdbServer> GdbServer::start(const std::string &address, std::string &error) {
  // "tcp:1234" is a port of this host.
  const bool port_only = address.starts_with("tcp:") && address.find(':') == address.rfind(':');
  const std::string where = port_only ? "tcp::" + address.substr(4) : address;
  if (::access("/proc/self/mem", F_OK) != 0) {
    error = "The gdb server cannot be started: it needs /proc, which this host does not show here.";
    return nullptr;
  }
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    error = fmt::format("The gdb server cannot be started: {}.", std::strerror(errno));
    return nullptr;
  }
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  // A number that the server's own descriptors do not get: the pipe is made for it there.
  constexpr int kAnnounce = 3;
  SpawnSettings settings(address == "stdio");
  ::posix_spawn_file_actions_adddup2(&settings.actions, writer.get(), kAnnounce);
  std::vector<std::string> words = {
      "cowbird",  "gdbserver", "--pid",      std::to_string(::getpid()),
      "--listen", where,       "--announce", std::to_string(kAnnounce)};
  const std::vector<char *> argv = exec_pointers(words);
  pid_t pid = 0;
  const int failed = ::posix_spawn(&pid, own_program(), &settings.actions, &settings.attributes,
                                   argv.data(), environ);
  writer.reset();
  if (failed != 0) {
    error = fmt::format("The gdb server cannot be started: {}.", std::strerror(failed));
    return nullptr;
  }
  // Yama's default lets a process be traced by its ancestors only; this one is a child.
  ::prctl(PR_SET_PTRACER, pid, 0, 0, 0);
  // Its address, or "!" and why it does not listen.
  std::unique_ptr<GdbServer> server(new GdbServer(pid, read_first_line(reader.get(), kStartMs)));
  if (server->address_.empty() || server->address_[0] == '!') {
    error = server->address_.empty() ? "The gdb server did not begin to listen."
                                     : server->address_.substr(1);
    return nullptr;
  }
  return server;
}

void GdbServer::leave_to_restart(std::unique_ptr<GdbServer> server) {
  if (host_process_tracer(::getpid()) == 0 || !server->running()) return;
  ::setenv(kRestartVariable, fmt::format("{} {}", server->pid_, server->address_).c_str(), 1);
  server->reaped_ = true;  // so that it is let alone
}

std::unique_ptr<GdbServer> GdbServer::of_restart() {
  const char *const value = std::getenv(kRestartVariable);
  if (!value) return nullptr;
  char *rest = nullptr;
  const auto pid = static_cast<pid_t>(std::strtol(value, &rest, 10));
  std::string address = *rest == ' ' ? rest + 1 : "";
  ::unsetenv(kRestartVariable);
  // Only a child of ours, whatever the environment says.
  if (pid <= 0 || address.empty() || ::waitpid(pid, nullptr, WNOHANG) != 0) return nullptr;
  return std::unique_ptr<GdbServer>(new GdbServer(pid, std::move(address)));
}

bool GdbServer::running() {
  if (!reaped_ && ::waitpid(pid_, nullptr, WNOHANG) == pid_) reaped_ = true;
  return !reaped_;
}

GdbServer::~GdbServer() {
  if (!running()) return;
  ::kill(pid_, SIGTERM);
  for (int i = 0; i < kEndPauses && running(); ++i) ::nanosleep(&kPause, nullptr);
  if (!running()) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

}  // namespace cowbird
