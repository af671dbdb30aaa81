// What uname(2) and /proc/version say. Needs the big kernel lock.
#pragma once

#include <string>

namespace cowbird {

inline constexpr const char *kUtsSysname = "Linux";
// The Linux version whose system calls are the measure; programs compare it.
inline constexpr const char *kUtsRelease = "6.12.0-cowbird";
inline constexpr const char *kUtsVersion = "#1 SMP Cowbird 0.1.0";
inline constexpr const char *kUtsMachine = "x86_64";
inline constexpr std::size_t kMaxHostname = 64;

// sethostname(2), setdomainname(2); boot/ sets the machine's name.
std::string &uts_hostname();
std::string &uts_domainname();

}  // namespace cowbird
