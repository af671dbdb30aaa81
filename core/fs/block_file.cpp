#include "fs/block_file.hpp"

#include <algorithm>
#include <memory>

#include "abi/fcntl.hpp"
#include "abi/poll.hpp"
#include "block/block_device.hpp"
#include "mm/user_access.hpp"
#include "proc/task.hpp"

namespace cowbird {
namespace {

// include/uapi/linux/fs.h
constexpr std::uint32_t kBLKROGET = 0x125e, kBLKGETSIZE = 0x1260, kBLKFLSBUF = 0x1261,
                        kBLKSSZGET = 0x1268, kBLKDISCARD = 0x1277, kBLKPBSZGET = 0x127b,
                        kBLKZEROOUT = 0x127f, kBLKBSZGET = 0x80081270, kBLKGETSIZE64 = 0x80081272;

// Guest memory is reached through a buffer of this size: requests are split.
constexpr std::uint64_t kBounceBytes = 128 * kKiB;

class BlockFile final : public File {
 public:
  BlockFile(Ref<BlockDevice> device, std::uint32_t flags)
      : File(flags), device_(std::move(device)) {}

  bool seekable() const override { return true; }
  Result<std::uint64_t> seek(std::int64_t offset, Whence whence) override {
    std::int64_t base = 0;
    const auto size = static_cast<std::int64_t>(device_->size());
    if (whence == Whence::Current) base = static_cast<std::int64_t>(position);
    if (whence == Whence::End) base = size;
    if (whence == Whence::Data || whence == Whence::Hole) return Err(Errno::Inval);
    std::int64_t target = 0;
    if (__builtin_add_overflow(base, offset, &target) || target < 0 || target > size) {
      return Err(Errno::Inval);
    }
    position = static_cast<std::uint64_t>(target);
    return position;
  }

  Result<std::uint64_t> read(IovIter &to, std::uint64_t &offset) override {
    return transfer(to, offset,
                    [&](IovIter &iter, std::span<std::byte> buffer) -> Result<std::uint64_t> {
                      const std::size_t got = TRY(device_->read(offset, buffer));
                      if (got == 0) return std::uint64_t{0};
                      return iter.copy_to(buffer.first(got));
                    });
  }

  Result<std::uint64_t> write(IovIter &from, std::uint64_t &offset) override {
    return transfer(from, offset,
                    [&](IovIter &iter, std::span<std::byte> buffer) -> Result<std::uint64_t> {
                      const std::uint64_t have = TRY(iter.copy_from(buffer));
                      const auto written = device_->write(offset, buffer.first(have));
                      const std::uint64_t done = written ? *written : 0;
                      iter.revert(have - done);
                      if (!written) return Err(written.error());
                      return done;
                    });
  }

  Result<void> fsync(bool) override { return device_->flush(); }
  std::uint32_t poll(PollTable *) override {
    return abi::kPOLLIN | abi::kPOLLOUT | abi::kPOLLRDNORM | abi::kPOLLWRNORM;
  }
  Result<std::int64_t> ioctl(Task &task, std::uint32_t command, std::uint64_t argument) override;

 private:
  template <typename Piece>
  Result<std::uint64_t> transfer(IovIter &iter, std::uint64_t &offset, Piece &&piece) {
    const std::uint64_t want = std::min(kBounceBytes, iter.remaining());
    if (want == 0) return std::uint64_t{0};
    const auto buffer = std::make_unique<std::byte[]>(want);
    std::uint64_t total = 0;
    while (iter.remaining() > 0) {
      const std::uint64_t size = std::min(want, iter.remaining());
      const Result<std::uint64_t> done = piece(iter, std::span(buffer.get(), size));
      if (!done) return total > 0 ? Result<std::uint64_t>(total) : Err(done.error());
      offset += *done;
      total += *done;
      if (*done < size) break;
    }
    return total;
  }

  Result<std::int64_t> range_ioctl(std::uint32_t command, std::uint64_t argument) {
    struct Range {
      std::uint64_t start, length;
    };
    if (!writable()) return Err(Errno::BadF);
    const Range range = TRY(UserPtr<Range>(argument).read());
    if (command == kBLKDISCARD) {
      TRY(device_->discard(range.start, range.length));
    } else {
      TRY(device_->write_zeroes(range.start, range.length));
    }
    return std::int64_t{0};
  }

  BlockUse device_;
};

template <typename T>
Result<std::int64_t> put(std::uint64_t argument, std::uint64_t value) {
  TRY(UserPtr<T>(argument).write(static_cast<T>(value)));
  return std::int64_t{0};
}

Result<std::int64_t> BlockFile::ioctl(Task &task, std::uint32_t command, std::uint64_t argument) {
  switch (command) {
    case kBLKGETSIZE64:
      return put<std::uint64_t>(argument, device_->size());
    case kBLKGETSIZE:
      return put<std::uint64_t>(argument, device_->size() / 512);
    case kBLKSSZGET:
    case kBLKPBSZGET:
      return put<std::uint32_t>(argument, device_->block_size());
    case kBLKBSZGET:
      return put<std::uint32_t>(argument, kPageSize);
    case kBLKROGET:
      return put<std::uint32_t>(argument, device_->read_only() ? 1 : 0);
    case kBLKFLSBUF:
      if (!task.credentials.capable(Capability::SysAdmin)) return Err(Errno::Access);
      TRY(device_->flush());
      return std::int64_t{0};
    case kBLKDISCARD:
    case kBLKZEROOUT:
      return range_ioctl(command, argument);
    default:
      return Err(Errno::NotTty);
  }
}

}  // namespace

Result<Ref<File>> open_block_device(DeviceNumber number, std::uint32_t flags) {
  Ref<BlockDevice> device = block::find_block_device(number.major, number.minor);
  if (!device) return Err(Errno::NxIo);
  if ((flags & 3) != 0 && device->read_only()) return Err(Errno::RoFs);
  return Ref<File>(make_ref<BlockFile>(std::move(device), flags));
}

}  // namespace cowbird
