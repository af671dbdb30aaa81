// The commands of the management console that need the guest kernel. Of mconsole/ alone. Big kernel
// lock.
#pragma once

#include "mconsole/protocol.hpp"
#include "mconsole/server.hpp"

namespace cowbird::mconsole {

// These do not sleep; the irq thread runs them.
Answer stop_command();
Answer sysrq_command(char key);
// cad, go, stack and devices. `sleeps` is set, and nothing done, when it has to be
// kernel_command().
Answer quick_command(const CommandLine &line, bool &sleeps);

// On a kernel thread that is exempt from freezing: carries the command out and answers it. Does not
// return when the guest ends by it.
void kernel_command(const CommandLine &line, const Responder &responder);

}  // namespace cowbird::mconsole
