// The list of block devices. Of block/block_registry.cpp; the debugger reads it from outside. Big
// kernel lock.
#pragma once

#include <vector>

#include "block/block_device.hpp"

namespace cowbird::block {

struct Registry {
  std::vector<Ref<BlockDevice>> devices;
  DeviceListener listener;
  static Registry *made;  // nullptr before the first device
};

}  // namespace cowbird::block
