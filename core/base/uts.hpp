// The names of uname(2): what the guest kernel calls itself, and the host and domain names that
// guests may set. Needs the big kernel lock.
#pragma once

#include <string>
#include <string_view>

namespace cowbird::uts {

inline constexpr std::string_view kSystem = "Linux";
// Programs compare this with the kernels they know; the interface is that of this Linux.
inline constexpr std::string_view kRelease = "6.1.0-cowbird";
inline constexpr std::string_view kMachine = "x86_64";
inline constexpr std::size_t kNameMax = 64;

// "#1 SMP COWBIRD 0.1.0"
std::string_view version();
const std::string &host_name();
const std::string &domain_name();
// At most kNameMax bytes; the caller has checked that.
void set_host_name(std::string name);
void set_domain_name(std::string name);

}  // namespace cowbird::uts
