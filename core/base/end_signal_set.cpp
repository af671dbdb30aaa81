#include "base/end_signal_set.hpp"

namespace cowbird {

namespace {

bool ends_program(int signal) {
  switch (signal) {
    case SIGKILL:  // nobody can wait for these two
    case SIGSTOP:
    case SIGSEGV:  // faults
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
    case SIGABRT:
    case SIGSYS:
    case SIGPIPE:  // writes
    case SIGXFSZ:
    case SIGTSTP:  // these stop a program
    case SIGTTIN:
    case SIGTTOU:
    case SIGCONT:  // and these do nothing by themselves
    case SIGCHLD:
    case SIGURG:
    case SIGWINCH:
      return false;
    default:
      return true;
  }
}

}  // namespace

sigset_t end_signal_set() {
  sigset_t set;
  ::sigemptyset(&set);
  // Those between the two ranges are the C library's own.
  constexpr int kLastOrdinary = SIGSYS;
  for (int s = 1; s <= kLastOrdinary; ++s) {
    if (ends_program(s)) ::sigaddset(&set, s);
  }
  for (int s = SIGRTMIN; s <= SIGRTMAX; ++s) ::sigaddset(&set, s);
  return set;
}

}  // namespace cowbird
