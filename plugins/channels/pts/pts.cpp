// The channel `pts`: a UNIX98 pseudoterminal of the host, allocated when the guest opens the
// device.
#include "pts/pts_channel.hpp"

namespace {

class Pts final : public channels::PtsChannel {
 public:
  Pts(const cowbird::sdk::Host &host, const cowbird::sdk::Config &) : PtsChannel(host, "pts", "") {}
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(Pts, "pts", "1.0", nullptr,
                       "a pseudoterminal of the host, for screen, minicom or another guest",
                       "Apache-2.0", COWBIRD_CHANNEL_CAP_TERMINAL | COWBIRD_CHANNEL_CAP_REMOTE);
