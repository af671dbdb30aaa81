#include "base/log.hpp"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "base/lock.hpp"
#include "base/log_ring.hpp"

namespace cowbird {
namespace {

using Ring = LogRing;

Ring &ring() {
  // Never destroyed: host threads may log until the process is gone.
  static Ring *const instance = LogRing::made = new Ring;
  return *instance;
}

std::atomic<std::int64_t (*)()> log_clock{nullptr};
std::atomic<PanicHandler> panic_handler{nullptr};

std::uint64_t first_of(std::uint64_t next) {
  return next > LogRing::kRecords ? next - LogRing::kRecords : 0;
}

void store(Ring &r, LogLevel level, std::int64_t now, std::string line) REQUIRES(r.lock) {
  LogRecord &record = r.records[r.next % LogRing::kRecords];
  record = LogRecord{r.next, now, level, std::move(line)};
  ++r.next;
  if (r.sink) r.sink(record);
}

}  // namespace

constinit LogRing *LogRing::made = nullptr;

void vlog(LogLevel level, fmt::string_view format, fmt::format_args args) {
  const std::string text = fmt::vformat(format, args);
  const auto clock = log_clock.load(std::memory_order_acquire);
  const std::int64_t now = clock ? clock() : 0;
  Ring &r = ring();
  MutexLock guard(r.lock);
  std::size_t begin = 0;
  do {  // one record a line, so that every reader can print records as they are
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    if (end > begin || text.empty()) store(r, level, now, text.substr(begin, end - begin));
    begin = end + 1;
  } while (begin < text.size());
}

std::optional<LogRecord> log_read(std::uint64_t sequence) {
  Ring &r = ring();
  MutexLock guard(r.lock);
  const std::uint64_t first = first_of(r.next);
  if (sequence < first) sequence = first;
  if (sequence >= r.next) return std::nullopt;
  return r.records[sequence % LogRing::kRecords];
}

std::uint64_t log_first_sequence() {
  Ring &r = ring();
  MutexLock guard(r.lock);
  return first_of(r.next);
}

std::uint64_t log_next_sequence() {
  Ring &r = ring();
  MutexLock guard(r.lock);
  return r.next;
}

std::vector<LogRecord> log_tail(std::size_t count) {
  Ring &r = ring();
  MutexLock guard(r.lock);
  std::uint64_t begin = first_of(r.next);
  if (r.next - begin > count) begin = r.next - count;
  std::vector<LogRecord> records;
  for (; begin < r.next; ++begin) records.push_back(r.records[begin % LogRing::kRecords]);
  return records;
}

void set_log_sink(LogSink sink) {
  Ring &r = ring();
  MutexLock guard(r.lock);
  r.sink = std::move(sink);
}

void set_log_clock(std::int64_t (*now_ns)()) { log_clock.store(now_ns, std::memory_order_release); }

std::string log_format(const LogRecord &record) {
  return fmt::format("[{:5}.{:06}] {}", record.time_ns / 1'000'000'000,
                     record.time_ns / 1000 % 1'000'000, record.text);
}

void set_panic_handler(PanicHandler handler) { panic_handler.store(handler); }

void vpanic(fmt::string_view format, fmt::format_args args) {
  const std::string message = fmt::vformat(format, args);
  if (const PanicHandler handler = panic_handler.load()) handler(message);
  const std::string line = "cowbird: panic: " + message + "\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
  ::_exit(3);
}

}  // namespace cowbird
