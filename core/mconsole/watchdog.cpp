#include "mconsole/watchdog.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "abi/poll.hpp"
#include "abi/watchdog.hpp"
#include "base/log.hpp"
#include "base/own_program.hpp"
#include "base/unique_fd.hpp"
#include "fs/devtmpfs.hpp"
#include "irq/irq.hpp"
#include "mconsole/watchdog_process.hpp"
#include "mm/user_access.hpp"
#include "sched/clock.hpp"
#include "sched/freeze.hpp"
#include "vfs/file.hpp"

namespace cowbird::mconsole {

namespace {

constexpr std::uint32_t kMiscMajor = 10, kWatchdogMinor = 130;
constexpr int kStartMs = 5000;
constexpr std::string_view kIdentity = "Cowbird watchdog";

// The one watchdog. Big kernel lock.
struct Device {
  std::uint32_t seconds = 60;
  std::string notify;
  bool open = false;
  bool enabled = true;  // WDIOS_DISABLECARD
  pid_t process = 0;
  UniqueFd pipe;
  std::int64_t last_word = 0;  // guest time
};
Device &device() {
  static auto *const made = new Device;
  return *made;
}

// Pings that find the pipe full are not needed: there are enough in it.
void say(std::string_view bytes) {
  if (device().pipe.valid()) {
    [[maybe_unused]] const ssize_t put = ::write(device().pipe.get(), bytes.data(), bytes.size());
  }
}

void ping() {
  if (device().enabled) say(std::string_view(&kWatchdogPing, 1));
  device().last_word = clock::monotonic_ns();
}

struct Started {
  pid_t process = 0;
  UniqueFd pipe;
  int error = 0;
};

// Waits for the byte by which the process says that it watches.
bool wait_for_start(int fd) {
  pollfd ready{fd, POLLIN, 0};
  char byte = 0;
  return ::poll(&ready, 1, kStartMs) == 1 && ::read(fd, &byte, 1) == 1;
}

// On a worker.
Started start_process(std::uint32_t seconds, const std::string &notify) {
  Started started;
  int to[2], from[2];
  if (::pipe2(to, O_CLOEXEC) != 0) {
    started.error = errno;
    return started;
  }
  UniqueFd to_read(to[0]), to_write(to[1]);
  if (::pipe2(from, O_CLOEXEC) != 0) {
    started.error = errno;
    return started;
  }
  const UniqueFd from_read(from[0]);
  UniqueFd from_write(from[1]);
  std::string words[] = {"cowbird", kWatchdogWord, std::to_string(::getpid()),
                         std::to_string(seconds), notify};
  char *argv[] = {words[0].data(),
                  words[1].data(),
                  words[2].data(),
                  words[3].data(),
                  notify.empty() ? nullptr : words[4].data(),
                  nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, to_read.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, from_write.get(), STDOUT_FILENO);
  sigset_t set;
  sigemptyset(&set);
  posix_spawnattr_setsigmask(&attributes, &set);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  started.error =
      ::posix_spawn(&started.process, own_program(), &actions, &attributes, argv, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (started.error != 0) return started;
  to_read.reset();
  from_write.reset();
  if (!wait_for_start(from_read.get())) {
    started.error = ETIMEDOUT;
    to_write.reset();
    ::waitpid(started.process, nullptr, 0);
    return started;
  }
  ::fcntl(to_write.get(), F_SETFL, O_NONBLOCK);
  started.pipe = std::move(to_write);
  return started;
}

// Closes the pipe, which ends the process, and buries it.
void stop_process() {
  Device &d = device();
  const pid_t process = std::exchange(d.process, 0);
  if (process == 0) return;
  d.pipe.reset();
  irq::submit([process] { ::waitpid(process, nullptr, 0); }, [] {});
}

Result<void> start_watching() {
  Device &d = device();
  Started started;
  irq::run_blocking("watchdog", [&] { started = start_process(d.seconds, d.notify); });
  if (started.error != 0) {
    log_err("watchdog: its process cannot be started: {}", std::strerror(started.error));
    return Err(errno_from_host(started.error));
  }
  d.process = started.process;
  d.pipe = std::move(started.pipe);
  log_info("watchdog: process {} of the host watches, {} s", d.process, d.seconds);
  return {};
}

class WatchdogFile final : public File {
 public:
  explicit WatchdogFile(std::uint32_t flags) : File(flags) {}
  ~WatchdogFile() override {
    device().open = false;
    if (stop_at_close_ || !device().enabled) {
      stop_process();
    } else {
      log_err("watchdog: watchdog did not stop!");
      ping();
    }
  }

  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override {
    const std::uint64_t size = std::min<std::uint64_t>(from.remaining(), 4096);
    std::string text(size, '\0');
    TRY(from.copy_from(std::as_writable_bytes(std::span(text))));
    if (size == 0) return std::uint64_t{0};
    stop_at_close_ = text.find('V') != std::string::npos;
    ping();
    return size;
  }
  std::uint32_t poll(PollTable *) override { return abi::kPOLLOUT | abi::kPOLLWRNORM; }

  Result<std::int64_t> ioctl(Task &, std::uint32_t command, std::uint64_t argument) override {
    const UserPtr<std::int32_t> number(argument);
    switch (command) {
      case abi::kWDIOC_GETSUPPORT: {
        abi::WatchdogInfo info{};
        info.options = abi::kWDIOF_SETTIMEOUT | abi::kWDIOF_MAGICCLOSE | abi::kWDIOF_KEEPALIVEPING;
        std::ranges::copy(kIdentity, info.identity);
        TRY(UserPtr<abi::WatchdogInfo>(argument).write(info));
        return 0;
      }
      case abi::kWDIOC_GETSTATUS:
      case abi::kWDIOC_GETBOOTSTATUS:
        TRY(number.write(0));
        return 0;
      case abi::kWDIOC_KEEPALIVE:
        ping();
        return 0;
      case abi::kWDIOC_SETOPTIONS:
        return set_options(TRY(number.read()));
      case abi::kWDIOC_SETTIMEOUT:
        TRY(set_timeout(TRY(number.read())));
        [[fallthrough]];
      case abi::kWDIOC_GETTIMEOUT:
        TRY(number.write(static_cast<std::int32_t>(device().seconds)));
        return 0;
      case abi::kWDIOC_GETTIMELEFT: {
        const std::int64_t gone = (clock::monotonic_ns() - device().last_word) / kNsPerSec;
        const std::int64_t left = static_cast<std::int64_t>(device().seconds) - gone;
        TRY(number.write(static_cast<std::int32_t>(std::max<std::int64_t>(left, 0))));
        return 0;
      }
      default:
        return Err(Errno::NotTty);
    }
  }

 private:
  Result<std::int64_t> set_options(std::int32_t options) {
    if ((options & (abi::kWDIOS_DISABLECARD | abi::kWDIOS_ENABLECARD)) == 0) {
      return Err(Errno::Inval);
    }
    if (options & abi::kWDIOS_DISABLECARD) {
      device().enabled = false;
      say(std::string_view(&kWatchdogPause, 1));
    }
    if (options & abi::kWDIOS_ENABLECARD) {
      device().enabled = true;
      say(std::string_view(&kWatchdogResume, 1));
    }
    return 0;
  }
  Result<void> set_timeout(std::int32_t seconds) {
    if (seconds < 1 || seconds > static_cast<std::int32_t>(kMaxWatchdogSeconds)) {
      return Err(Errno::Inval);
    }
    Device &d = device();
    d.seconds = static_cast<std::uint32_t>(seconds);
    std::string bytes(1, kWatchdogTimeout);
    bytes.append(reinterpret_cast<const char *>(&d.seconds), sizeof d.seconds);
    say(bytes);
    d.last_word = clock::monotonic_ns();
    return {};
  }

  bool stop_at_close_ = false;
};

void pause(bool paused) {
  if (device().enabled) say(std::string_view(paused ? &kWatchdogPause : &kWatchdogResume, 1));
}

Result<Ref<File>> open_watchdog(Inode &, DeviceNumber, std::uint32_t flags) {
  Device &d = device();
  if (d.open) return Err(Errno::Busy);
  d.open = true;  // before anything sleeps
  d.enabled = true;
  if (d.process == 0) {
    if (const auto started = start_watching(); !started) {
      d.open = false;
      return Err(started.error());
    }
  }
  auto file = make_ref<WatchdogFile>(flags);
  ping();
  return Ref<File>(std::move(file));
}

}  // namespace

Result<void> register_watchdog(std::uint32_t seconds, std::string notify) {
  device().seconds = seconds;
  device().notify = std::move(notify);
  freeze::on_change(pause);
  TRY(register_char_device("watchdog", kMiscMajor, kWatchdogMinor, 1, open_watchdog));
  return devtmpfs_add("watchdog", static_cast<std::uint32_t>(FileType::CharDevice) | 0600,
                      {kMiscMajor, kWatchdogMinor});
}

}  // namespace cowbird::mconsole
