// procfs, proc(5): the process directories, the system files and /proc/sys. Every figure is read
// from the kernel when the file is; what this kernel does not know has no file or field. Needs the
// big kernel lock.
#pragma once

#include <string>

#include "base/ref.hpp"
#include "fs/pseudo_fs.hpp"

namespace cowbird {

class SuperBlock;

// Registers the file system. `command_line` is what /proc/cmdline shows; `more` are files of other
// parts of the kernel.
void register_procfs(const std::string &command_line, PseudoEntries more = {});
// The one instance, for mounting.
Ref<SuperBlock> procfs_superblock();

}  // namespace cowbird
