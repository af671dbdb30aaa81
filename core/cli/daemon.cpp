#include "cli/daemon.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ostream.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/unique_fd.hpp"
#include "boot/boot.hpp"

namespace cowbird::cli {

namespace {

// The process that is a daemon already: a restart keeps the process and its environment.
constexpr const char *kDaemonVariable = "COWBIRD_DAEMON_PID";

bool is_standard(const PluginSetting &setting) {
  if (setting.plugin != "fd") return false;
  for (const char *key : {"input", "output"}) {
    const auto found = setting.config.values.find(key);
    if (found == setting.config.values.end()) continue;
    const auto *fd = std::get_if<std::int64_t>(&found->second);
    if (fd && *fd >= 0 && *fd <= 2) return true;
  }
  return false;
}

// Waits for the child's word.
int report(pid_t child, int fd, std::ostream &out) {
  std::string name;
  char buffer[256];
  for (;;) {
    const auto got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    name.append(buffer, static_cast<std::size_t>(got));
  }
  if (!name.empty()) {
    fmt::print(out, "{} runs as process {}. `cowbird console {}` attaches to it.\n", name, child,
               name);
    return kExitOk;
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// To a file, or with no name to nothing: without /dev/null, what can be neither read nor written.
void point_to(int fd, const std::string &file) {
  UniqueFd opened(file.empty()
                      ? ::open("/dev/null", O_RDWR | O_CLOEXEC)
                      : ::open(file.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!opened.valid() && file.empty()) opened.reset(::open("/", O_PATH | O_CLOEXEC));
  if (opened.valid()) ::dup2(opened.get(), fd);
}

}  // namespace

void detach_consoles(MachineConfig &config) {
  const auto detach = [](PluginSetting &setting) {
    if (is_standard(setting)) setting = {"null", {}, {}};
  };
  for (auto *lines : {&config.consoles, &config.serials}) {
    for (LineConfig &line : *lines) {
      detach(line.input);
      if (line.output) detach(*line.output);
    }
  }
}

std::optional<int> become_daemon(const std::string &log, std::ostream &out, std::ostream &err,
                                 std::function<void(const std::string &name)> &up) {
  const char *already = std::getenv(kDaemonVariable);
  if (already && already == std::to_string(::getpid())) return std::nullopt;
  if (!log.empty()) {
    const UniqueFd opened(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (!opened.valid()) {
      fmt::print(err, "--log {}: The file cannot be written: {}.\n", log, std::strerror(errno));
      return kExitHostError;
    }
  }
  int ends[2];
  const pid_t child = ::pipe2(ends, O_CLOEXEC) == 0 ? ::fork() : -1;
  if (child < 0) {
    fmt::print(err, "A process for the guest cannot be made: {}.\n", std::strerror(errno));
    return kExitHostError;
  }
  if (child > 0) {
    ::close(ends[1]);
    const UniqueFd reader(ends[0]);
    return report(child, reader.get(), out);
  }
  ::close(ends[0]);
  ::setsid();
  ::setenv(kDaemonVariable, std::to_string(::getpid()).c_str(), 1);
  point_to(STDIN_FILENO, "");
  point_to(STDOUT_FILENO, log);
  const auto pipe = std::make_shared<UniqueFd>(ends[1]);
  up = [pipe, log](const std::string &name) {
    [[maybe_unused]] const auto told = ::write(pipe->get(), name.data(), name.size());
    pipe->reset();
    point_to(STDERR_FILENO, log);
  };
  return std::nullopt;
}

}  // namespace cowbird::cli
