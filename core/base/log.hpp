// The kernel log: a ring of records with level, guest time and text, as dmesg and /dev/kmsg show
// it, and panic(). Any host thread may log, at any time, under any lock; formatting happens on the
// caller's stack.
//
// Before a clock is set (set_log_clock), records carry the time 0.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cowbird {

// The levels of syslog(2) and printk.
enum class LogLevel : std::uint8_t { Emerg, Alert, Crit, Err, Warning, Notice, Info, Debug };

struct LogRecord {
  std::uint64_t sequence;  // starts at 0, never reused
  std::int64_t time_ns;    // guest monotonic clock
  LogLevel level;
  std::string text;  // one line, without the newline
};

void vlog(LogLevel level, fmt::string_view format, fmt::format_args args);

template <typename... Args>
void klog(LogLevel level, fmt::format_string<Args...> format, Args &&...args) {
  vlog(level, format, fmt::make_format_args(args...));
}
#define COWBIRD_LOG_FUNCTION(name, level)                          \
  template <typename... Args>                                      \
  void name(fmt::format_string<Args...> format, Args &&...args) {  \
    vlog(LogLevel::level, format, fmt::make_format_args(args...)); \
  }
COWBIRD_LOG_FUNCTION(log_err, Err)
COWBIRD_LOG_FUNCTION(log_warn, Warning)
COWBIRD_LOG_FUNCTION(log_notice, Notice)
COWBIRD_LOG_FUNCTION(log_info, Info)
COWBIRD_LOG_FUNCTION(log_debug, Debug)
#undef COWBIRD_LOG_FUNCTION

// The record with this sequence number or, when the ring has dropped it, the oldest one that is
// left. Empty when there is none yet.
std::optional<LogRecord> log_read(std::uint64_t sequence);
std::uint64_t log_first_sequence();
std::uint64_t log_next_sequence();
// The last `count` records, oldest first.
std::vector<LogRecord> log_tail(std::size_t count);

// Called with each record after it is stored; for the console echo and for wake-ups of /dev/kmsg
// readers. The sink must not log and must not sleep. It may run on any host thread, and holds the
// log's lock, so that records reach it in order.
using LogSink = std::function<void(const LogRecord &)>;
void set_log_sink(LogSink sink);
// The clock that stamps records; nanoseconds.
void set_log_clock(std::int64_t (*now_ns)());

// "[    0.012345] text", as the console shows a record.
std::string log_format(const LogRecord &record);

// Stops the guest kernel for good: message, guest thread, symbolised backtrace and the last log
// lines, then exit status 3. What it does is set by boot/ (set_panic_handler); without a handler it
// writes the message to standard error and exits with status 3.
[[noreturn]] void vpanic(fmt::string_view format, fmt::format_args args);
template <typename... Args>
[[noreturn]] void panic(fmt::format_string<Args...> format, Args &&...args) {
  vpanic(format, fmt::make_format_args(args...));
}
using PanicHandler = void (*)(const std::string &message);
void set_panic_handler(PanicHandler handler);

// An invariant of the kernel; checked in every build.
#define KASSERT(condition)                                                                   \
  do {                                                                                       \
    if (!(condition)) [[unlikely]]                                                           \
      ::cowbird::panic("assertion failed: {} ({}:{})", #condition, __FILE_NAME__, __LINE__); \
  } while (false)
#ifndef __FILE_NAME__
#define __FILE_NAME__ (__builtin_strrchr("/" __FILE__, '/') + 1)
#endif

}  // namespace cowbird
