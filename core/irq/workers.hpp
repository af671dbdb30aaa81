// The host worker threads behind run_blocking and submit. Of irq/ alone.
#pragma once

namespace cowbird::irq {

void start_workers();
void stop_workers();

}  // namespace cowbird::irq
