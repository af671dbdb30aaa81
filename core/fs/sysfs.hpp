// sysfs: the classes of devices that this kernel has, as far as programs look for them. Needs the
// big kernel lock.
#pragma once

#include "base/ref.hpp"

namespace cowbird {

class SuperBlock;

void register_sysfs();
// The one instance, for mounting.
Ref<SuperBlock> sysfs_superblock();

}  // namespace cowbird
