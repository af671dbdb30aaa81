#include "plugins/device.hpp"

#include <pthread.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/log.hpp"

using cowbird::Errno;
using cowbird::MutexLock;

cowbird_device::~cowbird_device() = default;

void cowbird_device::run_event(const std::function<void()> &callback) {
  const auto self = shared_from_this();
  if (!alive()) return;
  event_thread_.store(pthread_self(), std::memory_order_relaxed);
  callback();
  event_thread_.store({}, std::memory_order_relaxed);
  while (!deferred_.empty()) {
    auto functions = std::move(deferred_);
    deferred_.clear();
    for (const auto &function : functions) {
      if (alive()) function();
    }
  }
}

void cowbird_device::deliver(std::function<void()> function) {
  if (event_thread_.load(std::memory_order_relaxed) == pthread_self()) {
    deferred_.push_back(std::move(function));
  } else {
    enqueue(std::move(function));
  }
}

void cowbird_device::enqueue(std::function<void()> function) {
  bool first;
  {
    MutexLock lock(inbox_lock_);
    first = inbox_.empty();
    inbox_.push_back(std::move(function));
  }
  if (!first) return;
  events.post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->drain();
  });
}

void cowbird_device::drain() {
  std::vector<std::function<void()>> functions;
  {
    MutexLock lock(inbox_lock_);
    functions.swap(inbox_);
  }
  for (const auto &function : functions) {
    if (alive()) function();
  }
}

void cowbird_device::shut_down() {
  alive_.store(false, std::memory_order_release);
  if (!watches.empty() || !timers.empty()) {
    cowbird::log_warn("{}: the plugin \"{}\" left {} watches and {} timers behind", name,
                      config.plugin.name, watches.size(), timers.size());
  }
  timers.clear();
  watches.clear();
}

namespace cowbird::plugins {
namespace {

void service_log(cowbird_device *device, int level, const char *text) {
  constexpr std::size_t kLongest = 900;
  const int clamped = std::clamp(level, COWBIRD_LOG_ERROR + 0, COWBIRD_LOG_DEBUG + 0);
  klog(static_cast<LogLevel>(clamped), "{}: {}", device->name,
       std::string_view(text, strnlen(text, kLongest)));
}

void service_set_error(cowbird_device *device, const char *text) { device->error_text = text; }

// 0 and the value, -ENOENT or -EINVAL, as the header says.
template <typename T>
int config_value(const cowbird_config *config, const char *name,
                 std::initializer_list<KeyType> types, const T *&out) {
  const KeySchema *key = config->plugin.find_key(name);
  if (!key || std::find(types.begin(), types.end(), key->type) == types.end()) return -EINVAL;
  const auto found = config->config.values.find(name);
  if (found == config->config.values.end()) return -ENOENT;
  out = std::get_if<T>(&found->second);
  return out ? 0 : -EINVAL;
}

int service_config_string(const cowbird_config *config, const char *key, const char **out) {
  const std::string *value = nullptr;
  const int status = config_value(
      config, key, {KeyType::String, KeyType::Enum, KeyType::Path, KeyType::Mac, KeyType::Address},
      value);
  if (status == 0) *out = value->c_str();
  return status;
}

int service_config_int(const cowbird_config *config, const char *key, std::int64_t *out) {
  const std::int64_t *value = nullptr;
  const int status = config_value(config, key, {KeyType::Int}, value);
  if (status == 0) *out = *value;
  return status;
}

int service_config_size(const cowbird_config *config, const char *key, std::uint64_t *out) {
  const std::int64_t *value = nullptr;
  const int status = config_value(config, key, {KeyType::Size}, value);
  if (status == 0) *out = static_cast<std::uint64_t>(*value);
  return status;
}

int service_config_bool(const cowbird_config *config, const char *key, int *out) {
  const bool *value = nullptr;
  const int status = config_value(config, key, {KeyType::Bool}, value);
  if (status == 0) *out = *value ? 1 : 0;
  return status;
}

int service_config_mac(const cowbird_config *config, const char *key, std::uint8_t out[6]) {
  const std::string *value = nullptr;
  const int status = config_value(config, key, {KeyType::Mac}, value);
  if (status != 0) return status;
  for (std::size_t i = 0; i < 6; ++i) {
    out[i] = static_cast<std::uint8_t>(std::stoul(value->substr(i * 3, 2), nullptr, 16));
  }
  return 0;
}

int add_watch(cowbird_device *device, std::unique_ptr<SignalDescriptor> signal, int fd,
              std::uint32_t host_events, std::function<void(std::uint32_t)> callback,
              cowbird_watch **out) {
  auto host_watch = device->events.add_fd(
      device->name, fd, host_events,
      [weak = device->weak_from_this(), callback = std::move(callback)](std::uint32_t events) {
        // Copies: the watch, and with it this function, may be removed by the callback.
        const auto self = weak.lock();
        const auto call = callback;
        if (self) self->run_event([&] { call(events); });
      });
  if (!host_watch) return -static_cast<int>(host_watch.error());
  auto watch = std::make_unique<cowbird_watch>(
      cowbird_watch{*device, std::move(signal), std::move(*host_watch)});
  *out = watch.get();
  device->watches.emplace(watch.get(), std::move(watch));
  return 0;
}

static_assert(COWBIRD_WATCH_READABLE == EPOLLIN && COWBIRD_WATCH_WRITABLE == EPOLLOUT &&
              COWBIRD_WATCH_ERROR == EPOLLERR && COWBIRD_WATCH_HANGUP == EPOLLHUP &&
              COWBIRD_WATCH_PEER_CLOSED == EPOLLRDHUP);
constexpr std::uint32_t kWatchEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP;

int service_fd_add(cowbird_device *device, int fd, std::uint32_t events,
                   cowbird_fd_callback callback, void *user, cowbird_watch **out) {
  return add_watch(
      device, nullptr, fd, events & kWatchEvents,
      [callback, user](std::uint32_t happened) { callback(user, happened); }, out);
}

int service_fd_modify(cowbird_watch *watch, std::uint32_t events) {
  const auto modified = watch->host_watch->modify(events & kWatchEvents);
  return modified ? 0 : -static_cast<int>(modified.error());
}

void service_fd_remove(cowbird_watch *watch) {
  // Taken out first: destroying the watch may not find itself in the map.
  auto &watches = watch->device.watches;
  const auto node = watches.extract(watch);
}

int service_signal_add(cowbird_device *device, std::uint32_t signal, cowbird_callback callback,
                       void *user, cowbird_watch **out) {
  auto descriptor = SignalDescriptor::create(signal);
  if (!descriptor) return -static_cast<int>(descriptor.error());
  SignalDescriptor *source = descriptor->get();
  return add_watch(
      device, std::move(*descriptor), source->fd(), EPOLLIN,
      [source, callback, user](std::uint32_t) {
        if (source->consume()) callback(user);
      },
      out);
}

int service_timer_add(cowbird_device *device, cowbird_callback callback, void *user,
                      cowbird_timer **out) {
  auto host_timer = device->events.add_timer([weak = device->weak_from_this(), callback, user] {
    const auto self = weak.lock();
    const auto call = callback;
    void *const argument = user;
    if (self) self->run_event([&] { call(argument); });
  });
  auto timer = std::make_unique<cowbird_timer>(cowbird_timer{*device, std::move(host_timer)});
  *out = timer.get();
  device->timers.emplace(timer.get(), std::move(timer));
  return 0;
}

void service_timer_arm(cowbird_timer *timer, std::int64_t delay_ns) {
  const std::int64_t now = timer->device.events.now_ns();
  const std::int64_t delay = std::max<std::int64_t>(delay_ns, 0);
  timer->host_timer->arm(delay > INT64_MAX - now ? INT64_MAX : now + delay);
}

void service_timer_cancel(cowbird_timer *timer) { timer->host_timer->cancel(); }

void service_timer_remove(cowbird_timer *timer) {
  const auto node = timer->device.timers.extract(timer);
}

std::int64_t service_now_ns(cowbird_device *device) { return device->events.now_ns(); }

int service_post(cowbird_device *device, cowbird_callback callback, void *user) {
  if (!device->alive()) return -ENODEV;
  device->enqueue([device, callback, user] { device->run_event([&] { callback(user); }); });
  return 0;
}

void service_notify(cowbird_device *device, std::uint32_t events) {
  device->deliver([device, events] { device->client->on_notify(events); });
}

void service_block_complete(cowbird_device *device, cowbird_block_request *request, int status) {
  device->deliver([device, request, status] { device->client->on_complete(request, status); });
}

void service_block_resized(cowbird_device *device) {
  device->deliver([device] { device->client->on_resized(); });
}

const char *service_device_name(cowbird_device *device) { return device->name.c_str(); }

constexpr cowbird_host kHost = {
    .struct_size = sizeof(cowbird_host),
    .abi_version = COWBIRD_ABI_VERSION,
    .host_version = COWBIRD_VERSION,
    .log = service_log,
    .set_error = service_set_error,
    .config_string = service_config_string,
    .config_int = service_config_int,
    .config_size = service_config_size,
    .config_bool = service_config_bool,
    .config_mac = service_config_mac,
    .fd_add = service_fd_add,
    .fd_modify = service_fd_modify,
    .fd_remove = service_fd_remove,
    .signal_add = service_signal_add,
    .timer_add = service_timer_add,
    .timer_arm = service_timer_arm,
    .timer_cancel = service_timer_cancel,
    .timer_remove = service_timer_remove,
    .now_ns = service_now_ns,
    .post = service_post,
    .channel_notify = service_notify,
    .block_complete = service_block_complete,
    .block_resized = service_block_resized,
    .transport_notify = service_notify,
    .device_name = service_device_name,
};

}  // namespace

const cowbird_host &host_table() { return kHost; }

bool check_created(cowbird_device &device, int status, bool created, PluginError &error) {
  if (status == 0 && created) {
    device.error_text.clear();
    error = {};
    return true;
  }
  const std::string &plugin = device.config.plugin.name;
  std::string why = device.error_text;
  if (why.empty()) {
    why = status < 0
              ? fmt::format("The plugin says only: {}.", errno_text(errno_from_host(-status)))
              : fmt::format("The plugin's \"create\" answered {} without a device.", status);
  }
  error = {PluginFault::CreateFailed, fmt::format("{} ({}): {}", device.name, plugin, why)};
  return false;
}

}  // namespace cowbird::plugins
