// A descriptor that only exists once code of the plugin has run, which the loader must not need.
#include <cowbird/plugin.h>

#include <cstdlib>

extern "C" {
__attribute__((visibility("default"))) cowbird_plugin cowbird_plugin_descriptor;
}

namespace {
const bool filled = [] {
  if (std::getenv("COWBIRD_TEST_MARK_RUN")) setenv("COWBIRD_TEST_WAS_RUN", "1", 1);
  cowbird_plugin_descriptor.magic = COWBIRD_PLUGIN_MAGIC;
  return true;
}();
}  // namespace
