// State of the whole guest that no process owns: its names, and how it ends.
#include "proc/task.hpp"
#include "proc/uts.hpp"

namespace cowbird {
namespace {

std::function<void(RebootAction, const std::string &)> &reboot_hook() {
  static std::function<void(RebootAction, const std::string &)> hook;
  return hook;
}

}  // namespace

std::string &uts_hostname() {
  static std::string name = "(none)";
  return name;
}

std::string &uts_domainname() {
  static std::string name = "(none)";
  return name;
}

void set_reboot_hook(std::function<void(RebootAction action, const std::string &argument)> hook) {
  reboot_hook() = std::move(hook);
}

Result<void> request_reboot(RebootAction action, const std::string &argument) {
  if (!reboot_hook()) return Err(Errno::NoSys);
  reboot_hook()(action, argument);
  return {};
}

namespace {
bool cad_restarts = true;
}

void set_ctrl_alt_del_restarts(bool on) { cad_restarts = on; }
bool ctrl_alt_del_restarts() { return cad_restarts; }

Result<void> ctrl_alt_del() {
  if (cad_restarts) return request_reboot(RebootAction::Restart);
  const Ref<Process> init = find_process(1);
  if (!init) return Err(Errno::Srch);
  send_kernel_signal(*init, kSigInt);
  return {};
}

}  // namespace cowbird
