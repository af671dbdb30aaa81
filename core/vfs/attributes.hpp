// Rules for changes of attributes that vfs/ shares with its files and system calls. Needs the big
// kernel lock; may sleep.
#pragma once

#include "base/result.hpp"
#include "vfs/inode.hpp"
#include "vfs/path.hpp"

namespace cowbird {

// The permission bits left after a write or a change of owner: without set-user-id, and without
// set-group-id where the group may execute.
std::uint32_t mode_without_set_id(const Inode &inode);
// Somebody writes: set-id bits go, unless the writer has CAP_FSETID. Called with inode.lock() held.
Result<void> drop_set_id(Inode &inode, const Credentials &credentials);
// utimensat(2) with both times "now": writers may do that too, not only the owner.
Result<void> touch_now(const Path &path, const Credentials &credentials);
// ftruncate(2) behind the checks of the descriptor: RLIMIT_FSIZE (FBig, SIGXFSZ), seals (Perm).
// Takes inode.lock().
Result<void> resize_inode(Inode &inode, std::uint64_t size, const Credentials &credentials);

}  // namespace cowbird
