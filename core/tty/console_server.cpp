#include "tty/console_server.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <list>
#include <vector>

#include "base/socket_peer.hpp"
#include "base/unique_fd.hpp"
#include "irq/irq.hpp"
#include "sched/clock.hpp"
#include "sched/timer.hpp"
#include "tty/console_protocol.hpp"
#include "tty/console_tap.hpp"

namespace cowbird::console_server {
namespace {

namespace wire = console_protocol;

// What waits for one client. Above the limit the line's output is held back.
constexpr std::size_t kQueueLimit = 256ul * 1024;
// Parts of the queue are sent by one call each.
constexpr std::size_t kQueuePart = 16ul * 1024;
// A full queue holds the line's output back until it is half empty: as long as the client takes
// anything at all within the first time, but not longer than the second.
constexpr std::int64_t kPatience = 500'000'000;
constexpr std::int64_t kLastPatience = 5'000'000'000;
// At the end of the guest, for all clients together.
constexpr int kFarewellMs = 200;
// A client that is let go may be in the middle of saying something. It is heard out, so long at
// most, as writing to a socket that is closed already would keep it from reading why.
constexpr std::int64_t kHearOut = 30'000'000'000;

// Bytes on their way to a client, in parts that begin with a frame.
class SendQueue {
 public:
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  void add(const std::vector<std::byte> &frames) {
    size_ += frames.size();
    if (parts_.empty() || parts_.back().size() + frames.size() > kQueuePart) {
      parts_.push_back(frames);
    } else {
      parts_.back().insert(parts_.back().end(), frames.begin(), frames.end());
    }
  }

  // Keeps what the client has seen the beginning of, so that the stream stays whole.
  void drop_unsent() {
    while (parts_.size() > (sent_ > 0 ? 1U : 0U)) {
      size_ -= parts_.back().size();
      parts_.pop_back();
    }
  }

  // False when the peer is gone.
  bool send_to(int fd) {
    while (!parts_.empty()) {
      const auto &part = parts_.front();
      const auto sent =
          ::send(fd, part.data() + sent_, part.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) return errno == EAGAIN || errno == EINTR;
      sent_ += static_cast<std::size_t>(sent);
      size_ -= static_cast<std::size_t>(sent);
      if (sent_ < part.size()) return true;
      parts_.pop_front();
      sent_ = 0;
    }
    return true;
  }

 private:
  std::deque<std::vector<std::byte>> parts_;
  std::size_t sent_ = 0;  // of the first part
  std::size_t size_ = 0;  // not sent yet
};

// A close with bytes that nobody has read makes the host tell the peer "reset", in place of the end
// of what was sent to it. After the shutdown no more of them can come.
void close_politely(UniqueFd fd) {
  if (!fd.valid()) return;
  ::shutdown(fd.get(), SHUT_RDWR);
  std::array<std::byte, 4096> unread;
  while (::recv(fd.get(), unread.data(), unread.size(), MSG_DONTWAIT) > 0) continue;
}

struct Client {
  Client() = default;
  Client(const Client &) = delete;
  Client &operator=(const Client &) = delete;
  ~Client() {
    watch.reset();
    close_politely(std::move(fd));
  }

  UniqueFd fd;
  std::unique_ptr<irq::FdWatch> watch;
  std::uint32_t watched = 0;
  wire::FrameReader reader;
  SendQueue queue;
  ConsoleTap *tap = nullptr;  // nullptr before Hello, and when it is being let go
  wire::WindowSize window;    // the last that it gave the line
  bool read_only = false;
  bool closing = false;                    // let go when it has the queue and closes its side
  bool gone = false;                       // nothing can be sent; the next sweep takes it away
  std::vector<std::byte> typed;            // what the line had no room for
  std::int64_t deadline_ns = kNoDeadline;  // of the full queue; later when some of it goes
  std::int64_t last_deadline_ns = kNoDeadline;
  std::int64_t heard_until_ns = kNoDeadline;  // when closing and the queue is empty
};

class Server final : public ConsoleObserver {
 public:
  Result<void> start(const std::filesystem::path &socket, std::string guest, std::string &error);
  void stop(std::string_view farewell);
  std::size_t attached(std::string_view device) const;

  // ConsoleObserver
  std::size_t output_room(ConsoleTap &tap) override;
  void output(ConsoleTap &tap, std::span<const std::byte> bytes) override;
  void input_room(ConsoleTap &tap) override;
  void window_size(ConsoleTap &, std::uint16_t, std::uint16_t) override {}
  void removed(ConsoleTap &tap) override;

 private:
  void accept_clients();
  void make_room();
  std::size_t count_clients(bool closing) const;
  void on_client(Client &client, std::uint32_t events);
  void receive(Client &client);
  void handle_frames(Client &client);
  void handle(Client &client, const wire::Frame &frame);
  void greet(Client &client, const wire::Frame &frame);
  void set_window(Client &client, wire::WindowSize size);
  void give_back_window(ConsoleTap &tap, wire::WindowSize left);
  std::string no_such_device(const std::string &name) const;
  void send(Client &client, const std::vector<std::byte> &frames);
  void send_more(Client &client);
  void let_go(Client &client, wire::FrameType type, std::string_view why);
  void leave_line(Client &client);
  // After sending or changing a client: what its socket is watched for, output that may go on.
  void settle(Client &client);
  void on_timer();
  void arm_timer();
  // Takes away the clients that are gone. Not while their list is walked.
  void sweep();
  void sweep_soon();

  std::string guest_;
  UniqueFd listener_;
  std::unique_ptr<irq::FdWatch> listener_watch_;
  std::list<Client> clients_;  // in the order of their coming
  Timer timer_{[this] { on_timer(); }};
  bool sweep_posted_ = false;
};

Server &server() {
  static Server *const instance = new Server;  // the taps may call until the process ends
  return *instance;
}

std::string host_error() { return std::strerror(errno); }

// --- starting and stopping

Result<void> Server::start(const std::filesystem::path &socket, std::string guest,
                           std::string &error) {
  const auto failed = [&](std::string_view what) -> Result<void> {
    const int code = errno;
    error =
        fmt::format("The console socket {} cannot be {}: {}.", socket.string(), what, host_error());
    return Err(errno_from_host(code));
  };
  guest_ = std::move(guest);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.native().size() + 4 >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return failed("made");
  }
  // It appears under its name when it listens already and others are kept out.
  const auto unready = std::filesystem::path(socket).replace_extension("new");
  std::ranges::copy(unready.native(), address.sun_path);
  listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener_.valid()) return failed("made");
  if (::bind(listener_.get(), reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0 ||
      ::chmod(unready.c_str(), 0600) != 0) {
    return failed("made");
  }
  if (::listen(listener_.get(), 2 * kMaxClients) != 0 ||
      ::rename(unready.c_str(), socket.c_str()) != 0) {
    return failed("listened on");
  }
  listener_watch_ = TRY(irq::FdWatch::create("console-server", listener_.get(), EPOLLIN,
                                             [this](std::uint32_t) { accept_clients(); }));
  set_console_observer(this);
  return {};
}

void Server::stop(std::string_view farewell) {
  set_console_observer(nullptr);
  listener_watch_.reset();
  listener_.reset();
  std::vector<pollfd> waiting;
  for (Client &client : clients_) {
    client.watch.reset();
    if (!client.closing) {
      std::vector<std::byte> frame;
      wire::append_frame(frame, wire::FrameType::HangUp, farewell);
      client.queue.add(frame);
    }
    if (!client.queue.send_to(client.fd.get())) continue;
    if (!client.queue.empty()) waiting.push_back({client.fd.get(), POLLOUT, 0});
  }
  // Those who read get the rest; one round of patience for all of them.
  const auto deadline = clock::monotonic_ns() + std::int64_t{kFarewellMs} * 1'000'000;
  while (!waiting.empty() && clock::monotonic_ns() < deadline &&
         ::poll(waiting.data(), waiting.size(), kFarewellMs) > 0) {
    waiting.clear();
    for (Client &client : clients_) {
      if (client.queue.empty() || !client.queue.send_to(client.fd.get())) continue;
      if (!client.queue.empty()) waiting.push_back({client.fd.get(), POLLOUT, 0});
    }
  }
  clients_.clear();
}

std::size_t Server::attached(std::string_view device) const {
  return static_cast<std::size_t>(std::ranges::count_if(
      clients_, [&](const Client &c) { return c.tap && c.tap->name() == device; }));
}

// --- clients come

void Server::accept_clients() {
  sweep();
  while (true) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) return;
    // The directory is closed to others already; this holds when somebody has opened it up.
    if (!peer_is_owner(fd.get(), "console server")) continue;
    make_room();
    Client &client = clients_.emplace_back();
    client.fd = std::move(fd);
    client.watched = EPOLLIN;
    auto watch =
        irq::FdWatch::create("console-client", client.fd.get(), EPOLLIN,
                             [this, &client](std::uint32_t events) { on_client(client, events); });
    if (!watch) {
      clients_.pop_back();
      continue;
    }
    client.watch = std::move(*watch);
    if (count_clients(false) > kMaxClients) {
      let_go(client, wire::FrameType::Refused,
             fmt::format("{} clients are attached to {} already; that is the limit.", kMaxClients,
                         guest_));
      settle(client);
    }
  }
}

std::size_t Server::count_clients(bool closing) const {
  return static_cast<std::size_t>(
      std::ranges::count_if(clients_, [&](const Client &c) { return c.closing == closing; }));
}

// Clients that say nothing give their place to a new one, and so do those that do not leave.
void Server::make_room() {
  if (count_clients(true) >= kMaxClients) {
    clients_.erase(std::ranges::find_if(clients_, [](const Client &c) { return c.closing; }));
  }
  if (count_clients(false) < kMaxClients) return;
  // Of many who come at once some have said who they are, and only were not heard yet.
  const auto silent = [](const Client &c) { return !c.closing && !c.gone && c.tap == nullptr; };
  for (Client &client : clients_) {
    if (!silent(client)) continue;
    receive(client);
    settle(client);
  }
  sweep();
  if (count_clients(false) < kMaxClients) return;
  const auto victim = std::ranges::find_if(clients_, silent);
  if (victim == clients_.end()) return;
  let_go(*victim, wire::FrameType::Refused,
         "The connection has not said which console it is for, and another one came.");
  settle(*victim);
}

// --- what clients say

void Server::on_client(Client &client, std::uint32_t events) {
  if (client.gone) return;
  if (events & EPOLLOUT) {
    send_more(client);
  }
  if (events & EPOLLIN) {
    receive(client);
  } else if (events & (EPOLLHUP | EPOLLERR)) {
    client.gone = true;
  }
  settle(client);
  sweep();
}

void Server::receive(Client &client) {
  std::array<std::byte, 4096> buffer;
  const auto got = ::recv(client.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
    client.gone = true;
    return;
  }
  if (got < 0 || client.closing) return;
  client.reader.feed(std::span(buffer).first(static_cast<std::size_t>(got)));
  handle_frames(client);
}

void Server::handle_frames(Client &client) {
  while (!client.closing && client.typed.empty()) {
    const auto frame = client.reader.next();
    if (!frame) break;
    if (client.tap) {
      handle(client, *frame);
    } else {
      greet(client, *frame);
    }
  }
  if (client.reader.bad() && !client.closing) {
    let_go(client, client.tap ? wire::FrameType::Dropped : wire::FrameType::Refused,
           "This is not the protocol of a console.");
  }
}

void Server::greet(Client &client, const wire::Frame &frame) {
  const auto refuse = [&](std::string_view why) { let_go(client, wire::FrameType::Refused, why); };
  const auto hello =
      frame.type == wire::FrameType::Hello ? wire::parse_hello(frame.payload) : std::nullopt;
  if (!hello || hello->magic != wire::kMagic)
    return refuse("This is not the protocol of a console.");
  if (hello->version != wire::kVersion) {
    return refuse(
        fmt::format("The guest's console server speaks version {} of the protocol, the client {}.",
                    wire::kVersion, hello->version));
  }
  const std::string name = hello->device.empty() ? "con0" : hello->device;
  ConsoleTap *const tap = find_or_make_console_tap(name);
  if (!tap) return refuse(no_such_device(name));
  client.tap = tap;
  client.read_only = hello->read_only;
  std::vector<std::byte> answer;
  wire::append_welcome(answer, {wire::kVersion, !tap->active(), tap->name(), guest_});
  wire::append_data(answer, tap->scrollback());
  send(client, answer);
  set_window(client, hello->window);
}

void Server::set_window(Client &client, wire::WindowSize size) {
  if (client.read_only || size.rows == 0 || size.columns == 0) return;
  client.window = size;
  client.tap->set_window_size(size.rows, size.columns);
}

std::string Server::no_such_device(const std::string &name) const {
  std::vector<std::string> names;
  for_each_console_tap([&](ConsoleTap &tap) { names.push_back(tap.name()); });
  if (names.empty()) return fmt::format("{} has no consoles.", guest_);
  return fmt::format("{} has no console {}; it has {}.", guest_, name, fmt::join(names, ", "));
}

void Server::handle(Client &client, const wire::Frame &frame) {
  if (frame.type == wire::FrameType::Window) {
    const auto size = wire::parse_window(frame.payload);
    if (size) set_window(client, *size);
    return;
  }
  if (frame.type != wire::FrameType::Data || client.read_only) {
    return let_go(client, wire::FrameType::Dropped,
                  client.read_only ? "A client that only watches cannot type."
                                   : "This is not the protocol of a console.");
  }
  // What the line has no room for waits, and the client's later words wait in its socket.
  const std::vector<std::byte> bytes(frame.payload.begin(), frame.payload.end());
  const std::size_t taken = client.tap->type(bytes);
  client.typed.assign(bytes.begin() + static_cast<std::ptrdiff_t>(taken), bytes.end());
}

// --- what goes to clients

void Server::send(Client &client, const std::vector<std::byte> &frames) {
  const bool at_once = client.queue.empty();
  client.queue.add(frames);
  // Else the socket is full, and is watched for room already.
  if (at_once && !client.queue.send_to(client.fd.get())) client.gone = true;
}

void Server::send_more(Client &client) {
  const std::size_t before = client.queue.size();
  if (!client.queue.send_to(client.fd.get())) client.gone = true;
  if (client.deadline_ns == kNoDeadline || client.queue.size() == before) return;
  client.deadline_ns = std::min(clock::monotonic_ns() + kPatience, client.last_deadline_ns);
}

void Server::let_go(Client &client, wire::FrameType type, std::string_view why) {
  client.queue.drop_unsent();
  std::vector<std::byte> frame;
  wire::append_frame(frame, type, why);
  client.closing = true;
  client.typed.clear();
  send(client, frame);
  leave_line(client);
}

void Server::leave_line(Client &client) {
  ConsoleTap *const tap = std::exchange(client.tap, nullptr);
  const bool held_back = std::exchange(client.deadline_ns, kNoDeadline) != kNoDeadline;
  if (tap && held_back) tap->resume_output();
  if (tap) give_back_window(*tap, std::exchange(client.window, {}));
}

// The window that goes had its size; those who stay get theirs again, the one who came last first.
void Server::give_back_window(ConsoleTap &tap, wire::WindowSize left) {
  if (left.rows == 0 || !tap.has_window_size(left.rows, left.columns)) return;
  const auto stays = std::find_if(clients_.rbegin(), clients_.rend(), [&](const Client &other) {
    return other.tap == &tap && !other.gone && other.window.rows != 0;
  });
  if (stays == clients_.rend()) return tap.restore_window_size();
  tap.set_window_size(stays->window.rows, stays->window.columns);
}

void Server::settle(Client &client) {
  const bool told = client.closing && client.queue.empty();
  if (told && client.heard_until_ns == kNoDeadline) {
    ::shutdown(client.fd.get(), SHUT_WR);
    client.heard_until_ns = clock::monotonic_ns() + kHearOut;
    arm_timer();
  }
  if (client.gone) {
    client.watch.reset();
    sweep_soon();
    leave_line(client);
    return;
  }
  const std::uint32_t wanted = (client.typed.empty() && (!client.closing || told) ? EPOLLIN : 0U) |
                               (client.queue.empty() ? 0U : EPOLLOUT);
  if (wanted != client.watched) {
    client.watched = wanted;
    if (!client.watch->modify(wanted)) client.gone = true;
  }
  if (client.deadline_ns != kNoDeadline && client.queue.size() <= kQueueLimit / 2) {
    client.deadline_ns = kNoDeadline;
    client.tap->resume_output();
  }
}

// --- ConsoleObserver

std::size_t Server::output_room(ConsoleTap &tap) {
  std::size_t room = SIZE_MAX;
  for (Client &client : clients_) {
    if (client.tap != &tap) continue;
    if (client.queue.size() < kQueueLimit && client.deadline_ns == kNoDeadline) continue;
    room = 0;
    if (client.deadline_ns != kNoDeadline) continue;
    const std::int64_t now = clock::monotonic_ns();
    client.deadline_ns = now + kPatience;
    client.last_deadline_ns = now + kLastPatience;
    arm_timer();
  }
  return room;
}

void Server::output(ConsoleTap &tap, std::span<const std::byte> bytes) {
  std::vector<std::byte> frames;
  for (Client &client : clients_) {
    if (client.tap != &tap) continue;
    if (frames.empty()) wire::append_data(frames, bytes);
    send(client, frames);
    settle(client);
  }
}

void Server::input_room(ConsoleTap &tap) {
  for (Client &client : clients_) {
    if (client.tap != &tap || client.typed.empty()) continue;
    const std::size_t taken = tap.type(client.typed);
    client.typed.erase(client.typed.begin(),
                       client.typed.begin() + static_cast<std::ptrdiff_t>(taken));
    if (client.typed.empty()) handle_frames(client);
    settle(client);
  }
}

void Server::removed(ConsoleTap &tap) {
  for (Client &client : clients_) {
    if (client.tap != &tap) continue;
    let_go(client, wire::FrameType::HangUp, fmt::format("{} was removed.", tap.name()));
    settle(client);
  }
}

// --- time

void Server::arm_timer() {
  std::int64_t next = kNoDeadline;
  for (const Client &client : clients_) {
    if (!client.gone) next = std::min({next, client.deadline_ns, client.heard_until_ns});
  }
  if (next == kNoDeadline) {
    timer_.cancel();
  } else if (!timer_.armed() || timer_.deadline_ns() != next) {
    timer_.arm(next);
  }
}

void Server::on_timer() {
  const std::int64_t now = clock::monotonic_ns();
  for (Client &client : clients_) {
    if (client.heard_until_ns <= now) {
      client.gone = true;
      settle(client);
    }
    if (client.gone || client.deadline_ns > now) continue;
    let_go(client, wire::FrameType::Dropped,
           "The connection was too slow for the console's output, and the guest does not wait.");
    settle(client);
  }
  arm_timer();
}

void Server::sweep() {
  std::erase_if(clients_, [](const Client &client) { return client.gone; });
}

// From within the terminal's output the list is being walked.
void Server::sweep_soon() {
  if (std::exchange(sweep_posted_, true)) return;
  irq::post([this] {
    sweep_posted_ = false;
    sweep();
  });
}

}  // namespace

Result<void> start(const std::filesystem::path &socket, std::string guest, std::string &error) {
  return server().start(socket, std::move(guest), error);
}

void stop(std::string_view farewell) { server().stop(farewell); }

std::size_t attached(std::string_view device) { return server().attached(device); }

}  // namespace cowbird::console_server
