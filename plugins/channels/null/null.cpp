// The channel `null`: a console that nobody sits at. Reads never have anything, output vanishes.
#include <cowbird/channel.hpp>

namespace {

class NullChannel final : public cowbird::sdk::Channel {
 public:
  NullChannel(const cowbird::sdk::Host &host, const cowbird::sdk::Config &) : Channel(host) {}
  void open() override {}
  void close() noexcept override {}
  // Silence, not end of file: a guest program that reads just waits.
  std::int64_t read(std::span<std::byte>) override { return -EAGAIN; }
  std::int64_t write(std::span<const std::byte> data) override {
    return static_cast<std::int64_t>(data.size());
  }
  std::string describe() override { return "null"; }
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(NullChannel, "null", "1.0", nullptr, "no input ever, output is dropped",
                       "Apache-2.0", 0);
