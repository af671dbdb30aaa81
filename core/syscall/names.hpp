// The names of system calls, for everybody who shows them; no lock, any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace cowbird {

// The name of any x86-64 system call up to Linux 6.12, implemented or not; empty when there is
// none.
std::string_view syscall_name(std::uint64_t number);

}  // namespace cowbird
