#include "instance/instance.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <system_error>

#include "base/own_program.hpp"

namespace cowbird {

namespace {

namespace fs = std::filesystem;

// All that may be in the directory of a guest, with the names under which write() makes them. The
// pid file goes last: as long as it is there, the directory is taken.
constexpr std::array<const char *, 8> kLeaves = {"mconsole", "console", "debug", "gdb",
                                                 "info",     ".gdb",    ".info", "pid"};
// The longest name that becomes the address of a socket.
constexpr std::string_view kLongestSocket = "/mconsole";
constexpr int kClaimAttempts = 16;
constexpr std::size_t kMaxSmallFile = 64ul * 1024;

std::string reason() { return std::strerror(errno); }

// A small file, or nothing.
std::optional<std::string> read_small(int directory, const char *leaf) {
  const UniqueFd fd(::openat(directory, leaf, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) return std::nullopt;
  std::string text;
  char piece[1024];
  for (ssize_t got = 0; (got = ::read(fd.get(), piece, sizeof piece)) > 0;) {
    text.append(piece, static_cast<std::size_t>(got));
    if (text.size() > kMaxSmallFile) return std::nullopt;
  }
  return text;
}

std::optional<pid_t> parse_pid(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  pid_t pid = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  if (error != std::errc{} || stop != text.data() + text.size() || pid <= 0) return std::nullopt;
  return pid;
}

InstanceInfo parse_info(const std::string &text) {
  InstanceInfo info;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto equals = line.find('=');
    if (equals != std::string::npos) info[line.substr(0, equals)] = line.substr(equals + 1);
  }
  return info;
}

// The process whose directory this is, when it lives; 0 when it lives and its id cannot be read.
std::optional<pid_t> owner_of(int directory) {
  const UniqueFd fd(::openat(directory, "pid", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) return std::nullopt;
  const auto pid = parse_pid(read_small(directory, "pid").value_or(""));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd.get(), F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) return pid.value_or(0);
  if (!pid) return std::nullopt;
  struct stat status {};
  if (::fstatat(directory, "info", &status, AT_SYMLINK_NOFOLLOW) == 0) return std::nullopt;
  return ::kill(*pid, 0) == 0 || errno == EPERM ? pid : std::nullopt;
}

// Names that are in the directory; nullopt when it cannot be read.
std::optional<std::vector<std::string>> names_in(const fs::path &path) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  if (error) return std::nullopt;
  return names;
}

// Empties a directory that a dead guest has left.
bool empty_stale(const fs::path &path, int directory, std::string &error) {
  const auto names = names_in(path);
  if (!names) {
    error = fmt::format("The directory {} cannot be read: {}.", path.string(), reason());
    return false;
  }
  for (const std::string &name : *names) {
    if (std::ranges::find(kLeaves, name) != kLeaves.end()) continue;
    error = fmt::format(
        "The directory {} holds \"{}\", which is no file of a guest; choose another name for the "
        "machine or another directory.",
        path.string(), name);
    return false;
  }
  for (const char *leaf : kLeaves) {
    if (::unlinkat(directory, leaf, 0) == 0 || errno == ENOENT) continue;
    error = fmt::format("{}/{}, left by an earlier guest, cannot be removed: {}.", path.string(),
                        leaf, reason());
    return false;
  }
  return true;
}

// A name that random_machine_name() gives.
bool is_random_name(std::string_view name) {
  constexpr std::string_view kPrefix = "cowbird-";
  return name.size() == kPrefix.size() + 6 && name.starts_with(kPrefix) &&
         name.find_first_not_of("0123456789abcdef", kPrefix.size()) == std::string_view::npos;
}

// Nobody comes again for the directory of a guest with a random name that was killed: the next
// guest takes it away. The caller has the lock of the root.
void remove_orphans(const fs::path &root, int root_fd) {
  for (const std::string &name : names_in(root).value_or(std::vector<std::string>{})) {
    if (!is_random_name(name)) continue;
    const UniqueFd directory(
        ::openat(root_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat status {};
    if (!directory.valid() || ::fstat(directory.get(), &status) != 0 ||
        status.st_uid != ::geteuid()) {
      continue;
    }
    // Where the file system has no locks a guest that runs is known by its process alone.
    const auto pid = parse_pid(read_small(directory.get(), "pid").value_or(""));
    if (!pid || ::kill(*pid, 0) == 0 || errno != ESRCH || owner_of(directory.get())) continue;
    std::string ignored;
    if (empty_stale(root / name, directory.get(), ignored)) {
      ::unlinkat(root_fd, name.c_str(), AT_REMOVEDIR);
    }
  }
}

bool make_root(const fs::path &root, std::string &error) {
  fs::path part;
  for (const fs::path &step : root) {
    part /= step;
    if (::mkdir(part.c_str(), 0700) == 0 || errno == EEXIST) continue;
    const int why = errno;
    struct stat status {};
    if (::stat(part.c_str(), &status) == 0) continue;  // it is there, only no place to make one in
    error = fmt::format(
        "The directory {} for running guests cannot be made: {}. Set COWBIRD_DIR or [machine] "
        "directory to one that can be written.",
        part.string(), std::strerror(why));
    return false;
  }
  return true;
}

// Opens (or makes) the directory of one guest; Again when it went away in between.
enum class Opened : std::uint8_t { Yes, No, Again };
Opened open_own(const fs::path &path, int root, const std::string &name, UniqueFd &directory,
                std::string &error) {
  if (::mkdirat(root, name.c_str(), 0700) != 0 && errno != EEXIST) {
    error = fmt::format("The guest's directory {} cannot be made: {}.", path.string(), reason());
    return Opened::No;
  }
  directory.reset(::openat(root, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory.valid()) {
    if (errno == ENOENT) return Opened::Again;
    error = fmt::format("The guest's directory {} cannot be opened: {}.", path.string(), reason());
    return Opened::No;
  }
  struct stat status {};
  if (::fstat(directory.get(), &status) != 0 || status.st_uid != ::geteuid()) {
    error = fmt::format("The directory {} belongs to another user.", path.string());
    return Opened::No;
  }
  // One that was there may be open to others.
  if (::fchmod(directory.get(), 0700) != 0) {
    error = fmt::format("The mode of {} cannot be changed: {}.", path.string(), reason());
    return Opened::No;
  }
  return Opened::Yes;
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = ::write(fd, text.data(), text.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(put));
  }
  return true;
}

}  // namespace

std::optional<fs::path> instance_root(const std::string &configured, std::string &error) {
  std::error_code ignored;
  if (!configured.empty()) return fs::absolute(configured, ignored).lexically_normal();
  const char *variable = std::getenv("COWBIRD_DIR");
  if (variable && *variable) return fs::absolute(variable, ignored).lexically_normal();
  const char *home = std::getenv("HOME");
  if (home && *home) return fs::absolute(home, ignored).lexically_normal() / ".uml";
  error =
      "There is no place for the directory of the guest, as HOME is not set. Set HOME, COWBIRD_DIR "
      "or [machine] directory.";
  return std::nullopt;
}

InstanceDirectory::InstanceDirectory(fs::path path, std::string name)
    : path_(std::move(path)), name_(std::move(name)), owner_(::getpid()) {}

std::unique_ptr<InstanceDirectory> InstanceDirectory::claim(const fs::path &root,
                                                            const std::string &name,
                                                            InstanceInfo info, std::string &error) {
  std::unique_ptr<InstanceDirectory> made(new InstanceDirectory(root / name, name));
  const fs::path &path = made->path_;
  constexpr std::size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;
  if (path.native().size() + kLongestSocket.size() > kMaxPath) {
    error = fmt::format(
        "The path {}{} is longer than the {} characters that a socket's may have. Set COWBIRD_DIR "
        "or [machine] directory to a shorter one.",
        path.string(), kLongestSocket, kMaxPath);
    return nullptr;
  }
  if (!make_root(root, error)) return nullptr;
  made->root_fd_.reset(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!made->root_fd_.valid()) {
    error = fmt::format("The directory {} for running guests cannot be opened: {}.", root.string(),
                        reason());
    return nullptr;
  }
  // One claim at a time, so that nobody takes a directory for stale that is being made. A file
  // system without locks has to do without.
  while (::flock(made->root_fd_.get(), LOCK_EX) != 0 && errno == EINTR) {
  }
  remove_orphans(root, made->root_fd_.get());
  Opened opened = Opened::Again;
  for (int i = 0; i < kClaimAttempts && opened == Opened::Again; ++i) {
    opened = open_own(path, made->root_fd_.get(), name, made->directory_fd_, error);
    if (opened != Opened::Yes) continue;
    if (const auto owner = owner_of(made->directory_fd_.get())) {
      error = fmt::format(
          "A guest named \"{}\" is running already: process {}, directory {}. Stop it "
          "(cowbird mconsole {} halt), or give this one another name (--set machine.name=OTHER, or "
          "umid=OTHER among UML's words).",
          name, *owner, path.string(), name);
      return nullptr;
    }
    if (!empty_stale(path, made->directory_fd_.get(), error)) return nullptr;
    made->pid_fd_.reset(::openat(made->directory_fd_.get(), "pid",
                                 O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!made->pid_fd_.valid() && errno == ENOENT) opened = Opened::Again;
  }
  if (opened == Opened::No) return nullptr;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (!made->pid_fd_.valid() || ::fchmod(made->pid_fd_.get(), 0644) != 0 ||
      (::fcntl(made->pid_fd_.get(), F_OFD_SETLK, &lock) != 0 && errno != ENOLCK) ||
      !write_all(made->pid_fd_.get(), fmt::format("{}\n", ::getpid()))) {
    error = fmt::format("{}/pid cannot be written: {}.", path.string(), reason());
    // The destructor removes what has a pid file; of others the directory alone is there.
    if (!made->pid_fd_.valid()) ::unlinkat(made->root_fd_.get(), name.c_str(), AT_REMOVEDIR);
    return nullptr;
  }
  info["program"] = own_program_path();
  info["started"] = std::to_string(::time(nullptr));
  std::string text;
  for (auto [key, value] : info) {
    std::ranges::replace(value, '\n', ' ');
    text += fmt::format("{}={}\n", key, value);
  }
  if (!made->write("info", text, error)) return nullptr;
  ::flock(made->root_fd_.get(), LOCK_UN);
  return made;
}

InstanceDirectory::~InstanceDirectory() {
  // Without a pid file it is not ours, or no more so.
  if (pid_fd_.valid() && ::getpid() == owner_) remove();
}

void InstanceDirectory::remove() {
  for (const char *leaf : kLeaves) ::unlinkat(directory_fd_.get(), leaf, 0);
  ::unlinkat(root_fd_.get(), name_.c_str(), AT_REMOVEDIR);
}

void InstanceDirectory::emergency_remove(void *self) {
  auto *const directory = static_cast<InstanceDirectory *>(self);
  if (::getpid() == directory->owner_) directory->remove();
}

bool InstanceDirectory::write(const std::string &leaf, const std::string &text,
                              std::string &error) {
  const std::string hidden = "." + leaf;
  const int directory = directory_fd_.get();
  const UniqueFd fd(::openat(directory, hidden.c_str(),
                             O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (fd.valid() && ::fchmod(fd.get(), 0644) == 0 && write_all(fd.get(), text) &&
      ::renameat(directory, hidden.c_str(), directory, leaf.c_str()) == 0) {
    return true;
  }
  error = fmt::format("{} cannot be written: {}.", file(leaf).string(), reason());
  return false;
}

namespace {

// What runs in this directory of the calling user, if anything does.
std::optional<RunningInstance> look_at(const fs::path &path) {
  const UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory.valid()) return std::nullopt;
  struct stat status {};
  if (::fstat(directory.get(), &status) != 0 || status.st_uid != ::geteuid()) return std::nullopt;
  const auto pid = owner_of(directory.get());
  if (!pid || *pid == 0) return std::nullopt;
  RunningInstance found;
  found.name = path.filename().string();
  found.directory = path;
  found.pid = *pid;
  found.info = parse_info(read_small(directory.get(), "info").value_or(""));
  found.program = found.info["program"];
  if (found.program.empty()) {
    std::error_code ignored;
    found.program = fs::read_symlink(fmt::format("/proc/{}/exe", *pid), ignored);
  }
  long long seconds = 0;
  const std::string &started = found.info["started"];
  std::from_chars(started.data(), started.data() + started.size(), seconds);
  if (seconds <= 0 && ::fstatat(directory.get(), "pid", &status, AT_SYMLINK_NOFOLLOW) == 0) {
    seconds = status.st_mtime;
  }
  found.started = std::chrono::system_clock::from_time_t(seconds);
  return found;
}

std::string names_of(const std::vector<RunningInstance> &instances) {
  std::string text;
  for (const auto &instance : instances) text += (text.empty() ? "" : ", ") + instance.name;
  return text;
}

}  // namespace

std::vector<RunningInstance> running_instances(const fs::path &root) {
  std::vector<RunningInstance> found;
  for (const std::string &name : names_in(root).value_or(std::vector<std::string>{})) {
    if (auto instance = look_at(root / name)) found.push_back(std::move(*instance));
  }
  std::ranges::sort(found, {}, &RunningInstance::name);
  return found;
}

std::optional<RunningInstance> find_instance(const fs::path &root, const std::string &what,
                                             std::string &error) {
  if (what.find('/') != std::string::npos) {
    std::error_code ignored;
    fs::path path = fs::absolute(what, ignored).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();
    if (auto found = look_at(path)) return found;
    if (auto found = look_at(path.parent_path())) return found;
    error = fmt::format("No guest of yours runs in {}.", path.string());
    return std::nullopt;
  }
  if (!what.empty() && what != "." && what != "..") {
    if (auto found = look_at(root / what)) return found;
  }
  const auto all = running_instances(root);
  if (const auto pid = parse_pid(what)) {
    const auto found = std::ranges::find(all, *pid, &RunningInstance::pid);
    if (found != all.end()) return *found;
  }
  error = all.empty() ? fmt::format("There is no running guest \"{}\", and none at all in {}.",
                                    what, root.string())
                      : fmt::format("There is no running guest \"{}\" in {}. Running: {}.", what,
                                    root.string(), names_of(all));
  return std::nullopt;
}

}  // namespace cowbird
