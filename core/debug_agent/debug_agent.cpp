#include "debug_agent/debug_agent.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.hpp"
#include "base/socket_peer.hpp"
#include "base/unique_fd.hpp"
#include "debug_agent/session.hpp"
#include "irq/irq.hpp"
#include "sched/wait.hpp"

namespace cowbird::debug_agent {
namespace {

// What a client may leave unread.
constexpr std::size_t kMaxOutput = 16 << 20;

// Everything but the watches' handlers runs on the thread kdebug. Big kernel lock.
class Agent {
 public:
  Result<void> start(const std::string &path);
  void stop();

 private:
  using Bytes = std::vector<std::byte>;

  void on_connection();  // irq thread
  void main();
  bool has_work() const;
  void serve();
  void receive();
  bool next_message(Header &header, Bytes &body);
  void send(const Bytes &message);
  void flush();
  void watch();
  void close_client();

  UniqueFd listener_, client_;
  std::unique_ptr<irq::FdWatch> listener_watch_, client_watch_;
  Ref<AgentThread> thread_;
  WaitQueue work_;
  std::unique_ptr<Session> session_;
  Bytes input_, output_;
  bool ready_ = false;  // the client's descriptor has something, or was just made
  bool gone_ = false;   // the client
};

// Never destroyed: the thread may stand in the middle of it when the process ends.
Agent *the_agent = nullptr;

Result<UniqueFd> listen_on(const std::string &path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return Err(Errno::NameTooLong);
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Err(errno_from_host(errno));
  ::unlink(path.c_str());
  // The mode of the socket before it has a name is that of its name.
  ::fchmod(fd.get(), 0600);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr *>(&address), sizeof(address)) != 0 ||
      ::listen(fd.get(), 4) != 0) {
    return Err(errno_from_host(errno));
  }
  return fd;
}

Result<void> Agent::start(const std::string &path) {
  listener_ = TRY(listen_on(path));
  listener_watch_ = TRY(irq::FdWatch::create("debug agent", listener_.get(), EPOLLIN,
                                             [this](std::uint32_t) { on_connection(); }));
  return {};
}

void Agent::stop() {
  listener_watch_.reset();
  client_watch_.reset();
  listener_.reset();
}

// A second client is told so and left.
void refuse_client(int fd) {
  const std::string words = "Another debugger is attached to this guest.";
  Header header;
  header.command = static_cast<std::uint16_t>(Command::Hello);
  header.error = static_cast<std::uint16_t>(Errno::Busy);
  header.size = static_cast<std::uint32_t>(words.size());
  std::array<char, 256> message;
  std::memcpy(message.data(), &header, sizeof(header));
  std::memcpy(message.data() + sizeof(header), words.data(), words.size());
  // Its buffer is empty, so this is sent or nobody is there.
  [[maybe_unused]] const auto sent =
      ::send(fd, message.data(), sizeof(header) + words.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Agent::on_connection() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  // The directory is closed to others already; this holds when somebody has opened it up.
  if (!fd.valid() || !peer_is_owner(fd.get(), "debug agent")) return;
  if (client_.valid()) {
    refuse_client(fd.get());
    return;
  }
  // The thread is made for the first client and stays.
  if (!thread_) {
    auto made = Ref<AgentThread>::adopt(new AgentThread);
    if (!made->prepare([this] { main(); })) return;
    thread_ = std::move(made);
    thread_->start();
  }
  // Once: the thread looks what there is, also when it is the end.
  auto watch =
      irq::FdWatch::create("debugger", fd.get(), EPOLLIN | EPOLLONESHOT, [this](std::uint32_t) {
        ready_ = true;
        work_.wake_all();
      });
  if (!watch) return;
  client_ = std::move(fd);
  client_watch_ = std::move(*watch);
}

bool Agent::has_work() const { return ready_ || (session_ && session_->has_stops()); }

void Agent::main() {
  for (;;) {
    static_cast<void>(wait_event(
        work_, [this] { return has_work(); }, SleepMode::Interruptible, "kdebug"));
    serve();
  }
}

void Agent::serve() {
  if (std::exchange(ready_, false)) receive();
  if (!session_ && !gone_) {
    session_ = std::make_unique<Session>(
        *thread_, [this](const Bytes &message) { send(message); }, [this] { work_.wake_all(); });
  }
  flush();
  Header header;
  for (Bytes body; !gone_ && next_message(header, body);) session_->handle(header, body);
  if (!gone_ && session_->has_stops()) session_->report_stops();
  flush();
  if (gone_) {
    close_client();
  } else {
    watch();
  }
}

void Agent::receive() {
  std::array<std::byte, 16384> buffer;
  // No more than one message of the largest kind before it is answered.
  while (input_.size() < kMaxBody + sizeof(Header)) {
    const ssize_t got = ::recv(client_.get(), buffer.data(), buffer.size(), 0);
    if (got > 0) {
      input_.insert(input_.end(), buffer.begin(), buffer.begin() + got);
    } else if (got == 0) {
      gone_ = true;
      return;
    } else if (errno != EINTR) {
      if (errno != EAGAIN) gone_ = true;
      return;
    }
  }
}

bool Agent::next_message(Header &header, Bytes &body) {
  const auto parsed = parse_header(input_);
  if (!parsed) {
    // Nothing that follows can be understood.
    if (!parsed.is(Errno::Again)) gone_ = true;
    return false;
  }
  header = *parsed;
  const std::size_t whole = sizeof(Header) + header.size;
  if (input_.size() < whole) return false;
  const auto begin = input_.begin() + sizeof(Header);
  const auto end = input_.begin() + static_cast<std::ptrdiff_t>(whole);
  body.assign(begin, end);
  input_.erase(input_.begin(), end);
  return true;
}

void Agent::send(const Bytes &message) {
  output_.insert(output_.end(), message.begin(), message.end());
  if (output_.size() > kMaxOutput) {
    log_warn("The debugger does not read what it asks for; it is disconnected.");
    gone_ = true;
  }
}

void Agent::flush() {
  while (!gone_ && !output_.empty()) {
    const ssize_t sent =
        ::send(client_.get(), output_.data(), output_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      output_.erase(output_.begin(), output_.begin() + sent);
    } else if (errno != EINTR) {
      if (errno != EAGAIN) gone_ = true;
      return;
    }
  }
}

void Agent::watch() {
  const std::uint32_t out = output_.empty() ? 0u : std::uint32_t{EPOLLOUT};
  if (!client_watch_->modify(EPOLLIN | EPOLLONESHOT | out)) gone_ = ready_ = true;
}

void Agent::close_client() {
  client_watch_.reset();
  session_.reset();
  input_.clear();
  output_.clear();
  client_.reset();
  gone_ = ready_ = false;
}

}  // namespace

Result<void> start(const std::string &socket_path) {
  KASSERT(the_agent == nullptr);
  auto *const agent = new Agent;
  if (const auto started = agent->start(socket_path); !started) {
    delete agent;
    return started;
  }
  the_agent = agent;
  return {};
}

void stop() {
  if (the_agent) the_agent->stop();
}

}  // namespace cowbird::debug_agent
