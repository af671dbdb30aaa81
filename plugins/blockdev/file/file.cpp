// The block backend `file`: a raw image file or host block device.
#include <cowbird/blockdev.hpp>

#include "engine.hpp"
#include "image.hpp"

namespace {

using cowbird::sdk::BlockBackend;
using cowbird::sdk::Config;
using cowbird::sdk::Host;

class FileBackend final : public BlockBackend {
 public:
  FileBackend(const Host &host, const Config &config)
      : BlockBackend(host),
        image_(std::string(*config.text("path")), {.read_only = *config.boolean("readonly"),
                                                   .sync = *config.boolean("sync"),
                                                   .lock = *config.boolean("lock"),
                                                   .discard = *config.boolean("discard")}) {
    if (!*config.boolean("lock")) {
      host.log(COWBIRD_LOG_INFO, "not locking " + image_.path());
    } else if (!image_.locked()) {
      host.log(COWBIRD_LOG_WARNING, "the host cannot lock " + image_.path() +
                                        ": make sure that nothing else writes to it");
    }
    make_engine(*config.text("io"));
  }

  cowbird_block_info info() override {
    cowbird_block_info info{};
    info.read_only = image_.read_only();
    info.size = image_.size();
    info.block_size = image_.block_size();
    info.preferred_io = image_.preferred_io();
    info.queue_depth = 128;
    info.can_flush = image_.read_only() ? COWBIRD_SUPPORT_EMULATE : COWBIRD_SUPPORT_NATIVE;
    info.can_discard = image_.can_punch() ? COWBIRD_SUPPORT_NATIVE : COWBIRD_SUPPORT_NONE;
    // NO_UNMAP needs ZERO_RANGE; without it the host writes zeroes.
    info.can_write_zeroes = image_.can_zero() ? COWBIRD_SUPPORT_NATIVE : COWBIRD_SUPPORT_EMULATE;
    return info;
  }

  void submit(std::span<cowbird_block_request *const> requests) noexcept override {
    std::vector<cowbird_block_request *> known;
    known.reserve(requests.size());
    for (cowbird_block_request *request : requests) {
      if (request->operation >= COWBIRD_BLOCK_READ &&
          request->operation <= COWBIRD_BLOCK_WRITE_ZEROES) {
        known.push_back(request);
      } else {
        complete(request, -EOPNOTSUPP);
      }
    }
    if (!known.empty()) engine_->submit(known);
  }

  std::string describe() override {
    return (image_.is_device() ? "host block device " : "image ") + image_.path() +
           (image_.read_only() ? ", read-only, " : ", ") + engine_->name();
  }

 private:
  void make_engine(std::string_view kind) {
    const auto done = [this](cowbird_block_request *request, int status) {
      complete(request, status);
    };
    if (kind != "threads") {
      int why = 0;
      engine_ = make_uring_engine(host(), image_, done, why);
      if (engine_) return;
      if (kind == "io_uring") cowbird::sdk::throw_errno("The host refuses io_uring", why);
      host().log(COWBIRD_LOG_DEBUG, "the host refuses io_uring (" +
                                        std::string(std::strerror(why)) + "); using a thread");
    }
    engine_ = make_thread_engine(image_, done);
  }

  Image image_;
  std::unique_ptr<Engine> engine_;
};

constexpr cowbird_key kKeys[] = {
    {"path", COWBIRD_KEY_PATH, COWBIRD_KEY_REQUIRED, nullptr, 0, 0, nullptr,
     "the raw image file, or a host block device"},
    {"readonly", COWBIRD_KEY_BOOL, 0, "false", 0, 0, nullptr,
     "refuse writes; the file is opened for reading only"},
    {"sync", COWBIRD_KEY_BOOL, 0, "false", 0, 0, nullptr,
     "a write is on the host's disk when the guest is told that it is done (O_SYNC)"},
    {"lock", COWBIRD_KEY_BOOL, 0, "true", 0, 0, nullptr,
     "lock the image against other guests; false only for file systems of clusters"},
    {"discard", COWBIRD_KEY_BOOL, 0, "true", 0, 0, nullptr,
     "the guest's discards punch holes into the image, where the host can do it"},
    {"io", COWBIRD_KEY_ENUM, 0, "auto", 0, 0, "auto|io_uring|threads",
     "how the host does the work; auto: io_uring where it is allowed"},
};

}  // namespace

COWBIRD_BLOCK_PLUGIN(FileBackend, "file", "1.0", kKeys, "a raw image file or host block device",
                     "Apache-2.0", COWBIRD_BLOCK_CAP_WRITE);
