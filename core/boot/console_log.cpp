#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <memory>

#include "base/unique_fd.hpp"
#include "boot/machine.hpp"
#include "fs/devtmpfs.hpp"
#include "irq/irq.hpp"

namespace cowbird::console_log {
namespace {

// The sink runs on any host thread under the log's lock, so all it does is to ring this bell; the
// irq thread does the copying.
struct State {
  UniqueFd bell;
  std::unique_ptr<irq::FdWatch> watch;
  std::atomic<bool> rung{false};
  std::atomic<int> level{static_cast<int>(LogLevel::Info)};
  std::uint64_t next = 0;
  Tty *tty = nullptr;
  bool has_target = false;
};
State &state() {
  static State *const instance = new State;  // the log outlives everything
  return *instance;
}

void ring() {
  State &s = state();
  if (s.rung.exchange(true)) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(s.bell.get(), &one, sizeof(one));
}

void on_bell(std::uint32_t) {
  State &s = state();
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(s.bell.get(), &count, sizeof(count));
  s.rung.store(false);
  kmsg_wait_queue().wake_all();
  flush();
}

}  // namespace

void flush() {
  State &s = state();
  if (!s.has_target) return;
  while (const auto record = log_read(s.next)) {
    s.next = record->sequence + 1;
    if (static_cast<int>(record->level) > s.level.load()) continue;
    const std::string line = log_format(*record) + "\n";
    if (s.tty) {
      tty_kernel_write(*s.tty, line);
    } else {
      [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
    }
  }
}

Result<void> start(LogLevel level) {
  State &s = state();
  s.level.store(static_cast<int>(level));
  s.bell.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!s.bell.valid()) return Err(Errno::MFile);
  s.watch = TRY(irq::FdWatch::create("kernel-log", s.bell.get(), EPOLLIN, on_bell));
  set_log_sink([](const LogRecord &) { ring(); });
  return {};
}

void set_terminal(Tty *tty) {
  State &s = state();
  s.tty = tty;
  s.has_target = true;
  flush();
}

void set_level(LogLevel level) { state().level.store(static_cast<int>(level)); }

}  // namespace cowbird::console_log
