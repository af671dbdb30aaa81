// Events for inotify(7): the calls that the file layer makes where something happened, and the
// instances. Without any watch in the guest each call is one test of a counter. Needs the big
// kernel lock; nothing here sleeps.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/ref.hpp"
#include "base/result.hpp"

namespace cowbird {

class File;
class Inode;
struct Path;

namespace notify_detail {
extern std::uint64_t watch_count;
void name_event(Inode &directory, std::uint32_t mask, std::string_view name, bool is_directory,
                std::uint32_t cookie);
void inode_event(Inode &inode, std::uint32_t mask);
void file_event(File &file, std::uint32_t mask);
}  // namespace notify_detail

// Something happened to a name in `directory`. `cookie` pairs the two halves of a rename.
inline void notify_name(Inode &directory, std::uint32_t mask, std::string_view name,
                        bool is_directory, std::uint32_t cookie = 0) {
  if (notify_detail::watch_count)
    notify_detail::name_event(directory, mask, name, is_directory, cookie);
}
// Something happened to the inode itself (IN_ATTRIB, IN_DELETE_SELF, IN_MOVE_SELF).
inline void notify_inode(Inode &inode, std::uint32_t mask) {
  if (notify_detail::watch_count) notify_detail::inode_event(inode, mask);
}
// Something happened through an open file (IN_ACCESS, IN_MODIFY): its inode and its directory are
// told.
inline void notify_file(File &file, std::uint32_t mask) {
  if (notify_detail::watch_count) notify_detail::file_event(file, mask);
}
void notify_open(File &file);
void notify_close(File &file);
// As notify_file, where there is a path but no open file.
void notify_path(const Path &path, std::uint32_t mask);
std::uint32_t next_notify_cookie();

// inotify_init1(2): `flags` are open flags (O_NONBLOCK). MFile when the user has too many.
Result<Ref<File>> make_inotify(std::uint32_t flags);
Result<int> inotify_add_watch(File &inotify, const Path &path, std::uint32_t mask);
Result<void> inotify_remove_watch(File &inotify, int watch);

}  // namespace cowbird
