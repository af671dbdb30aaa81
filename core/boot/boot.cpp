#include "boot/boot.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "base/host_process.hpp"
#include "base/log.hpp"
#include "base/own_program.hpp"
#include "boot/debug_stop.hpp"
#include "boot/end_signals.hpp"
#include "boot/machine.hpp"
#include "boot/panic.hpp"
#include "debug_agent/debug_agent.hpp"
#include "irq/irq.hpp"
#include "mconsole/mconsole.hpp"
#include "mconsole/notify.hpp"
#include "mm/mm.hpp"
#include "proc/task.hpp"
#include "proc/uts.hpp"
#include "sched/bkl.hpp"
#include "sched/clock.hpp"
#include "sched/scheduler.hpp"
#include "sched/wait.hpp"
#include "tty/console_server.hpp"
#include "tty/tty_log.hpp"

namespace cowbird {
namespace {

// A machine that got a random name keeps it when it restarts: this variable of the environment
// tells the process that we become.
constexpr const char *kRestartName = "COWBIRD_RESTART_NAME";

std::string name_from_restart() {
  const char *name = ::getenv(kRestartName);
  std::string found = name ? name : "";
  ::unsetenv(kRestartName);
  return found;
}

// The words of our own command line, to start again as we were started.
[[noreturn]] void re_execute(const std::string &random_name) {
  std::vector<std::string> words = own_words();
  const std::vector<char *> argv = exec_pointers(words);
  boot::restore_end_signals();
  if (!random_name.empty()) ::setenv(kRestartName, random_name.c_str(), 1);
  ::execv(own_program(), argv.data());
  std::fprintf(stderr, "cowbird: cannot start again: %s\n", std::strerror(errno));
  ::_exit(kExitHostError);
}

}  // namespace

Machine::Machine(const BootRequest &request) : request_(request) {}

bool Machine::start(std::string &error) {
  std::vector<std::filesystem::path> path(request_.config.plugin_path.begin(),
                                          request_.config.plugin_path.end());
  plugins_ = std::make_unique<PluginRegistry>(PluginRegistry::default_search_path(path));
  set_log_clock(clock::monotonic_ns);
  boot::install_panic_handler();
  if (const auto installed = boot::install_fault_handlers(); !installed) {
    error = fmt::format("The handlers of kernel faults cannot be installed: {}.",
                        errno_text(installed.error()));
    return false;
  }
  if (!boot::watch_end_signals(error)) return false;
  if (!claim_instance(error)) return false;
  boot::at_emergency([](void *) { restore_host_terminals(); }, nullptr,
                     boot::EmergencyFor::EndAndHalt);

  if (!set_up_debugging(error)) return false;
  auto memory = PhysMemory::create(request_.config.memory, error);
  if (!memory) return false;
  memory_ = std::move(*memory);
  set_phys(memory_.get());

  StubPlatformOptions options;
  options.memory_fd = memory_->fd();
  options.memory_pages = memory_->total_pages();
  options.vcpus = request_.config.vcpus;
  options.before_block = release_bkl_to_wait;
  options.after_block = retake_bkl;
  auto platform = make_stub_platform(options, error);
  if (!platform) return false;
  platform_ = std::move(*platform);

  if (const auto started = irq::start(); !started) {
    error = fmt::format("The irq thread cannot be started: {}.", errno_text(started.error()));
    return false;
  }
  host_events_ = std::make_unique<IrqHostEvents>();
  cowbird_debug_wait_for_gdb();
  if (const auto started = scheduler::start(request_.config.vcpus); !started) {
    error = fmt::format("{} vCPUs cannot be started: {}.", request_.config.vcpus,
                        errno_text(started.error()));
    return false;
  }
  {
    BklGuard guard;
    uts_hostname() = name_;  // the management console's first answer gives it
  }
  if (!start_mconsole(error)) return false;
  BklGuard guard;
  const auto thread = Thread::spawn("boot", [this] { bring_up(); });
  if (!thread) {
    error =
        fmt::format("The first kernel thread cannot be started: {}.", errno_text(thread.error()));
    return false;
  }
  return true;
}

bool Machine::claim_instance(std::string &error) {
  const MachineConfig &config = request_.config;
  const std::string restarted = name_from_restart();
  const bool named = !config.name.empty();
  InstanceInfo info;
  if (!request_.file.empty()) info["file"] = request_.file;
  if (request_.run) info["run"] = fmt::format("{}", fmt::join(request_.run->argv, " "));
  std::string why;
  const auto root = instance_root(config.directory, why);
  // A random name that is taken is a reason to think of another one.
  constexpr int kAttempts = 4;
  for (int i = 0; root && !instance_ && i < (named ? 1 : kAttempts); ++i) {
    name_ = named ? config.name : i == 0 && !restarted.empty() ? restarted : random_machine_name();
    instance_ = InstanceDirectory::claim(*root, name_, info, why);
  }
  if (name_.empty()) name_ = named ? config.name : random_machine_name();
  if (instance_) {
    instance_emergency_ = boot::at_emergency(InstanceDirectory::emergency_remove, instance_.get());
    return true;
  }
  // A throw-away guest that nobody has given a place or a name does without.
  if (request_.run && !named && config.directory.empty()) {
    log_warn("The guest has no run-time directory and no management console. {}", why);
    return true;
  }
  error = why;
  return false;
}

bool Machine::set_up_debugging(std::string &error) {
  const DebugConfig &debug = request_.config.debug;
  boot::set_panic_policy({debug.on_panic == OnPanic::Wait, name_, debug.core, debug.core_memory});
  if (debug.gdb.empty()) return true;
  // Before there is a server: a gdb that is quick may let the guest go before it has come to wait.
  if (debug.wait) cowbird_debug_hold = 1;
  gdb_server_ = GdbServer::of_restart();
  if (!gdb_server_) gdb_server_ = GdbServer::start(debug.gdb, error);
  if (!gdb_server_) return false;
  log_notice("gdb server: {}", gdb_server_->address());
  if (instance_ && !instance_->write("gdb", gdb_server_->address() + "\n", error)) return false;
  if (cowbird_debug_hold != 0) {
    fmt::print(stderr, "cowbird: the guest waits for gdb on {}\n", gdb_server_->address());
  }
  return true;
}

void Machine::part_from_gdb_server() {
  if (gdb_server_) GdbServer::leave_to_restart(std::move(gdb_server_));
}

bool Machine::start_mconsole(std::string &error) {
  const std::string &notify = request_.config.notify;
  if (!notify.empty() && !mconsole::set_notify_target(notify, error)) return false;
  if (!instance_) return true;
  return mconsole::start({instance_->file("mconsole"),
                          [this] {
                            boot::run_emergencies();
                            part_from_gdb_server();
                            re_execute(random_name());
                          }},
                         error);
}

void Machine::give_up() {
  // Collected here, the stubs do not go on counting as processes of our user until init looks.
  if (platform_) platform_->shutdown();
  restore_host_terminals();
  drop_instance();
}

void Machine::drop_instance() {
  if (instance_) boot::cancel_emergency(instance_emergency_);
  instance_.reset();
}

std::string Machine::random_name() const { return request_.config.name.empty() ? name_ : ""; }

void Machine::end(int status, std::string error) {
  if (ending_) return;
  ending_ = true;
  const auto finisher =
      Thread::spawn("shutdown", [this, status, why = std::move(error)] { finish(status, why); });
  if (!finisher) finish(status, "The guest had no memory left for its shutdown.");
}

int Machine::wait() {
  ended_.acquire();
  mconsole::stop();
  // vCPUs first, so that no kernel code runs while the rest goes; the engine's processes then die
  // with it. Host terminals come last, after what was still in their buffers.
  scheduler::stop();
  platform_->shutdown();
  {
    BklGuard guard;
    debug_agent::stop();
  }
  irq::stop();
  {
    const BklGuard guard;
    console_server::stop(restart_ ? "The guest starts again." : "The guest has ended.");
    // What the channels have on the host goes with them: sockets, windows, modes.
    for (LineDriver *const driver : {consoles_, serials_}) {
      if (driver) driver->shut_down();
    }
    tty_log::stop();
  }
  restore_host_terminals();
  drop_instance();
  return status_;
}

void Machine::install_hooks() {
  if (request_.run) {
    set_init_exit_hook([this](int status) {
      const int signal = status & 0x7f;
      end(signal != 0 ? 128 + signal : (status >> 8) & 0xff);
    });
  }
  set_reboot_hook([this](RebootAction action, const std::string &) {
    restart_ = action == RebootAction::Restart;
    log_notice("{}", action == RebootAction::Restart ? "Restarting system"
                     : action == RebootAction::Halt  ? "System halted"
                                                     : "Power down");
    end(kExitOk);
    while (true) {
      // Stays here until the vCPU stops; the guest program does not go on.
      [[maybe_unused]] const auto slept =
          sleep_until(kNoDeadline, SleepMode::Uninterruptible, "reboot");
    }
  });
}

void Machine::finish(int status, std::string error) {
  constexpr std::int64_t kDrainNs = 2 * kNsPerSec;
  sync_all();
  console_log::flush();
  const std::int64_t deadline = clock::monotonic_ns() + kDrainNs;
  for (LineDriver *const driver : {consoles_, serials_}) {
    if (driver) driver->drain(deadline);
  }
  status_ = status;
  error_ = std::move(error);
  ended_.release();
}

bool Machine::fail(std::string message) {
  end(kExitHostError, std::move(message));
  return false;
}

int boot_machine(const BootRequest &request, std::string &error) {
  // Never destroyed: kernel threads that have not ended still refer to it when the process ends.
  static Machine *machine = nullptr;
  machine = new Machine(request);
  if (!machine->start(error)) {
    machine->give_up();
    return kExitHostError;
  }
  const int status = machine->wait();
  if (machine->wants_restart()) {
    machine->part_from_gdb_server();
    re_execute(machine->random_name());
  }
  if (!machine->error().empty()) {
    error = machine->error();
    return status;
  }
  // The guest is over. Its kernel's objects are not taken apart one by one; the host does it at
  // once.
  std::fflush(nullptr);
  ::_exit(status);
}

}  // namespace cowbird
