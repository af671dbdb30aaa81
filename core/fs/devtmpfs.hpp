// devtmpfs: the file system of device nodes that the kernel keeps (mounted on /dev), and the
// devices that are in every kernel: null, zero, full, random, urandom, kmsg. There is one instance;
// nodes come and go with the devices. Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "sched/wait.hpp"
#include "vfs/inode.hpp"

namespace cowbird {

// Registers the file system type. Called once at boot, before anything adds a node.
Result<void> init_devtmpfs();
// The one instance, for mounting.
Ref<SuperBlock> devtmpfs_superblock();

// Adds or removes a node. `mode` has the type (character or block device) and the permissions.
// Sleeps.
Result<void> devtmpfs_add(std::string_view name, std::uint32_t mode, DeviceNumber number);
// A guest may have put something of its own in the node's place: that stays, and NoEnt is the
// answer.
Result<void> devtmpfs_remove(std::string_view name, std::uint32_t mode, DeviceNumber number);
Result<void> devtmpfs_symlink(std::string_view name, std::string_view target);

// Registers null, zero, full, random, urandom and kmsg (major 1), and their nodes.
Result<void> register_memory_devices();
// tty, console, ptmx and the places of pts and shm, and the links fd, stdin, stdout, stderr. Nodes
// of lines are their drivers' (devices/).
Result<void> add_terminal_nodes();
// /dev/ubdX: registers the major number and follows the registry of block devices.
Result<void> register_block_nodes();

// Readers of /dev/kmsg (and syslog(2)) wait here; woken by boot's log sink.
WaitQueue &kmsg_wait_queue();

}  // namespace cowbird
