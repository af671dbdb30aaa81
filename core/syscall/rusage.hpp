// struct rusage from the kernel's figures. For the sys_*.cpp files.
#pragma once

#include "abi/resource.hpp"
#include "proc/task.hpp"

namespace cowbird {

abi::Rusage to_rusage(const ResourceUsage &usage);

}  // namespace cowbird
