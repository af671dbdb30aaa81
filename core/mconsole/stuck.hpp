// A look into a guest kernel whose big lock is not to be had: some thread of the host has been in
// kernel code for long, looping or waiting for the host. Its threads are interrupted, one by one,
// by a signal whose handler notes where each is, as Linux' NMI backtrace does. Of mconsole/ alone.
#pragma once

#include "mconsole/protocol.hpp"

namespace cowbird::mconsole {

// Where each vCPU and the irq thread are, symbolised; also goes to the log. Host threads only,
// without locks; one call at a time (the server's thread).
Answer describe_stuck_kernel();

}  // namespace cowbird::mconsole
