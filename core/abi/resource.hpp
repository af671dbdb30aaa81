// getrusage(2), getrlimit(2), getpriority(2), times(2). Plain data.
#pragma once

#include <cstdint>

#include "abi/time.hpp"

namespace cowbird::abi {

inline constexpr int kRUSAGE_SELF = 0;
inline constexpr int kRUSAGE_CHILDREN = -1;
inline constexpr int kRUSAGE_THREAD = 1;

struct Rusage {
  Timeval utime, stime;
  std::int64_t maxrss, ixrss, idrss, isrss, minflt, majflt, nswap, inblock, oublock, msgsnd, msgrcv,
      nsignals, nvcsw, nivcsw;
};
static_assert(sizeof(Rusage) == 144);

struct Rlimit {
  std::uint64_t soft, hard;
};
static_assert(sizeof(Rlimit) == 16);

inline constexpr int kPRIO_PROCESS = 0;
inline constexpr int kPRIO_PGRP = 1;
inline constexpr int kPRIO_USER = 2;

struct Tms {
  std::int64_t utime, stime, cutime, cstime;
};
static_assert(sizeof(Tms) == 32);
inline constexpr std::int64_t kUSER_HZ = 100;

}  // namespace cowbird::abi
