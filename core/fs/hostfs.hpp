// hostfs: a directory of the host, shown in the guest. Mounted by the operator only (boot/): a
// guest can neither choose the directory nor leave it. Needs the big kernel lock; operations give
// it up around host calls.
//
// Confinement: every inode holds an O_PATH descriptor of its host object; names are single
// components and never followed on the host (O_NOFOLLOW, RESOLVE_BENEATH): symbolic links are
// handed to the guest, which resolves them in its own name space. Device nodes, fifos and sockets
// of the host appear with their type; opening one opens the guest's device or fifo of that kind,
// never the host's.
//
// Consistency: writes go through to the host at once; pages are cached for mmap. What the host
// changes is seen when the attributes are next looked at (open, stat).
#pragma once

#include <string>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "vfs/inode.hpp"

namespace cowbird {

struct HostfsOptions {
  bool read_only = false;
  std::string source;  // what /proc/mounts shows: the host's path
};

// `directory` is an open directory (O_PATH will do); taken over. NotDir when it is none.
Result<Ref<SuperBlock>> make_hostfs(UniqueFd directory, const HostfsOptions &options);

}  // namespace cowbird
