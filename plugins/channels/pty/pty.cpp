// The channel `pty`: the older name for a pseudoterminal of the host. With a device it is a BSD
// pseudoterminal, which few hosts still have; without one it is what `pts` is.
#include "pts/pts_channel.hpp"

namespace {

using cowbird::sdk::Config;
using cowbird::sdk::Error;
using cowbird::sdk::Host;

// /dev/pty[a-z][0-9a-f], of which the slave is /dev/tty[a-z][0-9a-f] (pty(7)).
std::string checked_device(const Config &config) {
  std::string device(config.text("device").value_or(""));
  const bool good = device.size() == sizeof "/dev/ptyXX" - 1 && device.rfind("/dev/pty", 0) == 0;
  if (!device.empty() && !good) {
    throw Error(EINVAL, "\"" + device +
                            "\" is no BSD pseudoterminal, which has a name such as /dev/ptyp0. "
                            "Leave \"device\" out to get a pseudoterminal /dev/pts/N.");
  }
  return device;
}

class Pty final : public channels::PtsChannel {
 public:
  Pty(const Host &host, const Config &config) : PtsChannel(host, "pty", checked_device(config)) {}
};

constexpr cowbird_key kKeys[] = {
    {"device", COWBIRD_KEY_STRING, 0, nullptr, 0, 0, nullptr,
     "BSD pseudoterminal /dev/ptyXX, where the host has them; without it as pts"},
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(Pty, "pty", "1.0", kKeys,
                       "as pts, or a BSD pseudoterminal where the host has them", "Apache-2.0",
                       COWBIRD_CHANNEL_CAP_TERMINAL | COWBIRD_CHANNEL_CAP_REMOTE);
