#include "mconsole/commands.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "abi/fcntl.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "boot/backtrace.hpp"
#include "devices/device_registry.hpp"
#include "fs/procfs.hpp"
#include "proc/sysrq.hpp"
#include "proc/task.hpp"
#include "sched/freeze.hpp"
#include "vfs/file.hpp"
#include "vfs/mount.hpp"

namespace cowbird::mconsole {

namespace {

// The largest file of /proc that is sent; more would only fill the host's memory.
constexpr std::size_t kMaxProcFile = 64 * kMiB;
constexpr std::size_t kReadPiece = 64 * kKiB;

Answer of_reply(const DeviceReply &reply) { return {reply.ok, reply.text}; }

std::optional<int> parse_number(std::string_view text) {
  int number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || stop != text.data() + text.size()) return std::nullopt;
  return number;
}

Answer stack_command(const std::string &argument) {
  const auto pid = parse_number(argument);
  if (!pid) return Answer::error("Please specify a pid");
  const Ref<Task> task = find_task(*pid);
  if (!task) return Answer::error(fmt::format("Couldn't find a process {}", *pid));
  std::string text =
      fmt::format("Stack of {} ({}), {}", task->comm, task->tid, task_state_letter(*task));
  const bool runs = task->state() == ThreadState::Running;
  if (!runs && task->wait_channel()) text += fmt::format(", in {}", task->wait_channel());
  text += '\n';
  if (task->context) {
    if (runs) text += "Registers at its last way into the kernel (it runs on a vCPU now):\n";
    for (const std::string &row : format_registers(task->regs())) text += row + '\n';
  }
  text += "Call trace:\n";
  const auto frames = boot::backtrace_of(*task);
  for (const auto &frame : frames) text += " " + boot::format_frame(frame) + '\n';
  if (frames.empty()) text += runs ? " (it runs guest code)\n" : " (none)\n";
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    log_info("{}", std::string_view(text).substr(at, end - at));
    at = end + 1;
  }
  return Answer::done(text);
}

Answer devices_command() {
  std::string text;
  for (const DeviceStatus &device : DeviceRegistry::instance().list()) {
    text += fmt::format("{}{}={}\n", device.name, device.busy ? " [open]" : "", device.setting);
  }
  return Answer::done(std::move(text));
}

// --- proc

Result<std::string> read_whole(File &file) {
  std::string text;
  std::uint64_t offset = 0;
  for (;;) {
    const std::size_t at = text.size();
    text.resize(at + kReadPiece);
    IovIter to = IovIter::kernel(std::as_writable_bytes(std::span(text).subspan(at)));
    const auto got = file.read(to, offset);
    text.resize(at + (got ? static_cast<std::size_t>(*got) : 0));
    // A stream such as kmsg has been read when it would make us wait.
    if (got.is(Errno::Again) && at > 0) return text;
    if (!got) return Err(got.error());
    if (*got == 0) return text;
    if (text.size() > kMaxProcFile) return Err(Errno::FBig);
  }
}

Answer proc_command(const std::string &name) {
  if (name.empty()) return Answer::error("proc takes the name of a file below /proc");
  if (!procfs_superblock()) return Answer::error("The guest has no /proc yet");
  if (!find_process(1)) return Answer::error("Failed to look up init process");
  const Ref<Mount> mount = make_internal_mount(procfs_superblock());
  auto fs = make_ref<FsContext>();
  fs->root = Path(mount, mount->root);
  fs->cwd = fs->root;
  // Names are taken below /proc, whether or not they begin with a slash.
  const WalkContext walk{*fs, Credentials::kernel(), fs->root};
  const auto path = lookup(walk, name, LookupFlag::Follow);
  if (!path) {
    return Answer::error(fmt::format("Failed to open file: {}", errno_text(path.error())));
  }
  // Before it is opened: the links of a process (self/fd/0) lead to terminals, pipes and devices,
  // whose drivers open and read for a task of the guest, which we are not.
  const Inode &inode = path->inode();
  if (inode.is_directory()) return Answer::error("Failed to open file: Is a directory");
  if (!inode.is_regular()) return Answer::error("Failed to open file: It is no regular file");
  const auto file = open_resolved(*path, abi::kO_RDONLY | abi::kO_NONBLOCK, Credentials::kernel());
  if (!file) {
    return Answer::error(fmt::format("Failed to open file: {}", errno_text(file.error())));
  }
  auto text = read_whole(**file);
  if (!text) {
    return Answer::error(fmt::format("Read of file failed: {}", errno_text(text.error())));
  }
  return Answer::done(std::move(*text));
}

void end_guest(RebootAction action, const Responder &responder) {
  responder.answer(Answer::done());
  [[maybe_unused]] const auto asked = request_reboot(action);
}

// The keys that sleep. The one that ends the guest does not return, so it is answered before.
void slow_sysrq(char key, const Responder &responder) {
  if (!sysrq_allowed(key)) return responder.answer(sysrq_command(key));
  if (key == 'o') responder.answer(Answer::done("sysrq: Power Off\n"));
  std::string output;
  const auto done = handle_sysrq(key, &output);
  if (key == 'o') return;
  responder.answer(done
                       ? Answer::done(output)
                       : Answer::error(fmt::format("sysrq {}: {}", key, errno_text(done.error()))));
}

}  // namespace

Answer stop_command() {
  const auto held = freeze::hold(freeze::Holder::Operator);
  if (held) return Answer::done("stopped");
  if (held.is(Errno::Exist)) return Answer::error("Already stopped");
  if (held.is(Errno::Canceled)) return Answer::error("The guest is ending");
  return Answer::error(std::string(errno_text(held.error())));
}

Answer sysrq_command(char key) {
  if (!sysrq_allowed(key)) {
    return Answer::error(
        "This sysrq operation is disabled; see /proc/sys/kernel/sysrq of the guest");
  }
  std::string output;
  const auto done = handle_sysrq(key, &output);
  if (!done) return Answer::error(fmt::format("sysrq {}: {}", key, errno_text(done.error())));
  return Answer::done(output);
}

Answer quick_command(const CommandLine &line, bool &sleeps) {
  switch (line.command) {
    case Command::Go:
      if (!freeze::release(freeze::Holder::Operator)) return Answer::error("Not stopped");
      if (!freeze::frozen()) return Answer::done();
      return Answer::done("a debugger still holds the guest");
    case Command::Devices:
      return devices_command();
    case Command::Stack:
      return stack_command(line.argument);
    case Command::Cad: {
      if (ctrl_alt_del_restarts()) {
        sleeps = true;
        return {};
      }
      const auto done = ctrl_alt_del();
      return done ? Answer::done() : Answer::error(std::string(errno_text(done.error())));
    }
    default:
      return Answer::error("Unknown command");
  }
}

void kernel_command(const CommandLine &line, const Responder &responder) {
  switch (line.command) {
    case Command::Halt:
      return end_guest(RebootAction::Halt, responder);
    case Command::Reboot:
    case Command::Cad:  // without an init that wants to decide
      return end_guest(RebootAction::Restart, responder);
    case Command::Config:
      return responder.answer(of_reply(DeviceRegistry::instance().config(line.argument)));
    case Command::Remove:
      return responder.answer(of_reply(DeviceRegistry::instance().remove(line.argument)));
    case Command::Proc: {
      const Answer answer = proc_command(line.argument);
      return responder.answer(answer, answer.ok ? "\n" : "");
    }
    case Command::Sysrq:
      return slow_sysrq(line.argument[0], responder);
    default:
      return responder.answer(Answer::error("Unknown command"));
  }
}

}  // namespace cowbird::mconsole
