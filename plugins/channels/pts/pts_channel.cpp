#include "pts/pts_channel.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <array>
#include <cstdlib>

namespace channels {

using cowbird::sdk::Error;
using cowbird::sdk::throw_errno;

namespace {

constexpr std::int64_t kLookIntervalNs = 250'000'000;

// The modes of a master are its slave's.
int set_slave_modes(int master, bool raw) {
  termios modes;
  if (tcgetattr(master, &modes) != 0) return -errno;
  if (raw) {
    cfmakeraw(&modes);
  } else {
    modes.c_iflag |= ICRNL;
    modes.c_oflag |= OPOST | ONLCR;
    modes.c_lflag |= ICANON | ECHO | ISIG | IEXTEN;
  }
  return tcsetattr(master, TCSANOW, &modes) == 0 ? 0 : -errno;
}

}  // namespace

PtsChannel::PtsChannel(const cowbird::sdk::Host &host, std::string type, std::string bsd_master)
    : Channel(host),
      type_(std::move(type)),
      bsd_master_(std::move(bsd_master)),
      stream_(host, [this] { window_.stop(); }),
      window_(host) {}

void PtsChannel::open_unix98() {
  master_ = Descriptor(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!master_) throw_errno("The host gives no pseudoterminal");
  std::array<char, 128> name;
  if (grantpt(master_.get()) != 0 || unlockpt(master_.get()) != 0) {
    throw_errno("The host's pseudoterminal cannot be unlocked");
  }
  const int error = ptsname_r(master_.get(), name.data(), name.size());
  if (error != 0) throw_errno("The host's pseudoterminal has no name", error);
  slave_name_ = name.data();
}

void PtsChannel::open_bsd() {
  master_ = Descriptor(::open(bsd_master_.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!master_) {
    const int error = errno;
    if (error == ENOENT || error == ENXIO) {
      throw Error(error, "The host has no " + bsd_master_ +
                             ". Leave \"device\" out to get a pseudoterminal /dev/pts/N.");
    }
    throw_errno(bsd_master_ + " cannot be opened", error);
  }
  slave_name_ = "/dev/tty" + bsd_master_.substr(sizeof "/dev/pty" - 1);
}

void PtsChannel::open() {
  try {
    if (bsd_master_.empty()) {
      open_unix98();
    } else {
      open_bsd();
    }
    if (const int status = set_slave_modes(master_.get(), true); status != 0) {
      throw_errno("The host's pseudoterminal cannot be put in raw mode", -status);
    }
    // A slave side that nobody ever opened is not "closed" to the master; one that somebody has
    // closed is.
    const Descriptor opened(
        ::open(slave_name_.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    watch_slave();
  } catch (...) {
    close();
    throw;
  }
  host().log(COWBIRD_LOG_INFO, "attached to " + slave_name_);
}

void PtsChannel::watch_slave() {
  inotify_ = Descriptor(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  const bool watched =
      inotify_ && inotify_add_watch(inotify_.get(), slave_name_.c_str(), IN_OPEN | IN_CLOSE) >= 0 &&
      host().watch_fd(inotify_watch_, inotify_.get(), COWBIRD_WATCH_READABLE, [this](auto) {
        std::array<char, 4096> events;
        while (::read(inotify_.get(), events.data(), events.size()) > 0) continue;
        look_for_peer();
        window_.check();
      }) == 0;
  if (watched) return;
  inotify_.reset();
  const int status = host().add_timer(timer_, [this] { tick(); });
  if (status != 0) throw_errno("Nothing can be watched for " + slave_name_, -status);
  timer_.arm(kLookIntervalNs);
}

void PtsChannel::tick() {
  look_for_peer();
  timer_.arm(kLookIntervalNs);
}

void PtsChannel::look_for_peer() {
  if (stream_.connected()) return;
  pollfd slave{master_.get(), POLLIN, 0};
  if (poll(&slave, 1, 0) < 0) return;
  // Somebody has it open, or wrote something and has closed it again.
  if ((slave.revents & POLLHUP) && !(slave.revents & POLLIN)) return;
  try {
    window_.start(master_.get());
  } catch (const Error &error) {
    host().log(COWBIRD_LOG_WARNING, error.what());
  }
  stream_.connect(master_.get());
}

void PtsChannel::close() noexcept {
  inotify_watch_.reset();
  timer_.reset();
  inotify_.reset();
  window_.stop();
  stream_.stop();
  master_.reset();
  slave_name_.clear();
}

std::int64_t PtsChannel::read(std::span<std::byte> buffer) {
  const std::int64_t n = stream_.read(buffer);
  if (n > 0) window_.check();
  return n;
}

std::int64_t PtsChannel::write(std::span<const std::byte> data) {
  blind_looks_ = 0;
  return stream_.write(data);
}

// The slave side tells; what it has not read goes with the master.
std::int64_t PtsChannel::unread_by_peer() {
  const Descriptor slave(::open(slave_name_.c_str(), O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!slave) {
    // A peer that lets nobody else open it (TIOCEXCL) has a moment.
    constexpr int kBlindLooks = 10;
    return blind_looks_++ < kBlindLooks ? 1 : 0;
  }
  // It brings what is on its way to the slave there, which the host does in the background.
  pollfd arrived{slave.get(), POLLIN, 0};
  poll(&arrived, 1, 0);
  int unread = 0;
  return ioctl(slave.get(), FIONREAD, &unread) == 0 ? unread : 0;
}

std::int64_t PtsChannel::unsent() {
  if (!stream_.connected()) return 0;
  pollfd peer{master_.get(), 0, 0};
  if (poll(&peer, 1, 0) > 0) return 0;  // it has gone
  return stream_.unsent() + unread_by_peer();
}

int PtsChannel::set_window(const cowbird_window &window) {
  if (!master_) return -ENOTTY;
  return stream_.connected() ? window_.set(window) : set_terminal_window(master_.get(), window);
}

int PtsChannel::set_raw(bool raw) {
  return master_ ? set_slave_modes(master_.get(), raw) : -ENOTTY;
}

std::string PtsChannel::describe() {
  if (!bsd_master_.empty()) return type_ + ":" + bsd_master_;
  return master_ ? type_ + ":" + slave_name_ : type_;
}

}  // namespace channels
