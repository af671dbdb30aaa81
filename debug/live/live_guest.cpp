#include "debug/live/live_guest.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "debug/monitor/monitor.hpp"
#include "debug/target/guest_target.hpp"
#include "debug/target/kernel_target.hpp"
#include "mconsole/client.hpp"

namespace cowbird::debug {
namespace {

constexpr std::chrono::seconds kPatience{5};

// What GuestTarget refers to.
struct Parts {
  explicit Parts(pid_t host_pid) : kernel(host_pid, KernelView::open) {}
  KernelTarget kernel;
  std::unique_ptr<Monitor> monitor;
};

// By its name among the sockets that the process has: the run-time directory may be anywhere.
std::string socket_of(pid_t host_pid, std::string_view name) {
  std::set<std::string> inodes;
  std::error_code error;
  const std::string descriptors = fmt::format("/proc/{}/fd", host_pid);
  for (const auto &entry : std::filesystem::directory_iterator(descriptors, error)) {
    const std::string link = std::filesystem::read_symlink(entry.path(), error).string();
    constexpr std::string_view kSocket = "socket:[";
    if (link.starts_with(kSocket)) {
      inodes.insert(link.substr(kSocket.size(), link.size() - kSocket.size() - 1));
    }
  }
  std::ifstream sockets(fmt::format("/proc/{}/net/unix", host_pid));
  for (std::string line; std::getline(sockets, line);) {
    std::istringstream words(line);
    std::string number, references, protocol, flags, type, state, inode, path;
    words >> number >> references >> protocol >> flags >> type >> state >> inode;
    std::getline(words >> std::ws, path);
    // Accepted connections carry the name too; any of them says where the socket is.
    if (path.ends_with(name) && inodes.contains(inode)) return path;
  }
  return "";
}

// The management console's thread answers also when the kernel is stuck.
bool ask_for_leave(pid_t host_pid, std::string &why) {
  const std::string socket = socket_of(host_pid, "/mconsole");
  if (socket.empty()) {
    why = "The guest cannot be asked for it: it has no run-time directory.";
    return false;
  }
  const auto client = mconsole::Client::connect(socket, why);
  if (!client) return false;
  const auto reply = client->ask(fmt::format("tracer {}", ::getpid()), kPatience);
  why = reply.text;
  return reply.outcome == mconsole::Outcome::Ok;
}

}  // namespace

std::string agent_socket_of(pid_t host_pid) { return socket_of(host_pid, "/debug"); }

std::unique_ptr<Target> make_live_guest(pid_t host_pid) {
  auto parts = std::make_shared<Parts>(host_pid);
  KernelTarget *const kernel = &parts->kernel;
  kernel->ask_for_leave = [host_pid](std::string &why) { return ask_for_leave(host_pid, why); };
  GuestTarget::KernelSide side;
  side.hard_stopped = [kernel] { return kernel->hard_stopped(); };
  side.serves = [kernel] { return kernel->serves(); };
  side.pause = [kernel] { kernel->pause(); };
  side.unpause = [kernel] { kernel->unpause(); };
  side.view = [kernel] { return kernel->view(); };
  side.host_pid = host_pid;
  side.agent_socket = [host_pid] { return agent_socket_of(host_pid); };
  side.keep = parts;
  auto guest = std::make_unique<GuestTarget>(*kernel, std::move(side));
  parts->monitor = std::make_unique<Monitor>(*guest, [kernel] { return kernel->view(); });
  Monitor *const monitor = parts->monitor.get();
  guest->side().monitor = [monitor](const std::string &command, ThreadId current,
                                    const OutputSink &out) {
    return monitor->run(command, current, out);
  };
  guest->side().os_tables = [] { return Monitor::os_tables(); };
  guest->side().os_table = [monitor](const std::string &name) { return monitor->os_table(name); };
  return guest;
}

}  // namespace cowbird::debug
