// The table of mounts. Of vfs/mount.cpp; the debugger reads it from outside.
#pragma once

#include <map>
#include <unordered_map>
#include <vector>

#include "vfs/mount.hpp"

namespace cowbird {

struct MountPointKey {
  const Mount *mount;
  const Dentry *dentry;
  bool operator==(const MountPointKey &) const = default;
};
struct MountPointHash {
  std::size_t operator()(const MountPointKey &key) const {
    return (reinterpret_cast<std::uintptr_t>(key.mount) * 31) ^
           (reinterpret_cast<std::uintptr_t>(key.dentry) >> 4);
  }
};

// The name space. Protected by the big kernel lock.
struct MountTable {
  std::vector<Ref<Mount>> all;  // attached mounts, in the order of mounting
  std::unordered_map<MountPointKey, Mount *, MountPointHash> by_point;
  // The mounts of a file system, attached or not, and its root.
  struct Use {
    unsigned mounts = 0;
    Ref<Dentry> root;
  };
  std::map<const SuperBlock *, Use> users;
  int next_id = 1;

  static MountTable *made;  // nullptr before the first mount
};

}  // namespace cowbird
