// Device numbers and the drivers behind them. Drivers register through vfs/file.hpp; this header is
// for vfs/ and for what lists them (/proc/devices). Needs the big kernel lock.
#pragma once

#include <functional>
#include <string>

#include "vfs/file.hpp"

namespace cowbird {

// What the driver of inode.rdev makes; NxIo when nobody has that number.
Result<Ref<File>> open_device(Inode &inode, std::uint32_t flags);
void for_each_device_range(
    bool block, const std::function<void(const std::string &name, std::uint32_t major)> &function);

}  // namespace cowbird
