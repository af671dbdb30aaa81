// The order in which the guest comes up, on the kernel thread "boot".
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>

#include "abi/fcntl.hpp"
#include "base/log.hpp"
#include "boot/backtrace.hpp"
#include "boot/embedded_initramfs.hpp"
#include "boot/gdb_device.hpp"
#include "boot/host_stream.hpp"
#include "boot/machine.hpp"
#include "debug_agent/debug_agent.hpp"
#include "devices/block_driver.hpp"
#include "devices/memory_driver.hpp"
#include "fs/devpts.hpp"
#include "fs/devtmpfs.hpp"
#include "fs/hostfs.hpp"
#include "fs/initramfs.hpp"
#include "fs/procfs.hpp"
#include "fs/sysfs.hpp"
#include "fs/tmpfs.hpp"
#include "machine/device_setting.hpp"
#include "mconsole/notify.hpp"
#include "mconsole/watchdog.hpp"
#include "net/socket.hpp"
#include "proc/sysrq.hpp"
#include "proc/task.hpp"
#include "proc/uts.hpp"
#include "sched/scheduler.hpp"
#include "syscall/syscall.hpp"
#include "tty/console_server.hpp"
#include "tty/pty.hpp"
#include "tty/tty_log.hpp"

namespace cowbird {
namespace {

// The command line of the machine as /proc/cmdline shows it, in the words of a Linux kernel.
std::string command_line(const MachineConfig &config) {
  std::string line = fmt::format("mem={}M", config.memory / kMiB);
  if (config.vcpus != 1) line += fmt::format(" ncpus={}", config.vcpus);
  if (!config.root.path.empty()) line += fmt::format(" root={}", config.root.path);
  if (config.init) line += fmt::format(" init={}", *config.init);
  for (const auto *words : {&config.cmdline, &config.env, &config.args}) {
    for (const std::string &word : *words) line += " " + word;
  }
  return line;
}

WalkContext walk_of(FsContext &fs) { return WalkContext{fs, Credentials::kernel(), fs.cwd}; }

// Makes a directory and those above it, as far as they are missing.
Result<void> make_directories(FsContext &fs, const std::string &path) {
  for (std::size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    const auto made = make_directory(walk_of(fs), part, 0755);
    if (!made && !made.is(Errno::Exist) && !made.is(Errno::RoFs)) return made;
    if (slash == std::string::npos) return {};
  }
}

// "NAME=value" in the place of an earlier one of that name.
void set_variable(std::vector<std::string> &env, const std::string &variable) {
  const std::string name = variable.substr(0, variable.find('=') + 1);
  std::erase_if(env, [&](const std::string &other) { return other.starts_with(name); });
  env.push_back(variable);
}

int first_terminal(std::initializer_list<int> descriptors) {
  for (const int fd : descriptors) {
    if (::isatty(fd)) return fd;
  }
  return -1;
}

}  // namespace

void Machine::bring_up() {
  const MachineConfig &config = request_.config;
  install_hooks();
  if (const auto started = console_log::start(config.log_level); !started) {
    fail(fmt::format("The kernel log has no host event: {}.", errno_text(started.error())));
    return;
  }
  log_info("{} {} {}, {} MiB of memory, {} vCPU{}", kUtsSysname, kUtsRelease, kUtsVersion,
           config.memory / kMiB, config.vcpus, config.vcpus == 1 ? "" : "s");
  log_info("Command line: {}", command_line(config));
  if (instance_) {
    if (const auto started = debug_agent::start(instance_->file("debug")); !started) {
      log_warn("The debug agent's socket cannot be made: {}; guest programs cannot be debugged.",
               errno_text(started.error()));
    }
  }
  auto fs = make_ref<FsContext>();
  if (!set_up_file_systems() || !set_up_devices()) return;
  if (!set_up_root(*fs) || !set_up_mounts(*fs)) return;
  set_syscall_trace(config.strace);
  start_first_program(std::move(fs));
}

bool Machine::set_up_file_systems() {
  vfs_init();
  register_tmpfs();
  PseudoEntries more;
  if (!request_.config.notify.empty()) more.push_back(mconsole::proc_mconsole_entry());
  register_procfs(command_line(request_.config), std::move(more));
  register_sysfs();
  register_devpts();
  register_unix_sockets();
  set_log_level_hook(console_log::set_level);
  set_stack_printer([](const Thread &thread) {
    std::vector<std::string> lines;
    const bool self = &thread == current_thread();
    for (const auto &frame : self ? boot::backtrace_here() : boot::backtrace_of(thread)) {
      lines.push_back(boot::format_frame(frame));
    }
    return lines;
  });
  if (const auto done = init_devtmpfs(); !done) {
    return fail(fmt::format("devtmpfs cannot be made: {}.", errno_text(done.error())));
  }
  return true;
}

bool Machine::set_up_devices() {
  if (const auto done = register_memory_devices(); !done) {
    return fail(fmt::format("The memory devices cannot be made: {}.", errno_text(done.error())));
  }
  if (!set_up_consoles() || !start_console_server()) return false;
  if (const auto done = register_tty_devices([this] { return main_console_; }); !done) {
    return fail(fmt::format("The terminal devices cannot be made: {}.", errno_text(done.error())));
  }
  if (const auto done = register_pty_devices(); !done) {
    return fail(fmt::format("Pseudoterminals cannot be made: {}.", errno_text(done.error())));
  }
  if (const auto done = add_terminal_nodes(); !done) {
    return fail(
        fmt::format("The nodes of terminals cannot be made: {}.", errno_text(done.error())));
  }
  if (const auto done =
          mconsole::register_watchdog(request_.config.watchdog_seconds, request_.config.notify);
      !done) {
    return fail(fmt::format("/dev/watchdog cannot be made: {}.", errno_text(done.error())));
  }
  if (const auto done = register_block_nodes(); !done) {
    return fail(fmt::format("Block device nodes cannot be made: {}.", errno_text(done.error())));
  }
  if (!DeviceRegistry::instance().add(std::make_unique<GdbDevice>(gdb_server_, instance_.get()))) {
    return fail("The gdb server's device cannot be registered: there is one already.");
  }
  return set_up_blocks();
}

DeviceHost Machine::device_host() const {
  std::error_code ignored;
  std::vector<const LineSetting *> lines;
  for (const auto *kind : {&request_.config.consoles, &request_.config.serials}) {
    for (const LineConfig &line : *kind) lines.push_back(&line);
  }
  return {*plugins_, *host_events_, std::filesystem::current_path(ignored), shared_xterm(lines)};
}

bool Machine::set_up_lines(const LineDriver::Kind &kind, const std::vector<LineConfig> &configs,
                           LineDriver *&driver) {
  auto made = std::make_unique<LineDriver>(kind, device_host());
  driver = made.get();
  if (!DeviceRegistry::instance().add(std::move(made))) {
    return fail(fmt::format("There are two drivers for {}.", kind.prefix));
  }
  std::string error;
  for (const LineConfig &config : configs) {
    if (!driver->add(config, error)) return fail(error);
  }
  if (const auto done = driver->register_devices(); !done) {
    return fail(fmt::format("The devices of {} cannot be made: {}.", kind.prefix,
                            errno_text(done.error())));
  }
  return true;
}

std::vector<LineConfig> Machine::run_console() const {
  const int input = first_terminal({0, 1, 2});
  if (input < 0) return {};
  LineConfig line;
  line.name = "con0";
  line.input.plugin = "fd";
  line.input.options = {{"input", std::int64_t{input}},
                        {"output", std::int64_t{first_terminal({1, 2, 0})}}};
  line.input.config.values = line.input.options;
  return {line};
}

bool Machine::start_tty_log() {
  const MachineConfig &config = request_.config;
  std::string error;
  if (!config.tty_log_dir.empty() && !tty_log::to_directory(config.tty_log_dir, error)) {
    return fail(error);
  }
  if (config.tty_log_fd >= 0 && !tty_log::to_descriptor(config.tty_log_fd, error)) {
    return fail(error);
  }
  return true;
}

bool Machine::set_up_consoles() {
  const MachineConfig &config = request_.config;
  if (!start_tty_log()) return false;
  if (!set_up_lines(LineDriver::kConsoles, request_.run ? run_console() : config.consoles,
                    consoles_) ||
      !set_up_lines(LineDriver::kSerials, config.serials, serials_) || !hold_main_console()) {
    return false;
  }
  // A program's own output must not be mixed with the kernel's words on its terminal's line
  // discipline.
  console_log::set_terminal(request_.run || request_.config.log_to_stderr ? nullptr
                                                                          : main_console_);
  return true;
}

// Others attach to the consoles by the run-time directory; a guest without one is alone with its
// caller.
bool Machine::start_console_server() {
  if (!instance_) return true;
  std::string error;
  if (console_server::start(instance_->file("console"), name_, error)) return true;
  return fail(std::move(error));
}

bool Machine::hold_main_console() {
  std::string error;
  TtyLine *const line = consoles_->first_line(error);
  if (!error.empty()) return fail(error);
  if (!line) return true;
  if (const auto held = line->hold(); !held) {
    return fail(fmt::format("The console cannot be opened: {}; the kernel's log has the reason.",
                            errno_text(held.error())));
  }
  main_console_ = &line->tty();
  return true;
}

bool Machine::set_up_blocks() {
  auto made = std::make_unique<BlockDriver>(device_host());
  BlockDriver &driver = *made;
  if (!DeviceRegistry::instance().add(std::move(made))) {
    return fail("There are two drivers for ubd.");
  }
  if (!DeviceRegistry::instance().add(std::make_unique<MemoryDriver>())) {
    return fail("There are two drivers for mem.");
  }
  std::string error;
  for (const DeviceConfig &config : request_.config.blocks) {
    if (!driver.add(config, error)) return fail(error);
  }
  return true;
}

bool Machine::set_up_root(FsContext &fs) {
  const RootConfig &root = request_.config.root;
  const std::uint32_t flags = root.read_only ? std::uint32_t{kMountReadOnly} : 0;
  Ref<SuperBlock> sb;
  std::string source = "rootfs";
  if (root.kind == RootKind::HostDirectory) {
    UniqueFd directory(::open(root.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory.valid()) {
      return fail(fmt::format("The root directory {} cannot be opened: {}.", root.path,
                              errno_text(errno_from_host(errno))));
    }
    auto made = make_hostfs(std::move(directory), {root.read_only, root.path});
    if (!made) {
      return fail(fmt::format("{} cannot be the root: {}.", root.path, errno_text(made.error())));
    }
    sb = *made;
    source = root.path;
  } else {
    TmpfsOptions options;
    options.mode = 0755;
    sb = make_tmpfs("rootfs", options);
  }
  const bool archive = root.kind != RootKind::HostDirectory;
  auto top = mount_root(sb, source, archive ? 0 : flags);
  if (!top) return fail(fmt::format("The root cannot be mounted: {}.", errno_text(top.error())));
  fs.root = *top;
  fs.cwd = *top;
  if (!archive) return true;

  std::string why;
  Result<void> unpacked{};
  if (root.kind == RootKind::EmbeddedInitramfs) {
    unpacked = unpack_initramfs(fs, embedded_initramfs(), why);
  } else {
    std::ifstream file(root.path, std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)),
                                  std::istreambuf_iterator<char>());
    if (!file) {
      return fail(fmt::format("The initramfs {} cannot be read: {}.", root.path,
                              errno_text(errno_from_host(errno))));
    }
    unpacked = unpack_initramfs(fs, std::as_bytes(std::span(bytes)), why);
  }
  if (!unpacked) {
    return fail(fmt::format("The initramfs{}{} cannot be unpacked: {}.",
                            root.path.empty() ? "" : " ", root.path, why));
  }
  return true;
}

bool Machine::mount_into(FsContext &fs, const std::string &where, Ref<SuperBlock> sb,
                         std::string source, std::uint32_t flags) {
  // A read-only root may lack the directory; then the kernel's own mounts are left out.
  auto path = lookup(walk_of(fs), where, LookupFlag::Follow | LookupFlag::Directory);
  if (path.is(Errno::NoEnt) && make_directories(fs, where)) {
    path = lookup(walk_of(fs), where, LookupFlag::Follow | LookupFlag::Directory);
  }
  Result<void> mounted = path ? mount_at(*path, std::move(sb), std::move(source), flags)
                              : Result<void>(Err(path.error()));
  if (!mounted) log_err("cannot mount on {}: {}", where, errno_text(mounted.error()));
  return mounted.ok();
}

bool Machine::set_up_mounts(FsContext &fs) {
  mount_into(fs, "/dev", devtmpfs_superblock(), "devtmpfs", kMountNoSuid);
  if (request_.run) {
    // An init would mount these.
    mount_into(fs, "/proc", procfs_superblock(), "proc", kMountNoSuid | kMountNoDev | kMountNoExec);
    mount_into(fs, "/dev/pts", devpts_superblock(), "devpts", kMountNoSuid | kMountNoExec);
    mount_into(fs, "/dev/shm", make_tmpfs("tmpfs", TmpfsOptions{}), "tmpfs",
               kMountNoSuid | kMountNoDev);
    mount_into(fs, "/sys", sysfs_superblock(), "sysfs", kMountNoSuid | kMountNoDev | kMountNoExec);
  }
  for (const MountConfig &mount : request_.config.mounts) {
    UniqueFd directory(::open(mount.host.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory.valid()) {
      return fail(fmt::format("The directory {} of the host cannot be opened: {}.", mount.host,
                              errno_text(errno_from_host(errno))));
    }
    auto sb = make_hostfs(std::move(directory), {mount.read_only, mount.host});
    if (!sb) {
      return fail(fmt::format("The directory {} of the host cannot be mounted: {}.", mount.host,
                              errno_text(sb.error())));
    }
    if (!mount_into(fs, mount.guest, *sb, mount.host,
                    mount.read_only ? std::uint32_t{kMountReadOnly} : 0)) {
      return fail(
          fmt::format("{} cannot be mounted on {} in the guest: the place is missing and "
                      "cannot be made.",
                      mount.host, mount.guest));
    }
  }
  return true;
}

// --- the first program

bool Machine::open_run_stdio(FsContext &fs, FdTable &files) {
  for (int fd = 0; fd < 3; ++fd) {
    const std::uint32_t access = fd == 0 ? abi::kO_RDONLY : abi::kO_WRONLY;
    Result<Ref<File>> file = Err(Errno::BadF);
    if (::isatty(fd) && main_console_) {
      // By its name, so that ttyname(3) finds it; a root without a /dev has the terminal all the
      // same.
      file = open_path(walk_of(fs), "/dev/tty0", abi::kO_RDWR | abi::kO_NOCTTY, 0);
      if (!file) file = tty_file(*main_console_, abi::kO_RDWR);
    } else if (const int flags = ::fcntl(fd, F_GETFL); flags >= 0 && !(flags & O_PATH)) {
      file = make_host_stream(fd, access);
    } else {
      continue;  // closed for us, closed for the program
    }
    Result<int> installed = Err(Errno::Io);
    if (file) installed = files.install(std::move(*file), false, 1024, fd);
    if (!installed) {
      return fail(fmt::format("Descriptor {} cannot be passed to the guest: {}.", fd,
                              errno_text(installed.error())));
    }
  }
  return true;
}

bool Machine::open_stdio(FsContext &fs, FdTable &files) {
  auto console = open_path(walk_of(fs), "/dev/console", abi::kO_RDWR | abi::kO_NOCTTY, 0);
  if (!console) {
    log_warn("unable to open an initial console: {}", errno_text(console.error()));
    return true;
  }
  for (int fd = 0; fd < 3; ++fd) {
    if (!files.install(*console, false, 1024, fd))
      return fail("The first descriptors cannot be made.");
  }
  return true;
}

Result<std::string> Machine::find_init(FsContext &fs, std::string &tried) {
  std::vector<std::string> names;
  if (request_.run) {
    const std::string &name = request_.run->argv[0];
    if (name.find('/') != std::string::npos) return name;
    std::string path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (const std::string &variable : request_.run->env) {
      if (variable.starts_with("PATH=")) path = variable.substr(5);
    }
    for (std::size_t at = 0; at <= path.size();) {
      const std::size_t colon = std::min(path.find(':', at), path.size());
      if (colon > at) names.push_back(path.substr(at, colon - at) + "/" + name);
      at = colon + 1;
    }
    tried = name;
  } else if (request_.config.init) {
    return *request_.config.init;
  } else {
    names = {"/init", "/sbin/init", "/bin/sh"};
    tried = "/init, /sbin/init or /bin/sh";
  }
  for (const std::string &name : names) {
    const auto found = lookup(walk_of(fs), name, LookupFlag::Follow);
    if (found && found->inode().is_regular() && (found->inode().mode & 0111) != 0) return name;
  }
  return Err(Errno::NoEnt);
}

bool Machine::start_first_program(Ref<FsContext> fs) {
  auto files = make_ref<FdTable>();
  if (!(request_.run ? open_run_stdio(*fs, *files) : open_stdio(*fs, *files))) return false;
  ExecRequest exec;
  std::string tried;
  const auto name = find_init(*fs, tried);
  if (!name) {
    end(request_.run ? kExitNotFound : kExitHostError,
        request_.run ? fmt::format("The program '{}' is not in the guest's PATH.", tried)
                     : fmt::format("The root file system has no program {}; name one with "
                                   "machine.init.",
                                   tried));
    return false;
  }
  exec.name = *name;
  if (request_.run) {
    exec.argv = request_.run->argv;
    exec.envp = request_.run->env;
    auto cwd = lookup(walk_of(*fs), request_.run->cwd, LookupFlag::Follow | LookupFlag::Directory);
    if (!cwd) {
      return fail(fmt::format("The working directory {} is not in the guest: {}.",
                              request_.run->cwd, errno_text(cwd.error())));
    }
    fs->cwd = *cwd;
  } else {
    exec.argv = {*name};
    exec.argv.insert(exec.argv.end(), request_.config.args.begin(), request_.config.args.end());
    exec.envp = {"HOME=/", "TERM=linux",
                 "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
    if (const char *term = ::getenv("TERM")) exec.envp[1] = fmt::format("TERM={}", term);
    for (const std::string &variable : request_.config.env) set_variable(exec.envp, variable);
  }
  exec.directory = fs->cwd;
  const bool run = request_.run.has_value();
  const std::string &program = *name;
  auto started = start_init(*platform_, std::move(fs), std::move(files), std::move(exec),
                            [this, run, program](Result<void> result) {
                              if (!result) {
                                // It ends without having been anything: no reason to panic.
                                if (!run) set_init_exit_hook([](int) {});
                                const bool missing =
                                    result.is(Errno::NoEnt) || result.is(Errno::NotDir);
                                end(!run      ? kExitHostError
                                    : missing ? kExitNotFound
                                              : kExitNotExecutable,
                                    fmt::format("{} cannot be run in the guest: {}.", program,
                                                errno_text(result.error())));
                                return;
                              }
                              log_info("Run {} as process 1", program);
                              if (request_.up) request_.up(name_);
                              if (run && main_console_) {
                                Process &process = *current_task().process;
                                set_session(process, process.pid);
                                set_process_group(process, process.pid);
                                tty_set_controlling(*main_console_, process);
                              }
                            });
  if (!started) {
    return fail(fmt::format("Process 1 cannot be made: {}.", errno_text(started.error())));
  }
  return true;
}

}  // namespace cowbird
