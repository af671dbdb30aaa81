// The machine that this process is: what boot_machine() builds, in the order in which it is built.
// Private to boot/.
#pragma once

#include <memory>
#include <semaphore>
#include <string>
#include <vector>

#include "boot/boot.hpp"
#include "boot/gdb_server.hpp"
#include "devices/line_driver.hpp"
#include "engine/platform.hpp"
#include "instance/instance.hpp"
#include "mm/phys_memory.hpp"
#include "plugins/irq_host_events.hpp"
#include "plugins/plugin_registry.hpp"
#include "tty/tty.hpp"
#include "vfs/path.hpp"

namespace cowbird {

class FdTable;

class Machine {
 public:
  explicit Machine(const BootRequest &request);

  // Host side: plugins, memory, engine, threads. False and `error` when the host refuses; nothing
  // is running then.
  bool start(std::string &error);
  // Waits for the end of the guest and gives the exit status; stops everything.
  int wait();

  // Before the program is executed anew: a gdb that is attached sees the next guest too.
  void part_from_gdb_server();
  // After start() has failed: leaves nothing on the host.
  void give_up();
  // The run-time directory goes; the last thing.
  void drop_instance();

  // The end of the guest, told once; later calls are ignored. Any kernel thread; does not sleep.
  void end(int status, std::string error = {});
  bool wants_restart() const { return restart_; }
  // What a machine without a name of its own was called, for its restart; else empty.
  std::string random_name() const;
  const std::string &error() const { return error_; }

 private:
  // Gives the machine its name and its run-time directory.
  bool claim_instance(std::string &error);
  // [debug]: the gdb server, and what a panic does.
  bool set_up_debugging(std::string &error);

  bool start_mconsole(std::string &error);

  // The kernel thread that brings the guest up (boot/bring_up.cpp): each step returns false after
  // end().
  void bring_up();
  bool set_up_file_systems();
  bool set_up_devices();
  bool set_up_consoles();
  bool start_console_server();
  bool set_up_blocks();
  bool set_up_root(FsContext &fs);
  bool set_up_mounts(FsContext &fs);
  bool start_first_program(Ref<FsContext> fs);
  bool open_stdio(FsContext &fs, FdTable &files);
  bool open_run_stdio(FsContext &fs, FdTable &files);
  bool mount_into(FsContext &fs, const std::string &where, Ref<SuperBlock> sb, std::string source,
                  std::uint32_t flags);
  Result<std::string> find_init(FsContext &fs, std::string &tried);
  DeviceHost device_host() const;
  bool set_up_lines(const LineDriver::Kind &kind, const std::vector<LineConfig> &configs,
                    LineDriver *&driver);
  // The line that `cowbird run` gives its program: the caller's terminal, if there is one.
  std::vector<LineConfig> run_console() const;
  bool hold_main_console();
  bool start_tty_log();
  void install_hooks();
  // Sleeps: file systems are synchronised and the consoles drained.
  void finish(int status, std::string error);
  bool fail(std::string message);

  const BootRequest &request_;
  std::string name_;
  std::unique_ptr<InstanceDirectory> instance_;  // none under `run` where the host has no place
  unsigned instance_emergency_ = 0;
  std::unique_ptr<GdbServer> gdb_server_;
  std::unique_ptr<PluginRegistry> plugins_;
  std::unique_ptr<PhysMemory> memory_;
  std::unique_ptr<Platform> platform_;
  std::unique_ptr<IrqHostEvents> host_events_;
  LineDriver *consoles_ = nullptr;  // the DeviceRegistry's
  LineDriver *serials_ = nullptr;
  Tty *main_console_ = nullptr;
  std::binary_semaphore ended_{0};
  bool ending_ = false;
  int status_ = 0;
  std::string error_;
  bool restart_ = false;
};

// Copies the kernel log to the main console (or standard error), as printk's consoles do, and wakes
// readers of /dev/kmsg. boot/console_log.cpp.
namespace console_log {
// Starts copying records of `level` and more severe ones. After irq::start().
Result<void> start(LogLevel level);
// From now on to this terminal, beginning with what was logged before. nullptr: standard error.
void set_terminal(Tty *tty);
// SysRq 0-9 and syslog(2).
void set_level(LogLevel level);
void flush();
}  // namespace console_log

}  // namespace cowbird
