// The devices of major number 1: null(4), zero(4), full(4), random(4) and kmsg.
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "abi/fcntl.hpp"
#include "abi/poll.hpp"
#include "base/log.hpp"
#include "fs/devtmpfs.hpp"
#include "sched/scheduler.hpp"
#include "vfs/file.hpp"

namespace cowbird {
namespace {

constexpr std::uint32_t kMemMajor = 1;
constexpr std::uint32_t kNullMinor = 3, kZeroMinor = 5, kFullMinor = 7, kRandomMinor = 8,
                        kUrandomMinor = 9, kKmsgMinor = 11;
constexpr std::uint32_t kAlwaysReady =
    abi::kPOLLIN | abi::kPOLLRDNORM | abi::kPOLLOUT | abi::kPOLLWRNORM;

// What these files share: always ready, any offset is good and means nothing.
class MemoryFile : public File {
 public:
  using File::File;
  bool seekable() const override { return true; }
  Result<std::uint64_t> seek(std::int64_t, Whence) override {
    position = 0;
    return std::uint64_t{0};
  }
  std::uint32_t poll(PollTable *) override { return kAlwaysReady; }
  bool can_poll() const override { return false; }
};

Result<std::uint64_t> swallow(IovIter &from) {
  const std::uint64_t bytes = from.remaining();
  from.advance(bytes);
  return bytes;
}

// Fills a request piece by piece, so that a signal can end a huge one, what was done counts, and
// others run in between.
template <typename Fill>
Result<std::uint64_t> produce(IovIter &to, Fill &&fill) {
  std::uint64_t total = 0;
  while (to.remaining() > 0) {
    const Result<std::uint64_t> piece = fill(to);
    if (!piece) return total > 0 ? Result<std::uint64_t>(total) : Err(piece.error());
    if (*piece == 0) break;
    total += *piece;
    if (to.remaining() > 0 && current_thread() && current_thread()->signal_pending()) break;
    scheduler::cond_resched();
  }
  return total;
}

constexpr std::uint64_t kPieceBytes = 64 * kKiB;

class NullFile final : public MemoryFile {
 public:
  using MemoryFile::MemoryFile;
  Result<std::uint64_t> read(IovIter &, std::uint64_t &) override { return std::uint64_t{0}; }
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override { return swallow(from); }
};

class ZeroFile : public MemoryFile {
 public:
  using MemoryFile::MemoryFile;
  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    return produce(
        to, [](IovIter &iter) { return iter.zero(std::min(kPieceBytes, iter.remaining())); });
  }
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override { return swallow(from); }
  Result<void> mmap(MmapRequest &request) override {
    // Private mappings are plain anonymous memory; a shared one is shared memory of its own.
    request.file.reset();
    request.offset = 0;
    if (request.sharing == Sharing::Shared) request.cache = make_shared_memory(request.length);
    return {};
  }
};

class FullFile final : public ZeroFile {
 public:
  using ZeroFile::ZeroFile;
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override {
    if (from.remaining() == 0) return std::uint64_t{0};
    return Err(Errno::NoSpc);
  }
  Result<void> mmap(MmapRequest &) override { return Err(Errno::NoDev); }
};

class RandomFile : public MemoryFile {
 public:
  using MemoryFile::MemoryFile;
  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    return produce(to, [](IovIter &iter) -> Result<std::uint64_t> {
      std::array<std::byte, 256> bytes;  // getrandom never fails or is cut short up to this size
      const std::size_t want = std::min<std::uint64_t>(bytes.size(), iter.remaining());
      if (::getrandom(bytes.data(), want, 0) != static_cast<ssize_t>(want)) return Err(Errno::Io);
      return iter.copy_to(std::span(bytes).first(want));
    });
  }
  // The host's pool needs nothing from us; as on Linux, writing is allowed and adds no entropy that
  // counts.
  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override { return swallow(from); }
};

// /dev/random is a file that can be waited for, as Linux's is; /dev/urandom is not.
class PollableRandomFile final : public RandomFile {
 public:
  using RandomFile::RandomFile;
  bool can_poll() const override { return true; }
};

// --- kmsg: Documentation/ABI/testing/dev-kmsg

class KmsgFile final : public File {
 public:
  explicit KmsgFile(std::uint32_t flags) : File(flags), next_(log_first_sequence()) {}

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &) override {
    if (log_next_sequence() <= next_) {
      if (nonblocking()) return Err(Errno::Again);
      TRY(wait_event(
          kmsg_wait_queue(), [&] { return log_next_sequence() > next_; }, SleepMode::Interruptible,
          "kmsg_read"));
    }
    const auto record = log_read(next_);
    if (!record) return Err(Errno::Again);
    if (record->sequence != next_) {
      next_ = record->sequence;  // records were overwritten before they could be read
      return Err(Errno::Pipe);
    }
    const std::string line =
        fmt::format("{},{},{},-;{}\n", static_cast<int>(record->level), record->sequence,
                    record->time_ns / 1000, escape(record->text));
    if (line.size() > to.remaining()) return Err(Errno::Inval);
    next_ = record->sequence + 1;
    return to.copy_to(std::as_bytes(std::span(line)));
  }

  Result<std::uint64_t> write(IovIter &from, std::uint64_t &) override {
    constexpr std::size_t kMaxRecord = 1024 - 32;
    if (from.remaining() > kMaxRecord) return Err(Errno::Inval);
    std::string text(from.remaining(), '\0');
    const std::uint64_t size = text.size();
    TRY(from.copy_from(std::as_writable_bytes(std::span(text))));
    const LogLevel level = take_priority(text);
    klog(level, "{}", text);
    return size;
  }

  bool seekable() const override { return true; }
  Result<std::uint64_t> seek(std::int64_t offset, Whence whence) override {
    if (offset != 0) return Err(Errno::SPipe);
    switch (whence) {
      case Whence::Set:
      case Whence::Data:  // after the last clear; this log has none
        next_ = log_first_sequence();
        return std::uint64_t{0};
      case Whence::End:
        next_ = log_next_sequence();
        return std::uint64_t{0};
      default:
        return Err(Errno::Inval);
    }
  }

  std::uint32_t poll(PollTable *table) override {
    if (table) table->wait(kmsg_wait_queue());
    std::uint32_t events = abi::kPOLLOUT | abi::kPOLLWRNORM;
    if (log_next_sequence() > next_) events |= abi::kPOLLIN | abi::kPOLLRDNORM;
    if (log_first_sequence() > next_) events |= abi::kPOLLERR | abi::kPOLLPRI;
    return events;
  }

 private:
  static std::string escape(const std::string &text) {
    std::string out;
    for (const char c : text) {
      const auto u = static_cast<unsigned char>(c);
      if (u < 0x20 || u == 0x7f || c == '\\') {
        out += fmt::format("\\x{:02x}", u);
      } else {
        out += c;
      }
    }
    return out;
  }

  // "<6>text": facility and level in front, as syslog has them.
  static LogLevel take_priority(std::string &text) {
    if (!text.empty() && text.back() == '\n') text.pop_back();
    if (text.size() < 3 || text[0] != '<') return LogLevel::Notice;
    unsigned priority = 0;
    const auto [end, error] = std::from_chars(text.data() + 1, text.data() + text.size(), priority);
    if (error != std::errc() || end == text.data() + text.size() || *end != '>') {
      return LogLevel::Notice;
    }
    text.erase(0, static_cast<std::size_t>(end - text.data()) + 1);
    return static_cast<LogLevel>(priority & 7);
  }

  std::uint64_t next_;
};

Result<Ref<File>> open_memory_device(Inode &, DeviceNumber number, std::uint32_t flags) {
  switch (number.minor) {
    case kNullMinor:
      return Ref<File>(make_ref<NullFile>(flags));
    case kZeroMinor:
      return Ref<File>(make_ref<ZeroFile>(flags));
    case kFullMinor:
      return Ref<File>(make_ref<FullFile>(flags));
    case kRandomMinor:
      return Ref<File>(make_ref<PollableRandomFile>(flags));
    case kUrandomMinor:
      return Ref<File>(make_ref<RandomFile>(flags));
    case kKmsgMinor:
      return Ref<File>(make_ref<KmsgFile>(flags));
    default:
      return Err(Errno::NxIo);
  }
}

struct MemoryDevice {
  const char *name;
  std::uint32_t minor, permissions;
};
constexpr MemoryDevice kMemoryDevices[] = {
    {"null", kNullMinor, 0666},     {"zero", kZeroMinor, 0666},       {"full", kFullMinor, 0666},
    {"random", kRandomMinor, 0666}, {"urandom", kUrandomMinor, 0666}, {"kmsg", kKmsgMinor, 0644},
};

}  // namespace

WaitQueue &kmsg_wait_queue() {
  static WaitQueue queue;
  return queue;
}

Result<void> register_memory_devices() {
  TRY(register_char_device("mem", kMemMajor, 0, 16, open_memory_device));
  for (const MemoryDevice &device : kMemoryDevices) {
    TRY(devtmpfs_add(device.name,
                     static_cast<std::uint32_t>(FileType::CharDevice) | device.permissions,
                     {kMemMajor, device.minor}));
  }
  return {};
}

}  // namespace cowbird
