// Block backends that plugins offer.
#include <cowbird/blockdev.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "base/log.hpp"
#include "base/units.hpp"
#include "plugins/device.hpp"
#include "plugins/loaded_plugin.hpp"

namespace cowbird::plugins {
namespace {

static_assert(static_cast<int>(BlockOperation::Read) == COWBIRD_BLOCK_READ &&
              static_cast<int>(BlockOperation::Write) == COWBIRD_BLOCK_WRITE &&
              static_cast<int>(BlockOperation::Flush) == COWBIRD_BLOCK_FLUSH &&
              static_cast<int>(BlockOperation::Discard) == COWBIRD_BLOCK_DISCARD &&
              static_cast<int>(BlockOperation::WriteZeroes) == COWBIRD_BLOCK_WRITE_ZEROES);

constexpr std::uint64_t kDefaultMaxBytes = kGiB;
constexpr std::uint32_t kDefaultMaxIov = 1024;

class PluginBlock final : public BlockBackend, private DeviceClient {
 public:
  explicit PluginBlock(std::shared_ptr<cowbird_device> device)
      : device_(std::move(device)), ops_(device_->plugin->table<cowbird_block_ops>()) {
    device_->client = this;
  }
  ~PluginBlock() override {
    // With requests under way the plugin may still write to their buffers; it is left alone then.
    if (!pending_.empty()) {
      log_err("{}: given up with {} requests under way", device_->name, pending_.size());
    } else if (self_) {
      ops_.destroy(self_);
    }
    device_->shut_down();
  }

  int create() {
    int status = ops_.create(&host_table(), device_.get(), &device_->config, &self_);
    if (status != 0) self_ = nullptr;
    if (self_ && !refresh_info(device_->error_text)) status = -EINVAL;
    return status;
  }
  bool created() const { return self_ != nullptr; }

  const BlockInfo &info() const override { return info_; }
  void submit(std::span<BlockRequest *const> requests) override;
  void set_resize_listener(std::function<void()> listener) override {
    resize_listener_ = std::move(listener);
  }
  std::size_t in_flight() const override { return pending_.size(); }

  std::string describe() override {
    if (!ops_.describe) return device_->config.plugin.name;
    char text[256] = {};
    ops_.describe(self_, text, sizeof text);
    return std::string(text, strnlen(text, sizeof text));
  }

 private:
  struct Pending {
    cowbird_block_request raw;
    BlockRequest *request;
  };

  bool refresh_info(std::string &problem);
  bool acceptable(const BlockRequest &request) const;
  void on_complete(cowbird_block_request *raw, int status) override;
  void on_resized() override {
    std::string problem;
    if (!refresh_info(problem)) {
      log_err("{}: {}", device_->name, problem);
      return;
    }
    if (resize_listener_) resize_listener_();
  }

  const std::shared_ptr<cowbird_device> device_;
  const cowbird_block_ops &ops_;
  void *self_ = nullptr;
  BlockInfo info_;
  std::function<void()> resize_listener_;
  std::unordered_map<cowbird_block_request *, std::unique_ptr<Pending>> pending_;
};

BlockSupport support(std::uint32_t value) {
  return value == COWBIRD_SUPPORT_NATIVE    ? BlockSupport::Native
         : value == COWBIRD_SUPPORT_EMULATE ? BlockSupport::Emulate
                                            : BlockSupport::None;
}

bool PluginBlock::refresh_info(std::string &problem) {
  cowbird_block_info raw{};
  raw.struct_size = sizeof raw;
  if (const int status = ops_.get_info(self_, &raw); status != 0) {
    if (problem.empty()) {
      problem = fmt::format("The plugin's \"get_info\" failed with {}.",
                            errno_name(errno_from_host(-status)));
    }
    return false;
  }
  if (raw.block_size < 512 || raw.block_size > 65536 || !std::has_single_bit(raw.block_size) ||
      raw.size % raw.block_size != 0 || raw.size > INT64_MAX) {
    problem = fmt::format("The plugin answers a size of {} bytes in blocks of {}, which cannot be.",
                          raw.size, raw.block_size);
    return false;
  }
  info_.size = raw.size;
  info_.block_size = raw.block_size;
  info_.preferred_io = raw.preferred_io;
  info_.max_bytes =
      raw.max_bytes == 0 ? kDefaultMaxBytes : std::min(raw.max_bytes, kDefaultMaxBytes);
  info_.max_bytes =
      std::max<std::uint64_t>(info_.max_bytes & ~(raw.block_size - 1ull), raw.block_size);
  info_.max_iov = raw.max_iov == 0 ? kDefaultMaxIov : std::min(raw.max_iov, kDefaultMaxIov);
  info_.queue_depth = raw.queue_depth;
  info_.read_only = raw.read_only != 0;
  info_.can_flush = support(raw.can_flush);
  info_.can_discard = support(raw.can_discard);
  info_.can_write_zeroes = support(raw.can_write_zeroes);
  return true;
}

bool PluginBlock::acceptable(const BlockRequest &request) const {
  const bool data =
      request.operation == BlockOperation::Read || request.operation == BlockOperation::Write;
  std::uint64_t total = 0;
  for (const iovec &buffer : request.buffers) total += buffer.iov_len;
  if (request.operation == BlockOperation::Flush) return info_.can_flush == BlockSupport::Native;
  if (info_.read_only && request.operation != BlockOperation::Read) return false;
  if (request.operation == BlockOperation::Discard && info_.can_discard != BlockSupport::Native) {
    return false;
  }
  if (request.operation == BlockOperation::WriteZeroes &&
      info_.can_write_zeroes != BlockSupport::Native) {
    return false;
  }
  const std::uint64_t mask = info_.block_size - 1ull;
  return request.length > 0 && request.length <= info_.max_bytes &&
         ((request.offset | request.length) & mask) == 0 && request.offset <= info_.size &&
         request.length <= info_.size - request.offset &&
         (!data || (total == request.length && request.buffers.size() <= info_.max_iov));
}

void PluginBlock::submit(std::span<BlockRequest *const> requests) {
  std::vector<cowbird_block_request *> batch;
  batch.reserve(requests.size());
  for (BlockRequest *request : requests) {
    if (!acceptable(*request)) {
      device_->deliver([request] { request->done(Err(Errno::Inval)); });
      continue;
    }
    auto pending = std::make_unique<Pending>();
    pending->request = request;
    const bool data =
        request->operation == BlockOperation::Read || request->operation == BlockOperation::Write;
    pending->raw = {.struct_size = sizeof(cowbird_block_request),
                    .operation = static_cast<std::uint32_t>(request->operation),
                    .flags = (request->force_unit_access ? COWBIRD_BLOCK_FUA : 0) |
                             (request->no_unmap ? COWBIRD_BLOCK_NO_UNMAP : 0),
                    .iov_count = data ? static_cast<std::uint32_t>(request->buffers.size()) : 0,
                    .offset = request->offset,
                    .length = request->length,
                    .iov = data ? request->buffers.data() : nullptr,
                    .plugin_data = nullptr};
    batch.push_back(&pending->raw);
    pending_.emplace(&pending->raw, std::move(pending));
  }
  if (!batch.empty()) ops_.submit(self_, batch.data(), static_cast<std::uint32_t>(batch.size()));
}

void PluginBlock::on_complete(cowbird_block_request *raw, int status) {
  const auto node = pending_.extract(raw);
  if (node.empty()) {
    log_err("{}: the plugin \"{}\" completed a request that was not under way", device_->name,
            device_->config.plugin.name);
    return;
  }
  BlockRequest &request = *node.mapped()->request;
  const auto done = std::move(request.done);  // the request may be gone once it is done
  done(status < 0 ? Result<void>(Err(errno_from_host(-status))) : Result<void>());
}

}  // namespace

std::unique_ptr<BlockBackend> make_block(std::shared_ptr<LoadedPlugin> loaded,
                                         const PluginInfo &plugin, std::string device_name,
                                         const PluginConfig &config, HostEvents &events,
                                         PluginError &error) {
  return make_device<PluginBlock>(std::move(loaded), plugin, std::move(device_name), config, events,
                                  error);
}

}  // namespace cowbird::plugins
