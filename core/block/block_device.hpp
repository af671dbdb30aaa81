// Block devices: what /dev/ubdX and file systems on images stand on. A BlockDevice turns byte-range
// reads and writes into requests on its BlockBackend, splits them by the backend's limits, and puts
// the calling kernel thread to sleep until they are complete. There is no cache here.
//
// All functions need the big kernel lock; read, write, flush, discard and write_zeroes sleep
// (uninterruptibly), the others do not. Device numbers are those of User Mode Linux: major 98,
// ubda = 0, ubdb = 16, ... (Linux Documentation/admin-guide/devices.txt); partitions are not
// scanned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/ref.hpp"
#include "base/result.hpp"
#include "plugins/block_backend.hpp"
#include "sched/wait.hpp"

namespace cowbird {

inline constexpr std::uint32_t kUbdMajor = 98;
inline constexpr std::uint32_t kUbdMinorStep = 16;  // one for the disk, 15 for its partitions
inline constexpr unsigned kMaxUbdDevices = (1u << 20) / kUbdMinorStep;  // by the minor numbers

class BlockDevice : public RefCounted<BlockDevice> {
 public:
  // Inval when the backend's answers contradict themselves (logged).
  static Result<Ref<BlockDevice>> create(std::string name, std::uint32_t major, std::uint32_t minor,
                                         std::unique_ptr<BlockBackend> backend);
  ~BlockDevice();

  const std::string &name() const { return name_; }  // "ubda"
  std::uint32_t major() const { return major_; }
  std::uint32_t minor() const { return minor_; }
  std::uint64_t size() const { return backend_->info().size; }  // bytes
  std::uint32_t block_size() const { return backend_->info().block_size; }
  bool read_only() const { return backend_->info().read_only; }
  std::string describe() { return backend_->describe(); }

  // Any offset and length; a part of a block that is written is read first. Returns the bytes
  // transferred, fewer than asked for at the end of the device: read at or behind the end gives 0,
  // write there NoSpc. RoFs on a read-only device. Io (or the backend's error) when nothing could
  // be transferred; a short count when the failure came later. The buffers are host memory.
  Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> buffer);
  Result<std::size_t> write(std::uint64_t offset, std::span<const std::byte> data);
  // What was written before is durable afterwards. Success where the backend needs none.
  Result<void> flush();
  // Block-aligned ranges inside the device (Inval otherwise). discard: OpNotSupp where the backend
  // has none. write_zeroes falls back to writing zeroes.
  Result<void> discard(std::uint64_t offset, std::uint64_t length);
  Result<void> write_zeroes(std::uint64_t offset, std::uint64_t length);

  // For /proc/diskstats and /sys: completed requests and bytes, since creation.
  struct Stats {
    std::uint64_t reads = 0, read_bytes = 0, writes = 0, written_bytes = 0, flushes = 0,
                  discards = 0, in_flight = 0, errors = 0;
  };
  const Stats &stats() const { return stats_; }
  // How many BlockUse there are.
  unsigned users() const { return users_; }

 private:
  friend class BlockUse;
  friend struct DebugLayout;
  struct Batch;
  class WriteTurn;
  BlockDevice(std::string name, std::uint32_t major, std::uint32_t minor,
              std::unique_ptr<BlockBackend> backend);

  // Block-aligned; bytes that were transferred from the front on, or the error when there are none.
  Result<std::size_t> transfer(BlockOperation operation, std::uint64_t offset, std::byte *data,
                               std::size_t length);
  // A part of one block, by way of a buffer of the whole block.
  Result<std::size_t> read_part(std::uint64_t offset, std::span<std::byte> buffer);
  Result<std::size_t> write_part(std::uint64_t offset, std::span<const std::byte> data);
  Result<void> range_operation(BlockOperation operation, std::uint64_t offset,
                               std::uint64_t length);
  Result<void> check_range(std::uint64_t offset, std::uint64_t length) const;
  void run(Batch &batch);
  void account(const BlockRequest &request, bool good);

  std::string name_;
  std::uint32_t major_;
  std::uint32_t minor_;
  std::unique_ptr<BlockBackend> backend_;
  Stats stats_;
  WaitQueue slots_;  // those who wait for the backend's queue_depth
  // A write of a part of a block reads and writes the whole block, so it is alone.
  WaitQueue writers_queue_;
  unsigned writers_ = 0;
  unsigned users_ = 0;
  bool part_writer_ = false;
};

// A block device that is in use: an open file, a mount. Opening says who may not be removed now.
class BlockUse {
 public:
  explicit BlockUse(Ref<BlockDevice> device) : device_(std::move(device)) { ++device_->users_; }
  ~BlockUse() {
    if (device_) --device_->users_;
  }
  BlockUse(BlockUse &&) = default;
  BlockUse &operator=(BlockUse &&) = delete;
  BlockDevice *operator->() const { return device_.get(); }
  BlockDevice &operator*() const { return *device_; }

 private:
  Ref<BlockDevice> device_;
};

// The block devices that the guest has. Registering makes a device visible to lookups and tells the
// listener (devtmpfs), which is also told of those registered before it was set.
namespace block {
// Exist when the name or number is taken.
Result<void> register_block_device(Ref<BlockDevice> device);
// NoEnt when it is not registered. Holders of a reference keep the device.
Result<void> unregister_block_device(std::string_view name);
Ref<BlockDevice> find_block_device(std::string_view name);  // null when there is none
Ref<BlockDevice> find_block_device(std::uint32_t major, std::uint32_t minor);
void for_each_block_device(const std::function<void(BlockDevice &)> &function);
using DeviceListener = std::function<void(BlockDevice &, bool added)>;
void set_block_device_listener(DeviceListener listener);

// "ubd0" or "ubda" -> 0, "ubd25" or "ubdz" -> 25, "ubd512" -> 512; Inval for other names.
Result<unsigned> ubd_index(std::string_view name);
// 0 -> "ubda", 26 -> "ubd26": the name of the device node.
std::string ubd_name(unsigned index);
// Makes and registers ubdX. `name` as in the machine file ("ubd0" or "ubda").
Result<Ref<BlockDevice>> add_ubd(std::string_view name, std::unique_ptr<BlockBackend> backend);
}  // namespace block

}  // namespace cowbird
