// The ring in which the kernel log is kept. Of base/log.cpp; the debugger reads it from outside.
#pragma once

#include <array>

#include "base/lock.hpp"
#include "base/log.hpp"

namespace cowbird {

struct LogRing {
  // Records of ordinary length of this number are about the size of Linux's default log buffer.
  static constexpr std::size_t kRecords = 2048;

  Mutex lock{LockRank::Log, "log"};
  std::array<LogRecord, kRecords> records GUARDED_BY(lock);  // number n is at n % kRecords
  std::uint64_t next GUARDED_BY(lock) = 0;
  LogSink sink GUARDED_BY(lock);

  static LogRing *made;  // nullptr before the first record
};

}  // namespace cowbird
