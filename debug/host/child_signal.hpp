// A descriptor that becomes readable when a child or a tracee of this process has changed state. Of
// Tracee alone.
#pragma once

namespace cowbird::debug {

// Counted: the handler of SIGCHLD is in place from the first hold to the last release.
class ChildSignal {
 public:
  ChildSignal();
  ~ChildSignal();
  ChildSignal(const ChildSignal &) = delete;
  ChildSignal &operator=(const ChildSignal &) = delete;

  static int fd();
  static void raise();
  static void drain();
};

}  // namespace cowbird::debug
