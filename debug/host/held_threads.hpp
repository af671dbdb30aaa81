// HeldThreads: host threads of other processes than the kernel's that stand still for a while:
// those of stubs, in which guest code runs on while the kernel is stopped. They are traced only as
// long as they are held, so that nothing is left behind when the debugger dies.
//
// The thread that uses a Tracee (debug/host/tracee.hpp) calls everything; ptrace demands it.
#pragma once

#include <sys/types.h>

#include <map>

namespace cowbird::debug {

class HeldThreads {
 public:
  HeldThreads() = default;
  ~HeldThreads() { release_all(); }
  HeldThreads(const HeldThreads &) = delete;
  HeldThreads &operator=(const HeldThreads &) = delete;

  // Stops host thread `tid` for `owner`, who holds one at most; waits a moment until it stands.
  // False: the host does not allow it, or it has ended; nothing is held then.
  bool hold(pid_t owner, pid_t tid);
  // It goes on, with the signal that it was about to get.
  void release(pid_t owner);
  void release_all();
  bool empty() const { return held_.empty(); }

 private:
  struct Held {
    pid_t tid = 0;
    bool stands = false;  // false: it was asked to, and has not yet
    int signal = 0;
  };
  static bool await(Held &held, int patience_ms);
  static void let_go(Held &held);

  std::map<pid_t, Held> held_;  // by owner
};

}  // namespace cowbird::debug
