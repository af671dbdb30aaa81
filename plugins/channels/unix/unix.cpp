// The channel `unix`: a console on a stream socket of the host's file system, which the guest
// listens at or connects to.
#include <sys/stat.h>
#include <sys/un.h>

#include <cowbird/channel.hpp>
#include <deque>

#include "common/listener.hpp"
#include "common/peer_stream.hpp"

namespace {

using channels::Descriptor;
using cowbird::sdk::Channel;
using cowbird::sdk::Config;
using cowbird::sdk::Error;
using cowbird::sdk::Host;
using cowbird::sdk::throw_errno;

constexpr std::int64_t kRetryNs = 1'000'000'000;
constexpr std::int64_t kKeepNs = 5'000'000'000;
constexpr int kWaiting = 16;  // clients that wait for their turn; more are refused by the host

Descriptor make_socket() {
  Descriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) throw_errno("The host gives no socket");
  return fd;
}

sockaddr_un address_of(const std::string &path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

int connect_to(int fd, const std::string &path) {
  const sockaddr_un address = address_of(path);
  return connect(fd, reinterpret_cast<const sockaddr *>(&address), sizeof address) == 0 ? 0
                                                                                        : -errno;
}

class UnixChannel final : public Channel {
 public:
  UnixChannel(const Host &host, const Config &config);
  ~UnixChannel() override { stop_listening(); }

  void open() override;
  void close() noexcept override;
  std::int64_t read(std::span<std::byte> buffer) override { return stream_.read(buffer); }
  std::int64_t write(std::span<const std::byte> data) override { return stream_.write(data); }
  std::int64_t unsent() override { return stream_.unsent(); }
  std::string describe() override { return "unix:" + path_; }
  void emergency_restore() noexcept override {
    if (bound_) unlink(path_.c_str());
  }

 private:
  void listen_at();
  void stop_listening() noexcept;
  void remove_stale();
  void bind_private(const Descriptor &fd);
  channels::Arrival next_client();
  void take_client();
  void wait_for_client(bool refused);
  void try_connect();
  void on_gone();

  const std::string path_;
  const bool listens_;
  Descriptor listener_;
  std::deque<Descriptor> line_;  // clients that were there when the guest closed the device
  Descriptor peer_;
  channels::PeerStream stream_;
  channels::Doorbell clients_{host()};
  cowbird::sdk::Timer timer_;    // to connect again, or to send the line away
  volatile bool bound_ = false;  // the socket's file is ours; read by a crash handler
};

UnixChannel::UnixChannel(const Host &host, const Config &config)
    : Channel(host),
      path_(*config.text("path")),
      listens_(*config.text("mode") == "listen"),
      stream_(host, [this] { on_gone(); }) {
  if (path_.size() >= sizeof sockaddr_un::sun_path) {
    throw Error(ENAMETOOLONG, "\"" + path_ + "\" is too long for a socket: at most " +
                                  std::to_string(sizeof sockaddr_un::sun_path - 1) +
                                  " bytes (unix(7)).");
  }
}

void UnixChannel::open() {
  try {
    timer_.reset();
    if (listens_) {
      listen_at();
      take_client();
    } else {
      const int status = host().add_timer(timer_, [this] { try_connect(); });
      if (status != 0) throw_errno("There is no timer to connect with", -status);
      try_connect();
    }
  } catch (...) {
    close();
    throw;
  }
}

// A socket's file outlives who listened at it; one that nobody listens at any more is in the way.
void UnixChannel::remove_stale() {
  struct stat status;
  if (lstat(path_.c_str(), &status) != 0) return;
  if (!S_ISSOCK(status.st_mode)) {
    throw Error(EEXIST, path_ + " is there already and is no socket. Name another path.");
  }
  const Descriptor probe = make_socket();
  const int answer = connect_to(probe.get(), path_);
  if (answer != -ECONNREFUSED) {
    throw Error(EADDRINUSE, "Somebody listens at " + path_ + " already. Name another path.");
  }
  if (unlink(path_.c_str()) != 0) throw_errno("The stale socket " + path_ + " cannot be removed");
}

// For the user only, from the first moment on: who may write to the socket may use the console. The
// file gets the permissions that the descriptor had when it was bound (unix(7)).
void UnixChannel::bind_private(const Descriptor &fd) {
  if (fchmod(fd.get(), 0600) != 0) throw_errno("The socket's permissions cannot be set");
  const sockaddr_un address = address_of(path_);
  if (bind(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0) {
    throw_errno("The socket " + path_ + " cannot be made");
  }
  bound_ = true;
}

void UnixChannel::listen_at() {
  remove_stale();
  listener_ = make_socket();
  bind_private(listener_);
  if (listen(listener_.get(), kWaiting) != 0) throw_errno("Nobody can connect to " + path_);
  clients_.attach(listener_.get(), [this] { take_client(); });
}

void UnixChannel::stop_listening() noexcept {
  listener_.reset();
  if (bound_) unlink(path_.c_str());
  bound_ = false;
}

void UnixChannel::wait_for_client(bool refused) {
  if (clients_.wait(refused) != 0) {
    host().log(COWBIRD_LOG_ERROR, "no client of " + path_ + " can be seen");
  }
}

channels::Arrival UnixChannel::next_client() {
  while (!line_.empty()) {
    Descriptor first = std::move(line_.front());
    line_.pop_front();
    if (!channels::is_gone(first.get())) return {std::move(first)};
  }
  return channels::accept_client(listener_.get());
}

void UnixChannel::take_client() {
  if (!listener_ || stream_.connected()) return;
  auto [client, refused] = next_client();
  if (!client) return wait_for_client(refused);
  peer_ = std::move(client);
  stream_.connect(peer_.get());
}

void UnixChannel::try_connect() {
  try {
    peer_ = make_socket();
  } catch (const Error &) {
    return timer_.arm(kRetryNs);
  }
  const int status = connect_to(peer_.get(), path_);
  if (status == 0) return stream_.connect(peer_.get());
  peer_.reset();
  timer_.arm(kRetryNs);
}

void UnixChannel::on_gone() {
  channels::close_politely(std::move(peer_));
  if (!listens_) return timer_.arm(kRetryNs);
  if (line_.empty()) return wait_for_client(false);
  host().post([](void *self) { static_cast<UnixChannel *>(self)->take_client(); }, this);
}

void UnixChannel::close() noexcept {
  clients_.detach();
  timer_.reset();
  stream_.stop();
  channels::close_politely(std::move(peer_));
  // Between two sessions a getty closes and opens: who waits keeps the place meanwhile.
  while (listener_) {
    Descriptor client = channels::accept_client(listener_.get()).client;
    if (!client) break;
    line_.push_back(std::move(client));
  }
  stop_listening();
  if (!line_.empty() && host().add_timer(timer_, [this] { line_.clear(); }) == 0) {
    return timer_.arm(kKeepNs);
  }
  line_.clear();
}

constexpr cowbird_key kKeys[] = {
    {"path", COWBIRD_KEY_PATH, COWBIRD_KEY_REQUIRED, nullptr, 0, 0, nullptr, "the socket's path"},
    {"mode", COWBIRD_KEY_ENUM, 0, "listen", 0, 0, "listen|connect",
     "listen: make the socket and wait; connect: to one that is there"},
};

}  // namespace

COWBIRD_CHANNEL_PLUGIN(UnixChannel, "unix", "1.0", kKeys, "a stream socket in the file system",
                       "Apache-2.0", COWBIRD_CHANNEL_CAP_REMOTE);
