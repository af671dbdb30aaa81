#include "base/uts.hpp"

#ifndef COWBIRD_VERSION
#error "COWBIRD_VERSION is defined by the build"
#endif

namespace cowbird::uts {
namespace {

struct Names {
  std::string host = "cowbird";
  std::string domain = "(none)";
};
Names &names() {
  static Names instance;
  return instance;
}

}  // namespace

std::string_view version() { return "#1 SMP COWBIRD " COWBIRD_VERSION; }
const std::string &host_name() { return names().host; }
const std::string &domain_name() { return names().domain; }
void set_host_name(std::string name) { names().host = std::move(name); }
void set_domain_name(std::string name) { names().domain = std::move(name); }

}  // namespace cowbird::uts
