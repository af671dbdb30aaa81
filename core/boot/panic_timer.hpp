// The limit that a panic sets itself, should its report hang. Async-signal-safe, on the thread that
// panics.
#pragma once

namespace cowbird::boot {

// `hangs` is called on this thread, wherever it is, after some seconds; also when it is just being
// stopped.
void start_panic_timer(void (*hangs)());
void stop_panic_timer();

}  // namespace cowbird::boot
