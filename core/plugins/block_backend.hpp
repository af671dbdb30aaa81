// BlockBackend: the store behind a block device, as block/ sees it. PluginRegistry makes the ones
// that plugins offer; tests make their own.
//
// All functions are called with the big kernel lock held and never block or sleep.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/result.hpp"

namespace cowbird {

enum class BlockOperation : std::uint8_t { Read = 1, Write, Flush, Discard, WriteZeroes };

enum class BlockSupport : std::uint8_t { None, Emulate, Native };

struct BlockInfo {
  std::uint64_t size = 0;  // bytes, a multiple of block_size
  std::uint32_t block_size = 512;
  std::uint32_t preferred_io = 0;
  std::uint64_t max_bytes = 0;    // of one request; never 0 from info()
  std::uint32_t max_iov = 0;      // never 0 from info()
  std::uint32_t queue_depth = 0;  // 0: no limit
  bool read_only = false;
  BlockSupport can_flush = BlockSupport::None;
  BlockSupport can_discard = BlockSupport::None;
  BlockSupport can_write_zeroes = BlockSupport::None;
};

// One request; the caller's, unchanged and in place until `done` has been called, which happens
// exactly once, on the irq thread under the big kernel lock, and must not sleep. `done` may free
// the request.
struct BlockRequest {
  BlockOperation operation = BlockOperation::Read;
  bool force_unit_access = false;  // Write, WriteZeroes: durable when done
  bool no_unmap = false;           // WriteZeroes: keep the space allocated
  std::uint64_t offset = 0;        // bytes
  std::uint64_t length = 0;        // bytes
  std::span<const iovec> buffers;  // Read, Write; host memory
  std::function<void(Result<void>)> done;
};

class BlockBackend {
 public:
  virtual ~BlockBackend() = default;
  virtual const BlockInfo &info() const = 0;
  // Starts the requests; each keeps the limits of info() (the queue of block/ sees to that). A
  // request outside them is done with Inval.
  virtual void submit(std::span<BlockRequest *const> requests) = 0;
  // Called, as `done` is, after the size in info() has changed.
  virtual void set_resize_listener(std::function<void()> listener) = 0;
  // Requests that are not done yet. The backend may be destroyed only when there are none.
  virtual std::size_t in_flight() const = 0;
  virtual std::string describe() = 0;
};

}  // namespace cowbird
