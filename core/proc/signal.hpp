// Signals: sets, dispositions, queues and delivery, as in signal(7). Needs the big kernel lock.
#pragma once

#include <array>
#include <cstdint>
#include <deque>

#include "base/ref.hpp"
#include "base/result.hpp"

namespace cowbird {

class Task;
class Process;

inline constexpr int kSignalCount = 64;

enum Signal : int {
  kSigHup = 1,
  kSigInt = 2,
  kSigQuit = 3,
  kSigIll = 4,
  kSigTrap = 5,
  kSigAbrt = 6,
  kSigBus = 7,
  kSigFpe = 8,
  kSigKill = 9,
  kSigUsr1 = 10,
  kSigSegv = 11,
  kSigUsr2 = 12,
  kSigPipe = 13,
  kSigAlrm = 14,
  kSigTerm = 15,
  kSigStkFlt = 16,
  kSigChld = 17,
  kSigCont = 18,
  kSigStop = 19,
  kSigTstp = 20,
  kSigTtin = 21,
  kSigTtou = 22,
  kSigUrg = 23,
  kSigXcpu = 24,
  kSigXfsz = 25,
  kSigVtalrm = 26,
  kSigProf = 27,
  kSigWinch = 28,
  kSigIo = 29,
  kSigPwr = 30,
  kSigSys = 31,
  kSigRtMin = 32,
};

// Bit n-1 is signal n.
class SignalSet {
 public:
  constexpr SignalSet() = default;
  constexpr explicit SignalSet(std::uint64_t bits) : bits_(bits) {}
  constexpr bool has(int signal) const { return (bits_ >> (signal - 1)) & 1; }
  constexpr void add(int signal) { bits_ |= 1ull << (signal - 1); }
  constexpr void remove(int signal) { bits_ &= ~(1ull << (signal - 1)); }
  constexpr std::uint64_t bits() const { return bits_; }
  constexpr bool empty() const { return bits_ == 0; }
  friend constexpr SignalSet operator|(SignalSet a, SignalSet b) {
    return SignalSet(a.bits_ | b.bits_);
  }
  friend constexpr SignalSet operator&(SignalSet a, SignalSet b) {
    return SignalSet(a.bits_ & b.bits_);
  }
  constexpr SignalSet operator~() const { return SignalSet(~bits_); }
  friend constexpr bool operator==(SignalSet, SignalSet) = default;

 private:
  std::uint64_t bits_ = 0;
};

// What siginfo_t carries, decoded; proc/signal_frame.cpp lays it out for the guest.
struct SignalInfo {
  int signal = 0;
  int code = 0;  // SI_USER (0), SI_KERNEL (0x80), SI_QUEUE (-1), SI_TIMER (-2), SEGV_MAPERR ...
  int error = 0;
  std::int32_t pid = 0;
  std::uint32_t uid = 0;
  std::int32_t status = 0;  // SIGCHLD
  std::int64_t utime = 0, stime = 0;
  std::uint64_t value = 0;    // sigval
  std::uint64_t address = 0;  // SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP
  std::uint16_t address_lsb = 0;
  std::int32_t timer_id = 0, overrun = 0;
  std::int64_t band = 0;  // SIGIO
  std::int32_t fd = 0;
  std::uint64_t call_address = 0;  // SIGSYS
  std::int32_t syscall = 0;
  std::uint32_t arch = 0;
};

// rt_sigaction(2)'s structure.
struct SignalAction {
  std::uint64_t handler = 0;  // SIG_DFL 0, SIG_IGN 1
  std::uint64_t flags = 0;
  std::uint64_t restorer = 0;
  SignalSet mask;
};

// Dispositions; shared by CLONE_SIGHAND.
class SignalHandlers : public RefCounted<SignalHandlers> {
 public:
  std::array<SignalAction, kSignalCount> actions;  // [signal - 1]
  Ref<SignalHandlers> clone() const;
  // execve: caught signals go back to the default.
  void reset_for_exec();
};

// Pending signals of a thread or of a process. Standard signals are pending once; real-time ones
// queue up to RLIMIT_SIGPENDING.
class PendingSignals {
 public:
  SignalSet set() const { return set_; }
  // false: a standard signal that was pending already, or the queue is full (then only the set is
  // marked for standard signals; real-time ones are refused).
  bool add(const SignalInfo &info, std::size_t limit);
  // The next signal in `allowed`: synchronous ones first, then by number; fills `info`.
  bool take(SignalSet allowed, SignalInfo &info);
  void remove(SignalSet signals);
  std::size_t queued() const { return queue_.size(); }

 private:
  SignalSet set_;
  std::deque<SignalInfo> queue_;
};

// --- sending. `info.signal` is the signal. They never sleep and work from the irq thread too
// (timers, ttys). To a process (any thread that does not block it) or to one thread.
Result<void> send_signal(Process &process, const SignalInfo &info);
Result<void> send_signal(Task &task, const SignalInfo &info);
// From the kernel, SI_KERNEL, without payload.
void send_kernel_signal(Process &process, int signal);
// To every process of a process group; false when it is empty.
bool send_group_signal(int pgid, const SignalInfo &info);
// A fault of the thread itself: cannot be blocked or ignored; if it is, the default action is
// restored first.
void force_signal(Task &task, const SignalInfo &info);
// Takes the next pending signal of the task or its process that is in `allowed` (signalfd,
// rt_sigtimedwait); false when there is none.
bool take_signal(Task &task, SignalSet allowed, SignalInfo &info);
// The signal would have no effect: its disposition is to ignore it.
bool signal_ignored(const Process &process, int signal);
// kill(2)'s permission rule.
bool may_signal(const Task &sender, const Process &target, int signal);

// The default action.
enum class DefaultAction : std::uint8_t { Terminate, Core, Ignore, Stop, Continue };
DefaultAction default_action(int signal);

// Called on the way back to guest code: delivers what is pending (builds the frame, stops, or does
// not return when the task dies) and arranges restarts of interrupted system calls.
void deliver_signals(Task &task);
// rt_sigreturn(2): restores registers, extended state, mask and altstack from the guest's frame.
Result<void> return_from_signal(Task &task);

}  // namespace cowbird
