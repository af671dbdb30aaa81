// gdb has signal numbers of its own (GDB's include/gdb/signals.h is the protocol's reference): to
// and from those of Linux x86-64.
#pragma once

namespace cowbird::debug {

// Linux's number of gdb's; 0 when there is none (and for 0).
int signal_from_gdb(unsigned gdb);
// gdb's number of Linux's; 143 ("unknown") when there is none.
unsigned signal_to_gdb(int linux_number);

}  // namespace cowbird::debug
