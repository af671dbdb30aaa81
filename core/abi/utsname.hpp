// uname(2). Plain data.
#pragma once

namespace cowbird::abi {

struct Utsname {
  char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65];
};
static_assert(sizeof(Utsname) == 390);

}  // namespace cowbird::abi
