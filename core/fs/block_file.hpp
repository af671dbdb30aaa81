// An open block device (/dev/ubda): byte access to a BlockDevice, without a cache. For devtmpfs.
// Needs the big kernel lock.
#pragma once

#include <cstdint>

#include "base/result.hpp"
#include "vfs/file.hpp"

namespace cowbird {

// NxIo when there is no such device; RoFs when it is opened for writing and is read-only.
Result<Ref<File>> open_block_device(DeviceNumber number, std::uint32_t flags);

}  // namespace cowbird
