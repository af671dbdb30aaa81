#include "debug/rsp/signals.hpp"

#include <array>

namespace cowbird::debug {

namespace {

constexpr unsigned kUnknown = 143;
constexpr int kLastSignal = 64;

// By Linux number from 0. The real-time ones from 33 to 63 follow a rule; 32 and 64 came later.
constexpr std::array<unsigned, 32> kToGdb = {0,
                                             1 /* HUP */,
                                             2 /* INT */,
                                             3 /* QUIT */,
                                             4 /* ILL */,
                                             5 /* TRAP */,
                                             6 /* ABRT */,
                                             10 /* BUS */,
                                             8 /* FPE */,
                                             9 /* KILL */,
                                             30 /* USR1 */,
                                             11 /* SEGV */,
                                             31 /* USR2 */,
                                             13 /* PIPE */,
                                             14 /* ALRM */,
                                             15 /* TERM */,
                                             kUnknown /* STKFLT */,
                                             20 /* CHLD */,
                                             19 /* CONT */,
                                             17 /* STOP */,
                                             18 /* TSTP */,
                                             21 /* TTIN */,
                                             22 /* TTOU */,
                                             16 /* URG */,
                                             24 /* XCPU */,
                                             25 /* XFSZ */,
                                             26 /* VTALRM */,
                                             27 /* PROF */,
                                             28 /* WINCH */,
                                             23 /* IO */,
                                             32 /* PWR */,
                                             12 /* SYS */};
constexpr int kFirstRealTime = 33;
constexpr int kLastRealTime = 63;
constexpr unsigned kGdbRealTime33 = 45, kGdbRealTime32 = 77, kGdbRealTime64 = 78;

}  // namespace

unsigned signal_to_gdb(int linux_number) {
  if (linux_number < 0 || linux_number > kLastSignal) return kUnknown;
  if (linux_number < static_cast<int>(kToGdb.size()))
    return kToGdb[static_cast<std::size_t>(linux_number)];
  if (linux_number == 32) return kGdbRealTime32;
  if (linux_number == 64) return kGdbRealTime64;
  return kGdbRealTime33 + static_cast<unsigned>(linux_number - kFirstRealTime);
}

int signal_from_gdb(unsigned gdb) {
  if (gdb == 0 || gdb == kUnknown) return 0;
  for (int number = 1; number <= kLastSignal; ++number)
    if (signal_to_gdb(number) == gdb) return number;
  return 0;
}

static_assert(kLastRealTime - kFirstRealTime == 30);

}  // namespace cowbird::debug
