#include "debug/host/child_signal.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

namespace cowbird::debug {
namespace {

// Opened once and never closed: the handler may run until the process ends.
int event = -1;
unsigned holders = 0;
struct sigaction action_before;

void on_child(int) {
  const int saved = errno;
  ChildSignal::raise();
  errno = saved;
}

}  // namespace

ChildSignal::ChildSignal() {
  if (event < 0) event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (holders++ > 0) return;
  struct sigaction action {};
  action.sa_handler = on_child;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGCHLD, &action, &action_before);
}

ChildSignal::~ChildSignal() {
  if (--holders == 0) ::sigaction(SIGCHLD, &action_before, nullptr);
}

int ChildSignal::fd() { return event; }

void ChildSignal::raise() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event, &one, sizeof one);
}

void ChildSignal::drain() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(event, &count, sizeof count);
}

}  // namespace cowbird::debug
