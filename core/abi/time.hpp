// Clocks, timers and their structures: clock_gettime(2), setitimer(2), timer_create(2). Plain data.
#pragma once

#include <cstdint>

namespace cowbird::abi {

struct Timespec {
  std::int64_t sec, nsec;
};
static_assert(sizeof(Timespec) == 16);
struct Timeval {
  std::int64_t sec, usec;
};
static_assert(sizeof(Timeval) == 16);
struct Itimerval {
  Timeval interval, value;
};
static_assert(sizeof(Itimerval) == 32);
struct Itimerspec {
  Timespec interval, value;
};
static_assert(sizeof(Itimerspec) == 32);
struct Timezone {
  std::int32_t minuteswest, dsttime;
};
static_assert(sizeof(Timezone) == 8);

inline constexpr int kCLOCK_REALTIME = 0;
inline constexpr int kCLOCK_MONOTONIC = 1;
inline constexpr int kCLOCK_PROCESS_CPUTIME_ID = 2;
inline constexpr int kCLOCK_THREAD_CPUTIME_ID = 3;
inline constexpr int kCLOCK_MONOTONIC_RAW = 4;
inline constexpr int kCLOCK_REALTIME_COARSE = 5;
inline constexpr int kCLOCK_MONOTONIC_COARSE = 6;
inline constexpr int kCLOCK_BOOTTIME = 7;
inline constexpr int kCLOCK_REALTIME_ALARM = 8;
inline constexpr int kCLOCK_BOOTTIME_ALARM = 9;
inline constexpr int kCLOCK_TAI = 11;
inline constexpr int kTIMER_ABSTIME = 1;

inline constexpr int kITIMER_REAL = 0;
inline constexpr int kITIMER_VIRTUAL = 1;
inline constexpr int kITIMER_PROF = 2;

// adjtimex(2)
struct Timex {
  std::uint32_t modes, pad0;
  std::int64_t offset, freq, maxerror, esterror;
  std::int32_t status, pad1;
  std::int64_t constant, precision, tolerance;
  Timeval time;
  std::int64_t tick, ppsfreq, jitter;
  std::int32_t shift, pad2;
  std::int64_t stabil, jitcnt, calcnt, errcnt, stbcnt;
  std::int32_t tai, pad3[11];
};
static_assert(sizeof(Timex) == 208);
inline constexpr int kTIME_ERROR = 5;
inline constexpr std::int32_t kSTA_UNSYNC = 0x40;

}  // namespace cowbird::abi
