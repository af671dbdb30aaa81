// epoll(7). Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <vector>

#include "abi/epoll.hpp"
#include "base/result.hpp"
#include "vfs/file.hpp"

namespace cowbird {

// epoll_create1(2).
Ref<File> make_epoll();
// epoll_ctl(2). `fd` and `target` name the watch. Inval when `epoll` is none, or watches itself;
// Exist, NoEnt, Loop (a circle of epolls, or too deep a chain), Perm (the target cannot be polled),
// NoSpc (too many watches).
Result<void> epoll_control(File &epoll, int operation, int fd, const Ref<File> &target,
                           abi::EpollEvent event);
// epoll_wait(2): at most `max` events. Sleeps until there is one or the deadline (guest monotonic
// ns) passes (then the result is empty). RestartNoHand becomes the caller's Intr: RestartSys when a
// signal interrupts.
Result<std::vector<abi::EpollEvent>> epoll_wait(File &epoll, std::size_t max,
                                                std::int64_t deadline_ns);
// The file goes: all watches on it go.
void epoll_forget(File &file);

}  // namespace cowbird
