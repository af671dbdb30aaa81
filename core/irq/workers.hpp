// The host worker threads behind run_blocking and submit. Of irq/ alone.
#pragma once

#include "base/result.hpp"

namespace cowbird::irq {

// Starts the first of them; fails when the host refuses threads.
Result<void> start_workers();
void stop_workers();

}  // namespace cowbird::irq
