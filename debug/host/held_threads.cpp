#include "debug/host/held_threads.hpp"

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

namespace cowbird::debug {
namespace {

constexpr int kPatienceMs = 200;
constexpr unsigned kStepUs = 50;

}  // namespace

// Waits for its stop. True also when it has ended, or is not ours any more: it does not stand then.
bool HeldThreads::await(Held &held, int patience_ms) {
  for (unsigned waited_us = 0;; waited_us += kStepUs) {
    int status = 0;
    const pid_t got = ::waitpid(held.tid, &status, __WALL | WNOHANG);
    if (got < 0 && errno != EINTR) return true;
    if (got == held.tid) {
      held.stands = WIFSTOPPED(status);
      const bool for_signal = held.stands && (status >> 16) == 0;
      held.signal = for_signal ? WSTOPSIG(status) : 0;
      return true;
    }
    if (waited_us >= static_cast<unsigned>(patience_ms) * 1000) return false;
    ::usleep(kStepUs);
  }
}

bool HeldThreads::hold(pid_t owner, pid_t tid) {
  const auto known = held_.find(owner);
  if (known != held_.end()) {
    if (known->second.tid == tid) return true;
    release(owner);
  }
  if (::ptrace(PTRACE_SEIZE, tid, 0, 0) != 0) return false;
  Held held;
  held.tid = tid;
  // One that is about to stop for a signal does without the interrupt.
  ::ptrace(PTRACE_INTERRUPT, tid, 0, 0);
  if (await(held, kPatienceMs) && !held.stands) return false;
  held_[owner] = held;
  return true;
}

// Only a thread that stands can be let go. One that was killed while it stood has an end that
// nobody learns of before its tracer does.
void HeldThreads::let_go(Held &held) {
  for (;;) {
    if (held.stands &&
        ::ptrace(PTRACE_DETACH, held.tid, 0, static_cast<std::uintptr_t>(held.signal)) == 0) {
      return;
    }
    held.stands = false;
    if (await(held, kPatienceMs) && !held.stands) return;
  }
}

void HeldThreads::release(pid_t owner) {
  const auto found = held_.find(owner);
  if (found == held_.end()) return;
  let_go(found->second);
  held_.erase(found);
}

void HeldThreads::release_all() {
  for (auto &[owner, held] : held_) let_go(held);
  held_.clear();
}

}  // namespace cowbird::debug
