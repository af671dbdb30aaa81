#include "debug/program/gdbserver.hpp"

#include <fmt/format.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>

#include "base/unique_fd.hpp"
#include "debug/core/core_target.hpp"
#include "debug/core/core_writer.hpp"
#include "debug/live/live_guest.hpp"
#include "debug/server/server.hpp"

namespace cowbird::debug {
namespace {

constexpr int kOk = 0;
constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr std::size_t kMaxTrace = 1000;  // bytes of a packet that are shown

int write_core(const cli::GdbServerArguments &arguments, std::string &error) {
  std::uint64_t written = 0;
  const CoreOptions options{arguments.panic, arguments.thread, arguments.guest_memory};
  if (!write_core_file(arguments.pid, arguments.write_core, options, written, error)) {
    return kFailed;
  }
  constexpr std::uint64_t kMiB = 1 << 20;
  fmt::print(stderr, "cowbird: core file {} ({} MiB); look at it with\n  cowbird gdb --core {}\n",
             arguments.write_core, (written + kMiB - 1) / kMiB, arguments.write_core);
  return kOk;
}

std::unique_ptr<Target> make_target(const cli::GdbServerArguments &arguments, std::string &error) {
  if (arguments.core.empty()) {
    if (::kill(arguments.pid, 0) != 0 && errno == ESRCH) {
      error = fmt::format("There is no process {}.", arguments.pid);
      return nullptr;
    }
    return make_live_guest(arguments.pid);
  }
  auto core = CoreTarget::open(arguments.core, arguments.program, error);
  if (core) fmt::print(stderr, "{}\n", core->summary());
  return core;
}

// Readable when a signal asks the server to end.
UniqueFd stop_signals(bool stdio) {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGHUP);
  // gdb's ^C comes as a byte; the signal of the terminal that both share is not for us.
  if (stdio) {
    ::signal(SIGINT, SIG_IGN);
  } else {
    ::sigaddset(&signals, SIGINT);
  }
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  return UniqueFd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
}

UniqueFd end_of(pid_t guest) {
  if (guest == 0) return UniqueFd();
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, guest, 0)));
}

// Tells the kernel that has started us.
void announce(int fd, const std::string &text) {
  if (fd < 0) return;
  const std::string line = text + "\n";
  [[maybe_unused]] const auto written = ::write(fd, line.data(), line.size());
  ::close(fd);
}

int serve(const cli::GdbServerArguments &arguments, std::string &error) {
  const auto address =
      ListenAddress::parse(arguments.listen.empty() ? "stdio" : arguments.listen, error);
  if (!address) return kUsage;
  const bool stdio = address->kind == ListenAddress::Kind::Stdio;
  ::signal(SIGPIPE, SIG_IGN);
  const auto target = make_target(arguments, error);
  if (!target) return kFailed;
  const UniqueFd stop = stop_signals(stdio);
  const UniqueFd guest = end_of(arguments.core.empty() ? arguments.pid : 0);
  Server::Options options;
  options.guest_fd = guest.get();
  options.stop_fd = stop.get();
  options.once = arguments.once || stdio;
  if (arguments.announce < 0 && !stdio) {
    options.say = [](std::string_view words) { fmt::print(stderr, "cowbird: {}\n", words); };
  }
  if (arguments.log_packets) {
    options.trace = [](char direction, std::string_view payload) {
      fmt::print(stderr, "{} {}\n", direction, payload.substr(0, kMaxTrace));
    };
  }
  const auto server = Server::create(*address, *target, std::move(options), error);
  if (!server) return kFailed;
  announce(arguments.announce, server->address().text());
  if (arguments.announce < 0 && !stdio) {
    fmt::print(stderr, "cowbird: listening on {}\n", server->address().text());
  }
  if (server->run() != Server::End::Failed) return kOk;
  error = "The server cannot wait for gdb: the host refuses it.";
  return kFailed;
}

}  // namespace

int run_gdbserver(const cli::GdbServerArguments &arguments, std::string &error) {
  if (!arguments.write_core.empty()) return write_core(arguments, error);
  const int status = serve(arguments, error);
  if (status != kOk) announce(arguments.announce, "!" + error);
  return status;
}

std::string program_of_core(const std::string &core) {
  std::string why;
  const auto file = CoreFile::open(core, why);
  if (!file) return "";
  std::string program = (*file)->property("program");
  return ::access(program.c_str(), R_OK) == 0 ? program : "";
}

}  // namespace cowbird::debug
