// The channel `file`: the guest's output goes to the end of a log, which is rotated by size; there
// is no input. The writes are plain ones into the host's page cache: they take the time of a copy,
// not of a disk, unless the host is short of memory.
#include <fcntl.h>
#include <sys/stat.h>

#include <climits>
#include <cowbird/channel.hpp>

#include "common/descriptor.hpp"

namespace {

using channels::Descriptor;
using cowbird::sdk::Channel;
using cowbird::sdk::Config;
using cowbird::sdk::Error;
using cowbird::sdk::Host;

class FileChannel final : public Channel {
 public:
  FileChannel(const Host &host, const Config &config)
      : Channel(host),
        path_(*config.text("path")),
        max_size_(*config.size("max_size")),
        keep_(static_cast<int>(*config.integer("keep"))) {}

  void open() override { open_file(); }
  void close() noexcept override { file_.reset(); }
  std::int64_t read(std::span<std::byte>) override { return -EAGAIN; }  // silence
  std::int64_t write(std::span<const std::byte> data) override;
  std::string describe() override { return "file:" + path_; }

 private:
  void open_file();
  bool is_current();
  void make_room();
  void rotate();
  void lose(std::size_t count, int error);

  const std::string path_;
  const std::uint64_t max_size_;  // 0: no rotation
  const int keep_;
  Descriptor file_;
  std::uint64_t size_ = 0;
  std::uint64_t lost_ = 0;  // since the host last took something; stays when the guest closes
};

void FileChannel::open_file() {
  // O_NONBLOCK: a named pipe would wait for its reader; it is refused below.
  file_ = Descriptor(::open(
      path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600));
  if (!file_) cowbird::sdk::throw_errno("The log " + path_ + " cannot be opened");
  struct stat status;
  if (fstat(file_.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    file_.reset();
    throw Error(EINVAL, path_ + " is no regular file. Name a file, or one that is not there yet.");
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

// Other consoles may write to the same log (con*), and have rotated it.
bool FileChannel::is_current() {
  struct stat ours, named;
  if (!file_ || fstat(file_.get(), &ours) != 0 || stat(path_.c_str(), &named) != 0 ||
      ours.st_dev != named.st_dev || ours.st_ino != named.st_ino) {
    return false;
  }
  size_ = static_cast<std::uint64_t>(ours.st_size);
  return true;
}

void FileChannel::make_room() {
  if (!file_ || (max_size_ != 0 && !is_current())) open_file();
  if (max_size_ != 0 && size_ >= max_size_) rotate();
}

// path -> path.1 -> path.2 ... -> path.KEEP; the oldest goes. A gap takes what is before it and
// nothing moves beyond: so a rotation that failed on the way is tried again without moving twice.
void FileChannel::rotate() {
  const auto name = [this](int n) { return n == 0 ? path_ : path_ + "." + std::to_string(n); };
  file_.reset();
  if (keep_ == 0) unlink(path_.c_str());
  int last = 0;
  while (last < keep_ && access(name(last).c_str(), F_OK) == 0) ++last;
  for (int n = last; n > 0; --n) {
    if (rename(name(n - 1).c_str(), name(n).c_str()) != 0) {
      cowbird::sdk::throw_errno("The log " + name(n - 1) + " cannot be renamed");
    }
  }
  open_file();
}

// Told once; the guest goes on.
void FileChannel::lose(std::size_t count, int error) {
  if (lost_ == 0) {
    host().log(COWBIRD_LOG_WARNING, "the log " + path_ + " takes nothing: " + std::strerror(error) +
                                        "; output is dropped until it does");
  }
  lost_ += count;
}

std::int64_t FileChannel::write(std::span<const std::byte> data) {
  try {
    make_room();
  } catch (const Error &error) {
    lose(data.size(), error.error());
    return static_cast<std::int64_t>(data.size());
  }
  // Up to the limit, so that no file is longer; the host gives the rest again.
  if (max_size_ != 0) {
    data = data.first(
        static_cast<std::size_t>(std::min<std::uint64_t>(data.size(), max_size_ - size_)));
  }
  const ssize_t n = ::write(file_.get(), data.data(), data.size());
  if (n <= 0) {
    lose(data.size(), n < 0 ? errno : ENOSPC);
    return static_cast<std::int64_t>(data.size());
  }
  if (lost_ != 0) {
    host().log(COWBIRD_LOG_NOTICE, "the log " + path_ + " goes on; " + std::to_string(lost_) +
                                       " bytes of output were dropped");
    lost_ = 0;
  }
  size_ += static_cast<std::uint64_t>(n);
  return n;
}

constexpr cowbird_key kKeys[] = {
    {"path", COWBIRD_KEY_PATH, COWBIRD_KEY_REQUIRED, nullptr, 0, 0, nullptr,
     "the log; output goes to its end"},
    {"max_size", COWBIRD_KEY_SIZE, COWBIRD_KEY_HAS_RANGE, "0", 0, INT64_MAX, nullptr,
     "bytes after which it becomes PATH.1 and a new one begins; 0: never"},
    {"keep", COWBIRD_KEY_INT, COWBIRD_KEY_HAS_RANGE, "3", 0, 1000, nullptr,
     "how many older ones stay: PATH.1 (the youngest), PATH.2, ..."},
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(FileChannel, "file", "1.0", kKeys, "a log file, with rotation; no input",
                       "Apache-2.0", 0);
