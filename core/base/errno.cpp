#include "base/errno.hpp"

namespace cowbird {

std::string_view errno_name(Errno error) {
  switch (error) {
#define X(id, name, number, text) \
  case Errno::id:                 \
    return name;
    COWBIRD_ERRNO_LIST(X)
#undef X
  }
  return "E?";
}

std::string_view errno_text(Errno error) {
  switch (error) {
#define X(id, name, number, text) \
  case Errno::id:                 \
    return text;
    COWBIRD_ERRNO_LIST(X)
#undef X
  }
  return "Unknown error";
}

Errno errno_from_host(int host_errno) {
  if (host_errno <= 0 || host_errno >= 512) return Errno::Io;
  const auto candidate = static_cast<Errno>(host_errno);
  return errno_name(candidate) == "E?" ? Errno::Io : candidate;
}

}  // namespace cowbird
