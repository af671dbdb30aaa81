#include "tty/tty_log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <vector>

#include "base/log.hpp"
#include "base/unique_fd.hpp"
#include "irq/irq.hpp"
#include "sched/clock.hpp"
#include "tty/tty_log_text.hpp"

namespace cowbird {

namespace {

constexpr std::size_t kMostWaiting = 4ul * 1024 * 1024;
// So often a full file system is tried again.
constexpr std::int64_t kRetryNs = 1'000'000'000;

// One file. Its functions are called under the big kernel lock, except write_out().
class LogFile : public std::enable_shared_from_this<LogFile> {
 public:
  // `name` is made in `directory` at the first write.
  LogFile(int directory, std::string name) : directory_(directory), name_(std::move(name)) {}
  explicit LogFile(int fd) : fd_(fd) {}
  ~LogFile() {
    if (directory_ >= 0 && fd_ >= 0) ::close(fd_);
  }

  void add(const std::string &text) {
    if (waiting_.size() + text.size() > kMostWaiting) {
      lost_ += text.size();
      return;
    }
    if (lost_ != 0) {
      waiting_ += log_event(clock::realtime_ns(), 'm', fmt::format("{} bytes lost", lost_), {});
      lost_ = 0;
    }
    waiting_ += text;
    start();
  }

  bool idle() const { return !writing_; }

  // At the end, when there are no workers any more: their last order may have been dropped.
  void flush() {
    std::string rest;
    if (writing_) rest = written_ ? in_work_.substr(done_) : in_work_;
    rest += std::exchange(waiting_, {});
    if (!rest.empty()) write_out(rest);
  }

 private:
  void start() {
    if (writing_ || waiting_.empty()) return;
    if (full_ != 0 && clock::monotonic_ns() < retry_ns_) return;
    writing_ = true;
    written_ = false;
    in_work_ = std::move(waiting_);
    waiting_.clear();
    const auto self = shared_from_this();
    irq::submit([self] { self->write_out(self->in_work_); },
                [self] {
                  self->writing_ = false;
                  self->complain();
                  self->keep_rest();
                  self->start();
                });
  }

  // What had no room waits for it.
  void keep_rest() {
    if (full_ == 0) return;
    waiting_.insert(0, in_work_, done_);
    retry_ns_ = clock::monotonic_ns() + kRetryNs;
  }

  void fail(int error) { (error == ENOSPC || error == EDQUOT ? full_ : error_) = error; }

  // On a worker, one at a time.
  void write_out(const std::string &text) {
    done_ = 0;
    full_ = 0;
    if (fd_ < 0 && error_ == 0) {
      fd_ = ::openat(directory_, name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
      if (fd_ < 0) fail(errno);
    }
    while (done_ < text.size() && error_ == 0 && full_ == 0) {
      const auto written = ::write(fd_, text.data() + done_, text.size() - done_);
      if (written > 0) done_ += static_cast<std::size_t>(written);
      if (written < 0 && errno != EINTR) fail(errno);
    }
    written_ = true;
  }

  void complain() {
    const int why = error_ != 0 ? error_ : full_;
    const bool before = std::exchange(complained_, why != 0);
    if (why == 0 || before) return;
    log_err("The terminal log {} cannot be written: {}.", name_.empty() ? "descriptor" : name_,
            errno_text(errno_from_host(why)));
  }

  int directory_ = -1;
  std::string name_;
  int fd_ = -1;
  int error_ = 0;         // of the host; ends the log
  int full_ = 0;          // no room, or 0; what is left to write waits
  std::size_t done_ = 0;  // of the last write_out()
  std::int64_t retry_ns_ = 0;
  std::string waiting_;
  std::string in_work_;  // the worker's, while writing_
  std::atomic<bool> written_{false};
  std::uint64_t lost_ = 0;
  bool writing_ = false;
  bool complained_ = false;
};

struct State {
  UniqueFd directory;
  std::shared_ptr<LogFile> descriptor;
  std::vector<std::shared_ptr<LogFile>>
      files;  // of the directory; all that may have something left
};
State &state() {
  static auto *const instance = new State;  // terminals may outlive main()
  return *instance;
}

class Record final : public TtyRecord {
 public:
  // With `shared`, the events carry the terminal's name and the time of day.
  Record(std::shared_ptr<LogFile> file, std::string_view tty, bool shared)
      : file_(std::move(file)), tty_(shared ? tty : ""), start_(shared ? 0 : clock::realtime_ns()) {
    event('m', "open");
  }
  // Out of memory ends the kernel.
  ~Record() override {  // NOLINT(bugprone-exception-escape)
    std::string rest;
    output_.finish(rest);
    if (!rest.empty()) event('o', rest);
    rest.clear();
    input_.finish(rest);
    if (!rest.empty()) event('i', rest);
    event('m', "close");
  }
  void output(std::span<const std::byte> bytes) override { data('o', output_, bytes); }
  void input(std::span<const std::byte> bytes) override { data('i', input_, bytes); }
  void window(unsigned columns, unsigned rows) override {
    event('r', fmt::format("{}x{}", columns, rows));
  }

 private:
  void data(char kind, JsonBytes &direction, std::span<const std::byte> bytes) {
    std::string text;
    direction.append(text, bytes);
    if (!text.empty()) event(kind, text);
  }
  void event(char kind, std::string_view text) {
    file_->add(
        log_event(std::max<std::int64_t>(clock::realtime_ns() - start_, 0), kind, text, tty_));
  }

  const std::shared_ptr<LogFile> file_;
  const std::string tty_;
  const std::int64_t start_;
  JsonBytes output_, input_;
};

}  // namespace

bool tty_log::to_directory(const std::string &directory, std::string &error) {
  State &s = state();
  s.directory.reset(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!s.directory.valid() || ::faccessat(s.directory.get(), ".", W_OK | X_OK, AT_EACCESS) != 0) {
    error = fmt::format("The directory of terminal logs {} cannot be used: {}.", directory,
                        errno_text(errno_from_host(errno)));
    s.directory.reset();
    return false;
  }
  return true;
}

bool tty_log::to_descriptor(int fd, std::string &error) {
  // One that closes at execve(2) was not inherited: it is our own.
  const bool own = (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
  const int flags = own ? -1 : ::fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY) {
    error = fmt::format("Terminals cannot be logged to descriptor {}: it is not open{}.", fd,
                        flags < 0 ? "" : " for writing");
    return false;
  }
  state().descriptor = std::make_shared<LogFile>(fd);
  return true;
}

void tty_log::stop() {
  State &s = state();
  if (s.descriptor) s.descriptor->flush();
  for (const auto &file : s.files) file->flush();
}

std::unique_ptr<TtyRecord> TtyRecord::start(std::string_view tty, unsigned columns, unsigned rows) {
  State &s = state();
  if (s.descriptor) return std::make_unique<Record>(s.descriptor, tty, true);
  if (!s.directory.valid()) return nullptr;
  const std::int64_t now = clock::realtime_ns();
  std::string leaf(tty);
  std::ranges::replace(leaf, '/', '-');
  auto file = std::make_shared<LogFile>(s.directory.get(),
                                        fmt::format("{}-{}.cast", log_seconds(now), leaf));
  std::erase_if(s.files, [](const auto &old) { return old.use_count() == 1 && old->idle(); });
  s.files.push_back(file);
  file->add(log_header(tty, columns, rows, now));
  return std::make_unique<Record>(std::move(file), tty, false);
}

}  // namespace cowbird
