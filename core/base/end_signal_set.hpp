// The signals that end a program unless it says otherwise (signal(7)), for those who have something
// to put right before. Anyone may ask.
#pragma once

#include <csignal>

namespace cowbird {

// Real-time signals among them. Not those of faults, nor SIGPIPE and SIGXFSZ, which say that the
// host refuses a write, nor SIGKILL.
sigset_t end_signal_set();

}  // namespace cowbird
