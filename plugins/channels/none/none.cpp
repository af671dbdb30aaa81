// The channel `none`: a console that is not there. The guest's open fails with ENODEV.
#include <cowbird/channel.hpp>

namespace {

class NoneChannel final : public cowbird::sdk::Channel {
 public:
  NoneChannel(const cowbird::sdk::Host &host, const cowbird::sdk::Config &) : Channel(host) {}
  // Without a sentence: nothing is wrong, and a getty would have it logged again and again.
  void open() override { throw cowbird::sdk::Error(ENODEV, ""); }
  void close() noexcept override {}
  std::int64_t read(std::span<std::byte>) override { return -ENODEV; }
  std::int64_t write(std::span<const std::byte>) override { return -ENODEV; }
  std::string describe() override { return "none"; }
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(NoneChannel, "none", "1.0", nullptr,
                       "no device: the guest's open fails with ENODEV", "Apache-2.0", 0);
