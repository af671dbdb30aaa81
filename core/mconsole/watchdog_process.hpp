// The watchdog's process on the host, and what the kernel tells it on its standard input. It ends
// by itself when the pipe is closed, so it does not outlive the guest. For core/cli/main.cpp and
// mconsole/watchdog.cpp; host side.
#pragma once

#include <string>
#include <vector>

namespace cowbird::mconsole {

// The first word of its command line: cowbird watchdog-process PID SECONDS [SOCKET].
inline constexpr const char *kWatchdogWord = "watchdog-process";
// One byte on its standard output says that it watches. Then it hears:
inline constexpr char kWatchdogPing = '\n';    // the guest lives
inline constexpr char kWatchdogPause = 'P';    // it stands still: do not count
inline constexpr char kWatchdogResume = 'G';   // it goes on
inline constexpr char kWatchdogTimeout = 'T';  // 4 bytes follow: seconds, in the host's byte order

inline constexpr unsigned kMaxWatchdogSeconds = 86400;

// `arguments` after the first word. Returns the exit status: 0 not needed any more, 1 it has had to
// act, 2 wrong usage.
int run_watchdog_process(const std::vector<std::string> &arguments);

}  // namespace cowbird::mconsole
