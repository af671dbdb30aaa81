#include "block/block_device.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "base/log.hpp"
#include "base/units.hpp"

namespace cowbird {
namespace {

// One call's bytes are cut into requests of this size, so that the host works on several at once.
constexpr std::uint64_t kChunk = kMiB;
constexpr std::size_t kMaxBatch = 16;

}  // namespace

// Requests that are started together and waited for together; lives on the waiting thread's stack.
struct BlockDevice::Batch {
  struct Item {
    BlockRequest request;
    iovec buffer{};
    bool good = false;
    Errno error{};
  };
  std::deque<Item> items;  // addresses stay
  std::size_t pending = 0;
  WaitQueue finished;

  Item &add(BlockOperation operation, std::uint64_t offset, std::uint64_t length) {
    Item &item = items.emplace_back();
    item.request.operation = operation;
    item.request.offset = offset;
    item.request.length = length;
    return item;
  }
  void add_data(BlockOperation operation, std::uint64_t offset, std::byte *data,
                std::uint64_t length) {
    Item &item = add(operation, offset, length);
    item.buffer = {data, length};
    item.request.buffers = {&item.buffer, 1};
  }
  // The first error in request order.
  Result<void> result() const {
    for (const Item &item : items) {
      if (!item.good) return Err(item.error);
    }
    return {};
  }
};

// Held while a write is under way.
class BlockDevice::WriteTurn {
 public:
  WriteTurn(BlockDevice &device, bool part) : device_(device), part_(part) {
    // Uninterruptible and without a deadline, so it ends only with the condition.
    static_cast<void>(wait_event(
        device.writers_queue_,
        [&] { return !device.part_writer_ && (!part || device.writers_ == 0); },
        SleepMode::Uninterruptible, "block_write"));
    if (part_) {
      device_.part_writer_ = true;
    } else {
      ++device_.writers_;
    }
  }
  ~WriteTurn() {
    if (part_) {
      device_.part_writer_ = false;
    } else {
      --device_.writers_;
    }
    device_.writers_queue_.wake_all();
  }
  WriteTurn(const WriteTurn &) = delete;
  WriteTurn &operator=(const WriteTurn &) = delete;

 private:
  BlockDevice &device_;
  bool part_;
};

BlockDevice::BlockDevice(std::string name, std::uint32_t major, std::uint32_t minor,
                         std::unique_ptr<BlockBackend> backend)
    : name_(std::move(name)), major_(major), minor_(minor), backend_(std::move(backend)) {
  backend_->set_resize_listener(
      [this] { log_info("{}: the size is {} bytes now", name_, size()); });
}

BlockDevice::~BlockDevice() = default;

Result<Ref<BlockDevice>> BlockDevice::create(std::string name, std::uint32_t major,
                                             std::uint32_t minor,
                                             std::unique_ptr<BlockBackend> backend) {
  const BlockInfo &info = backend->info();
  if (info.block_size < 512 || info.size % info.block_size != 0 ||
      info.max_bytes < info.block_size || info.max_iov == 0) {
    log_err("{}: a backend of {} bytes in blocks of {}, {} at a time, makes no sense", name,
            info.size, info.block_size, info.max_bytes);
    return Err(Errno::Inval);
  }
  return Ref<BlockDevice>::adopt(
      new BlockDevice(std::move(name), major, minor, std::move(backend)));
}

void BlockDevice::account(const BlockRequest &request, bool good) {
  --stats_.in_flight;
  if (!good) {
    ++stats_.errors;
    return;
  }
  switch (request.operation) {
    case BlockOperation::Read:
      ++stats_.reads;
      stats_.read_bytes += request.length;
      break;
    case BlockOperation::Write:
    case BlockOperation::WriteZeroes:
      ++stats_.writes;
      stats_.written_bytes += request.length;
      break;
    case BlockOperation::Flush:
      ++stats_.flushes;
      break;
    case BlockOperation::Discard:
      ++stats_.discards;
      break;
  }
}

void BlockDevice::run(Batch &batch) {
  const std::size_t depth = backend_->info().queue_depth;
  std::vector<BlockRequest *> group;
  batch.pending = batch.items.size();
  for (Batch::Item &item : batch.items) {
    item.request.done = [this, &batch, &item](Result<void> result) {
      item.good = result.ok();
      if (!result) item.error = result.error();
      account(item.request, item.good);
      slots_.wake_one();
      if (--batch.pending == 0) batch.finished.wake_all();
    };
    if (depth != 0 && stats_.in_flight >= depth) {
      // What was collected must be on its way before this thread waits for a slot.
      if (!group.empty()) backend_->submit(group);
      group.clear();
      static_cast<void>(wait_event(
          slots_, [&] { return stats_.in_flight < depth; }, SleepMode::Uninterruptible,
          "block_queue", kNoDeadline, true));
    }
    ++stats_.in_flight;
    group.push_back(&item.request);
  }
  if (!group.empty()) backend_->submit(group);
  static_cast<void>(wait_event(
      batch.finished, [&] { return batch.pending == 0; }, SleepMode::Uninterruptible,
      "block_wait"));
}

Result<std::size_t> BlockDevice::transfer(BlockOperation operation, std::uint64_t offset,
                                          std::byte *data, std::size_t length) {
  const std::uint64_t chunk = std::max<std::uint64_t>(
      std::min<std::uint64_t>(backend_->info().max_bytes, kChunk), block_size());
  std::size_t moved = 0;
  while (moved < length) {
    Batch batch;
    std::size_t planned = moved;
    while (planned < length && batch.items.size() < kMaxBatch) {
      const std::size_t bytes = std::min<std::size_t>(chunk, length - planned);
      batch.add_data(operation, offset + planned, data + planned, bytes);
      planned += bytes;
    }
    run(batch);
    for (const Batch::Item &item : batch.items) {
      if (!item.good) {
        if (moved == 0) return Err(item.error);
        return moved;
      }
      moved += item.request.length;
    }
  }
  return moved;
}

Result<std::size_t> BlockDevice::read_part(std::uint64_t offset, std::span<std::byte> buffer) {
  std::vector<std::byte> block(block_size());
  const std::uint64_t start = offset & ~(block_size() - 1ull);
  TRY(transfer(BlockOperation::Read, start, block.data(), block.size()));
  memcpy(buffer.data(), block.data() + (offset - start), buffer.size());
  return buffer.size();
}

Result<std::size_t> BlockDevice::write_part(std::uint64_t offset, std::span<const std::byte> data) {
  const WriteTurn turn(*this, true);
  std::vector<std::byte> block(block_size());
  const std::uint64_t start = offset & ~(block_size() - 1ull);
  TRY(transfer(BlockOperation::Read, start, block.data(), block.size()));
  memcpy(block.data() + (offset - start), data.data(), data.size());
  TRY(transfer(BlockOperation::Write, start, block.data(), block.size()));
  return data.size();
}

namespace {

// How many of `length` bytes at `offset` the next step takes, and whether they are whole blocks.
struct Step {
  std::size_t bytes;
  bool whole;
};
Step next_step(std::uint64_t offset, std::size_t length, std::uint32_t block_size) {
  const std::uint64_t mask = block_size - 1ull;
  if ((offset & mask) != 0 || length < block_size) {
    return {std::min<std::size_t>(length, block_size - (offset & mask)), false};
  }
  return {length & ~mask, true};
}

}  // namespace

Result<std::size_t> BlockDevice::read(std::uint64_t offset, std::span<std::byte> buffer) {
  if (offset >= size()) return std::size_t{0};
  buffer = buffer.first(std::min<std::uint64_t>(buffer.size(), size() - offset));
  std::size_t moved = 0;
  while (moved < buffer.size()) {
    const Step step = next_step(offset + moved, buffer.size() - moved, block_size());
    const auto piece = buffer.subspan(moved, step.bytes);
    auto result = step.whole
                      ? transfer(BlockOperation::Read, offset + moved, piece.data(), piece.size())
                      : read_part(offset + moved, piece);
    if (!result && moved == 0) return result;
    if (!result) return moved;
    moved += *result;
    if (*result < step.bytes) return moved;
  }
  return moved;
}

Result<std::size_t> BlockDevice::write(std::uint64_t offset, std::span<const std::byte> data) {
  if (read_only()) return Err(Errno::RoFs);
  if (data.empty()) return std::size_t{0};
  if (offset >= size()) return Err(Errno::NoSpc);
  data = data.first(std::min<std::uint64_t>(data.size(), size() - offset));
  std::size_t moved = 0;
  while (moved < data.size()) {
    const Step step = next_step(offset + moved, data.size() - moved, block_size());
    const auto piece = data.subspan(moved, step.bytes);
    Result<std::size_t> result = Err(Errno::Io);
    if (step.whole) {
      const WriteTurn turn(*this, false);
      // The backend only reads the buffers of a write.
      result = transfer(BlockOperation::Write, offset + moved,
                        const_cast<std::byte *>(piece.data()), piece.size());
    } else {
      result = write_part(offset + moved, piece);
    }
    if (!result && moved == 0) return result;
    if (!result) return moved;
    moved += *result;
    if (*result < step.bytes) return moved;
  }
  return moved;
}

Result<void> BlockDevice::flush() {
  if (backend_->info().can_flush != BlockSupport::Native) return {};
  Batch batch;
  batch.add(BlockOperation::Flush, 0, 0);
  run(batch);
  return batch.result();
}

Result<void> BlockDevice::check_range(std::uint64_t offset, std::uint64_t length) const {
  if (read_only()) return Err(Errno::RoFs);
  if (((offset | length) & (block_size() - 1ull)) != 0 || offset > size() ||
      length > size() - offset) {
    return Err(Errno::Inval);
  }
  return {};
}

Result<void> BlockDevice::range_operation(BlockOperation operation, std::uint64_t offset,
                                          std::uint64_t length) {
  const std::uint64_t limit = backend_->info().max_bytes;
  while (length > 0) {
    Batch batch;
    while (length > 0 && batch.items.size() < kMaxBatch) {
      const std::uint64_t bytes = std::min(limit, length);
      batch.add(operation, offset, bytes);
      offset += bytes;
      length -= bytes;
    }
    run(batch);
    TRY(batch.result());
  }
  return {};
}

Result<void> BlockDevice::discard(std::uint64_t offset, std::uint64_t length) {
  TRY(check_range(offset, length));
  if (backend_->info().can_discard != BlockSupport::Native) return Err(Errno::OpNotSupp);
  const WriteTurn turn(*this, false);
  return range_operation(BlockOperation::Discard, offset, length);
}

Result<void> BlockDevice::write_zeroes(std::uint64_t offset, std::uint64_t length) {
  TRY(check_range(offset, length));
  const WriteTurn turn(*this, false);
  if (backend_->info().can_write_zeroes == BlockSupport::Native) {
    return range_operation(BlockOperation::WriteZeroes, offset, length);
  }
  std::vector<std::byte> zeroes(std::min<std::uint64_t>(length, kChunk));
  while (length > 0) {
    const std::size_t bytes = std::min<std::uint64_t>(zeroes.size(), length);
    const std::size_t written = TRY(transfer(BlockOperation::Write, offset, zeroes.data(), bytes));
    offset += written;
    length -= written;
  }
  return {};
}

}  // namespace cowbird
