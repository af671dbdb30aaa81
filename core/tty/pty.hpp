// Pseudoterminals, pty(7): /dev/ptmx makes a pair of a master, which is an open file, and a
// terminal, its slave, which devpts shows as /dev/pts/N. Needs the big kernel lock.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.hpp"
#include "vfs/types.hpp"

namespace cowbird {

inline constexpr std::uint32_t kPtsMajor = 136;  // UNIX98_PTY_SLAVE_MAJOR
inline constexpr unsigned kMaxPtys = 4096;       // kernel.pty.max

// What devpts shows of a slave.
struct PtyInfo {
  unsigned index;
  std::uint32_t uid, gid;   // of who opened the master
  std::int64_t created_ns;  // guest's real-time clock
};
void for_each_pty(const std::function<void(const PtyInfo &)> &function);
// False when there is no such pair (any more).
bool find_pty(unsigned index, PtyInfo &out);

// Registers /dev/ptmx (5:2) and the slaves' numbers (136:N).
Result<void> register_pty_devices();

}  // namespace cowbird
