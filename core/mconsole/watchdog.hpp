// /dev/watchdog (misc device 10:130). Opening it starts a process of the host, which must hear from
// the guest through a pipe at least every so many seconds; every write to the device is such a
// word. When it does not, it sends the notification "hang" to the socket of [machine] notify, or
// without one ends the guest: SIGTERM, and SIGKILL where that does not help. A 'V' in what was
// written before the last close stops the watchdog; without it, it goes on (and the next open finds
// it so). It does not count while the guest stands still (sched/freeze.hpp), nor while a debugger
// is attached to the program.
//
// The device is the kernel's part; big kernel lock.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace cowbird::mconsole {

// After devtmpfs is there. `seconds` is the timeout at first, `notify` the socket or empty.
Result<void> register_watchdog(std::uint32_t seconds, std::string notify);

}  // namespace cowbird::mconsole
