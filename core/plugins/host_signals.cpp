#include "plugins/host_signals.hpp"

#include <cowbird/plugin.h>
#include <sys/eventfd.h>

#include <atomic>
#include <cerrno>
#include <csignal>

namespace cowbird::plugins {
namespace {

// Read by the signal handler, so it is a fixed array of atomics. A slot's descriptor stays open
// while the slot is taken; a handler that runs on another thread during the destructor may write to
// a descriptor that was just closed, at worst adding to a counter that is an eventfd again.
struct Slot {
  std::atomic<int> signal{0};
  std::atomic<int> fd{-1};
};
constexpr std::size_t kSlots = 256;
Slot slots[kSlots];

void on_signal(int signal) {
  const int saved = errno;
  const std::uint64_t one = 1;
  for (const Slot &slot : slots) {
    if (slot.signal.load(std::memory_order_acquire) != signal) continue;
    const int fd = slot.fd.load(std::memory_order_relaxed);
    if (fd >= 0 && ::write(fd, &one, sizeof one) < 0) continue;  // full: it is readable anyway
  }
  errno = saved;
}

Result<void> install(int signal) {
  struct sigaction old;
  if (sigaction(signal, nullptr, &old) != 0) return Err(errno_from_host(errno));
  if (!(old.sa_flags & SA_SIGINFO) && old.sa_handler == on_signal) return {};
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  sigfillset(&action.sa_mask);
  if (sigaction(signal, &action, nullptr) != 0) return Err(errno_from_host(errno));
  return {};
}

}  // namespace

Result<std::unique_ptr<SignalDescriptor>> SignalDescriptor::create(std::uint32_t cowbird_signal) {
  int host_signal;
  switch (cowbird_signal) {
    case COWBIRD_SIGNAL_WINDOW:
      host_signal = SIGWINCH;
      break;
    case COWBIRD_SIGNAL_CONTINUED:
      host_signal = SIGCONT;
      break;
    default:
      return Err(Errno::Inval);
  }
  UniqueFd fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!fd.valid()) return Err(errno_from_host(errno));
  TRY(install(host_signal));
  for (std::size_t i = 0; i < kSlots; ++i) {
    if (slots[i].signal.load(std::memory_order_relaxed) != 0) continue;
    slots[i].fd.store(fd.get(), std::memory_order_relaxed);
    slots[i].signal.store(host_signal, std::memory_order_release);
    return std::unique_ptr<SignalDescriptor>(new SignalDescriptor(std::move(fd), i));
  }
  return Err(Errno::NFile);
}

SignalDescriptor::~SignalDescriptor() {
  slots[slot_].signal.store(0, std::memory_order_release);
  slots[slot_].fd.store(-1, std::memory_order_release);
}

bool SignalDescriptor::consume() {
  std::uint64_t count;
  return ::read(fd_.get(), &count, sizeof count) == sizeof count && count > 0;
}

}  // namespace cowbird::plugins
