#include "xterm/emulator.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <vector>

#include "common/listener.hpp"
#include "xterm/rendezvous.hpp"

extern char **environ;

namespace channels {

using cowbird::sdk::Error;
using cowbird::sdk::throw_errno;

namespace {

// Emulators that were told to end and have to be waited for, which may not block.
void bury(pid_t pid) {
  static std::mutex mutex;
  static std::vector<pid_t> dying;
  const std::lock_guard lock(mutex);
  if (pid > 0) dying.push_back(pid);
  std::erase_if(dying, [](pid_t p) { return waitpid(p, nullptr, WNOHANG) != 0; });
}

std::string find_program(const std::string &name) {
  if (name.find('/') != std::string::npos) {
    if (access(name.c_str(), X_OK) == 0) return name;
    throw_errno("The terminal emulator \"" + name + "\" cannot be started");
  }
  const char *path = std::getenv("PATH");
  std::istringstream folders(path ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    std::string file = (folder.empty() ? "." : folder) + "/" + name;
    struct stat status;
    if (stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
        access(file.c_str(), X_OK) == 0)
      return file;
  }
  throw Error(ENOENT, "The terminal emulator \"" + name +
                          "\" is not in the PATH. Install it, or name another with the key "
                          "\"command\".");
}

std::string helper_program() {
  Dl_info info;
  static const char here = 0;
  if (dladdr(&here, &info) == 0 || !info.dli_fname) {
    throw Error(ENOENT, "The plugin xterm does not find its own file.");
  }
  const std::string file(info.dli_fname);
  const std::size_t slash = file.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : file.substr(0, slash);
  const std::string helper = folder + "/" + kHelperName;
  if (access(helper.c_str(), X_OK) != 0) {
    throw_errno("The helper program " + helper + ", which belongs to the plugin, cannot be run");
  }
  char *const absolute = realpath(helper.c_str(), nullptr);
  std::string result = absolute ? absolute : helper;
  std::free(absolute);
  return result;
}

// One descriptor from a message; empty when it brings none.
Descriptor receive_descriptor(int socket) {
  char byte;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1 || byte != kHere) return {};
  const cmsghdr *const header = CMSG_FIRSTHDR(&message);
  if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int)))
    return {};
  int fd;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return Descriptor(fd);
}

}  // namespace

EmulatorCommand EmulatorCommand::parse(const std::string &text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == ',') {
      words.emplace_back();
    } else {
      words.back().push_back(c);
    }
  }
  const bool empty =
      std::any_of(words.begin(), words.end(), [](const std::string &w) { return w.empty(); });
  if (words.size() != 3 || empty) {
    throw Error(EINVAL, "\"" + text +
                            "\" is no terminal emulator: give the program, its switch for the "
                            "title and its switch for a command, such as \"xterm,-T,-e\" or "
                            "\"gnome-terminal,-t,--\".");
  }
  return {words[0], words[1], words[2]};
}

Emulator::Emulator(const cowbird::sdk::Host &host, Events events)
    : events_(std::move(events)), helper_comes_(host), helper_sends_(host), exits_(host) {}

void Emulator::start(const EmulatorCommand &command, const std::string &title) {
  const auto set = [](const char *name) {
    const char *value = std::getenv(name);
    return value && *value;
  };
  if (!set("DISPLAY") && !set("WAYLAND_DISPLAY")) {
    throw Error(ENXIO,
                "There is no display for a window: DISPLAY is not set. Start the guest in a "
                "graphical session, or give the console another channel, such as pts or port.");
  }
  bury(-1);
  try {
    const std::string program = find_program(command.terminal);
    make_socket();
    spawn(program, command, title);
  } catch (...) {
    stop();
    throw;
  }
}

void Emulator::make_socket() {
  // A directory for the user only: who connects gives us a console's terminal.
  const char *folder = std::getenv("TMPDIR");
  if (!folder || !*folder || std::strlen(folder) > kLongestFolder) folder = "/tmp";
  std::snprintf(directory_, sizeof directory_, "%s/cowbird-xterm-XXXXXX", folder);
  if (!mkdtemp(directory_)) {
    directory_[0] = '\0';
    throw_errno(std::string("No directory can be made in ") + folder);
  }
  std::snprintf(socket_path_, sizeof socket_path_, "%s/window", directory_);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_path_, std::strlen(socket_path_));
  listener_ = Descriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener_ ||
      bind(listener_.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0 ||
      listen(listener_.get(), 1) != 0) {
    throw_errno(std::string("The window's socket ") + socket_path_ + " cannot be made");
  }
  helper_comes_.attach(listener_.get(), [this] { take_helper(); });
  if (const int status = helper_comes_.wait(); status != 0)
    throw_errno("The window's socket cannot be watched", -status);
}

void Emulator::spawn(const std::string &program, const EmulatorCommand &command,
                     const std::string &title) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) != 0) throw_errno("The host gives no pipe");
  output_ = Descriptor(pipe_ends[0]);
  const Descriptor writer(pipe_ends[1]);
  const std::string helper = helper_program();
  const std::array<std::string, 6> words{
      command.terminal, command.title_switch, title, command.exec_switch, helper, socket_path_};
  std::array<char *, 7> argv{};
  for (std::size_t i = 0; i < words.size(); ++i) argv[i] = const_cast<char *>(words[i].c_str());

  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDWR, 0);
  posix_spawn_file_actions_adddup2(&files, writer.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, writer.get(), STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&files, 3);
  // Signals as a shell would give them; a session of its own, so that keys typed at the terminal
  // that the guest was started from do not reach it.
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  const int error = posix_spawn(&pid_, program.c_str(), &files, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    pid_ = -1;
    throw_errno("The terminal emulator " + program + " cannot be started", error);
  }
  process_ = Descriptor(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  if (!process_) throw_errno("The terminal emulator cannot be watched");
  exits_.attach(process_.get(), [this](std::uint32_t) { on_exit(); });
  if (const int status = exits_.want(COWBIRD_WATCH_READABLE); status != 0)
    throw_errno("The terminal emulator cannot be watched", -status);
}

void Emulator::take_helper() {
  auto [client, refused] = accept_client(listener_.get());
  newcomer_ = std::move(client);
  ucred peer{};
  socklen_t size = sizeof peer;
  if (!newcomer_ || getsockopt(newcomer_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
      peer.uid != geteuid()) {
    return wait_for_helper(refused);
  }
  helper_sends_.attach(newcomer_.get(), [this](std::uint32_t) { take_terminal(); });
  if (helper_sends_.want(COWBIRD_WATCH_READABLE) != 0) wait_for_helper(false);
}

void Emulator::take_terminal() {
  Descriptor terminal = receive_descriptor(newcomer_.get());
  helper_sends_.detach();
  if (!terminal) return wait_for_helper(false);
  Descriptor helper = std::move(newcomer_);
  stop_waiting();
  events_.window(std::move(helper), std::move(terminal));
}

void Emulator::wait_for_helper(bool refused) {
  newcomer_.reset();
  if (helper_comes_.wait(refused) != 0) {
    stop_waiting();
    events_.failed("The window's socket cannot be watched.");
  }
}

void Emulator::on_exit() {
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return;
  pid_ = -1;
  exits_.detach();
  process_.reset();
  // The window was there, or will come from another process: some emulators leave the work to one.
  if (!listener_ || status == 0) return;
  std::array<char, 400> text;
  const ssize_t n = ::read(output_.get(), text.data(), text.size());
  std::string said(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
  while (!said.empty() && std::isspace(static_cast<unsigned char>(said.back()))) said.pop_back();
  for (char &c : said) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  stop_waiting();
  events_.failed("The terminal emulator ended before its window was there" +
                 (said.empty() ? std::string(" and said nothing.") : ". It said: " + said));
}

void Emulator::remove_files() noexcept {
  if (directory_[0] == '\0') return;
  unlink(socket_path_);
  rmdir(directory_);
}

void Emulator::stop_waiting() noexcept {
  helper_comes_.detach();
  helper_sends_.detach();
  newcomer_.reset();
  listener_.reset();
  remove_files();
  directory_[0] = '\0';
}

void Emulator::stop() noexcept {
  stop_waiting();
  exits_.detach();
  process_.reset();
  output_.reset();
  if (pid_ > 0) kill(pid_, SIGTERM);
  bury(std::exchange(pid_, -1));
}

}  // namespace channels
