// devpts: the file system of pseudoterminal slaves, mounted on /dev/pts. Needs the big kernel lock.
#pragma once

#include "base/ref.hpp"

namespace cowbird {

class SuperBlock;

void register_devpts();
// The one instance, for mounting.
Ref<SuperBlock> devpts_superblock();

}  // namespace cowbird
