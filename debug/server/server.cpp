#include "debug/server/server.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

namespace cowbird::debug {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kReadSize = 64ul * 1024;
// The session is fed in small parts, so that many cheap requests cannot ask for endless answers at
// once.
constexpr std::size_t kFeedSize = 512;
constexpr std::size_t kMaxRefused = 8;
constexpr auto kRefusedTime = 5s;
// After the guest's end gdb may ask for this and that, and closes the connection at its own end.
// One that stays is cut after this.
constexpr auto kGraceAfterEnd = 60s;
// A gdb that does not take what a monitor command prints is given up.
constexpr auto kStreamTime = 10s;
constexpr std::string_view kBusy =
    "This guest has a debugger already: another gdb is connected. Detach that one first.";

// gdb's `target remote | command` gives the command a socket as its standard input and output.
bool is_socket(int fd) {
  int type = 0;
  socklen_t size = sizeof(type);
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

int milliseconds_until(std::chrono::steady_clock::time_point when) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(when - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
}

void set_up_connection(int fd) {
  const int on = 1;
  // They fail on a unix socket, which needs neither.
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

}  // namespace

std::unique_ptr<Server> Server::create(ListenAddress address, Target &target, Options options,
                                       std::string &why) {
  UniqueFd listener;
  if (address.kind != ListenAddress::Kind::Stdio) {
    listener = listen_on(address, why);
    if (!listener.valid()) return nullptr;
  }
  return std::unique_ptr<Server>(
      new Server(std::move(address), target, std::move(options), std::move(listener)));
}

Server::Server(ListenAddress address, Target &target, Options options, UniqueFd listener)
    : address_(std::move(address)),
      target_(target),
      options_(std::move(options)),
      listener_(std::move(listener)) {
  if (address_.kind == ListenAddress::Kind::Stdio) options_.once = true;
}

Server::~Server() {
  session_.reset();
  close_listener();
}

void Server::close_listener() {
  if (listener_.valid() && address_.kind == ListenAddress::Kind::Unix)
    ::unlink(address_.path.c_str());
  listener_.reset();
}

// The next guest may listen there, while this one's gdb still looks at what it was told.
void Server::guest_has_gone() {
  close_listener();
  if (end_by_ == Clock::time_point{}) end_by_ = Clock::now() + kGraceAfterEnd;
}

void Server::say(std::string_view words) const {
  if (options_.say) options_.say(words);
}

Server::End Server::run() {
  if (address_.kind == ListenAddress::Kind::Stdio) begin(STDIN_FILENO, STDOUT_FILENO);
  std::vector<pollfd> polls;
  for (;;) {
    if (wait(polls) < 0) return End::Failed;
    enum : std::size_t { kStop, kGuest, kListen, kTarget, kIn, kOut, kFirstRefused };
    const auto ready = [&](std::size_t i) { return polls[i].revents != 0; };
    if (ready(kStop)) {
      drop();
      return End::Stopped;
    }
    if (ready(kGuest)) {
      guest_gone_ = true;
      guest_has_gone();
      if (session_) session_->target_event();
    }
    if (guest_gone_ && !session_) return End::GuestEnded;
    for (std::size_t i = 0; i < refused_.size(); ++i)
      if (!serve_refused(refused_[i], ready(kFirstRefused + i))) refused_[i].fd.reset();
    std::erase_if(refused_, [](const Refused &r) { return !r.fd.valid(); });
    if (session_ && ready(kTarget)) session_->target_event();
    if (session_ && ready(kIn)) read_input();
    if (session_) feed();
    if (session_ && !send_some(session_->output())) gone_ = true;
    if (ready(kListen)) accept_one();
    if (!session_) continue;
    const bool ended = guest_gone_ || session_->guest_has_ended();
    if (ended) guest_has_gone();
    const bool said_all = session_->output().empty() && pending_.empty();
    const bool finished = session_->is_finished() && said_all;
    if (gone_ || finished || (ended && Clock::now() >= end_by_)) {
      if (finished && !gone_ && session_->could_not_attach()) let_read();
      drop();
      if (ended) return End::GuestEnded;
      if (options_.once) return End::GdbGone;
    }
  }
}

int Server::wait(std::vector<pollfd> &polls) {
  polls.clear();
  const bool room = session_ && session_->output().size() < Session::kMuchOutput;
  const auto add = [&](int fd, short events) { polls.push_back({fd, events, 0}); };
  add(options_.stop_fd, POLLIN);
  add(guest_gone_ ? -1 : options_.guest_fd, POLLIN);
  add(listener_.get(), POLLIN);
  add(session_ && session_->is_attached() ? target_.event_fd() : -1, POLLIN);
  add(room && pending_.empty() ? input_ : -1, POLLIN);
  add(session_ && !session_->output().empty() ? output_ : -1, POLLOUT);
  int timeout = end_by_ != Clock::time_point{} ? milliseconds_until(end_by_) : -1;
  if (room && !pending_.empty()) timeout = 0;
  for (const auto &refused : refused_) {
    add(refused.fd.get(), POLLIN);
    const int left = milliseconds_until(refused.deadline);
    timeout = timeout < 0 ? left : std::min(timeout, left);
  }
  int count = 0;
  do count = ::poll(polls.data(), polls.size(), timeout);
  while (count < 0 && errno == EINTR);
  return count;
}

void Server::accept_one() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd.valid()) return;  // gone again
  set_up_connection(fd.get());
  // One that has detached is in nobody's way, and may be the same gdb, which keeps its connection
  // until the next one stands.
  if (session_ && session_->has_let_go()) drop();
  if (!session_) {
    const int number = fd.get();
    connection_ = std::move(fd);
    begin(number, number);
    return;
  }
  if (refused_.size() >= kMaxRefused) return;
  say("A second gdb was refused: one is connected.");
  refused_.push_back(
      {std::move(fd), PacketReader(Session::kPacketSize), false, Clock::now() + kRefusedTime});
}

void Server::begin(int input, int output) {
  input_ = input;
  output_ = output;
  is_socket_ = is_socket(input) && is_socket(output);
  gone_ = false;
  pending_.clear();
  session_ = std::make_unique<Session>(
      target_, [this](std::string &data) { return send_streaming(data); }, options_.trace);
}

void Server::drop() {
  const bool was_attached = session_ && session_->is_attached();
  session_.reset();
  connection_.reset();
  input_ = output_ = -1;
  if (was_attached) say("gdb has gone; the guest runs on.");
}

// gdb acknowledges the words of a refusal before it shows them, and shows none when that fails:
// the connection stays until it closes, or has had its time.
void Server::let_read() const {
  if (!is_socket_) return;
  ::shutdown(output_, SHUT_WR);
  const auto by = Clock::now() + kRefusedTime;
  std::array<char, 1024> buffer;
  for (;;) {
    std::array<pollfd, 2> polls{{{input_, POLLIN, 0}, {options_.stop_fd, POLLIN, 0}}};
    const int left = milliseconds_until(by);
    if (left <= 0 || ::poll(polls.data(), polls.size(), left) <= 0 || polls[1].revents != 0) return;
    if (::recv(input_, buffer.data(), buffer.size(), 0) <= 0) return;
  }
}

void Server::read_input() {
  std::array<char, kReadSize> buffer;
  const auto got = is_socket_ ? ::recv(input_, buffer.data(), buffer.size(), 0)
                              : ::read(input_, buffer.data(), buffer.size());
  if (got > 0)
    pending_.append(buffer.data(), static_cast<std::size_t>(got));
  else if (got == 0 || (errno != EAGAIN && errno != EINTR))
    gone_ = true;
}

void Server::feed() {
  std::size_t used = 0;
  while (used < pending_.size() && session_->output().size() < Session::kMuchOutput &&
         !session_->is_finished()) {
    const auto part = std::string_view(pending_).substr(used, kFeedSize);
    session_->receive(part);
    used += part.size();
  }
  if (session_->is_finished())
    pending_.clear();
  else
    pending_.erase(0, used);
  session_->target_event();  // what was resumed may have stopped again
}

// Takes from the front of `data` what goes out without waiting. False: gdb has gone.
bool Server::send_some(std::string &data) {
  std::size_t sent = 0;
  while (sent < data.size()) {
    ssize_t done = 0;
    if (is_socket_) {
      done = ::send(output_, data.data() + sent, data.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {  // a pipe that poll(2) calls writable takes this much
      pollfd room{output_, POLLOUT, 0};
      if (::poll(&room, 1, 0) != 1) break;
      done =
          ::write(output_, data.data() + sent, std::min<std::size_t>(data.size() - sent, PIPE_BUF));
    }
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && errno == EAGAIN) break;
    if (done < 0) return false;
    sent += static_cast<std::size_t>(done);
  }
  data.erase(0, sent);
  return true;
}

bool Server::send_streaming(std::string &data) {
  const auto deadline = Clock::now() + kStreamTime;
  for (;;) {
    if (gone_ || !send_some(data)) {
      gone_ = true;
      return false;
    }
    if (data.size() < Session::kMuchOutput) return true;
    pollfd room{output_, POLLOUT, 0};
    if (::poll(&room, 1, milliseconds_until(deadline)) == 0) {
      gone_ = true;
      return false;
    }
  }
}

bool Server::serve_refused(Refused &refused, bool readable) {
  if (Clock::now() >= refused.deadline) return false;
  if (!readable) return true;
  std::array<char, 1024> buffer;
  const auto got = ::recv(refused.fd.get(), buffer.data(), buffer.size(), 0);
  if (got <= 0) return got < 0 && (errno == EAGAIN || errno == EINTR);
  for (const char c : std::span(buffer.data(), static_cast<std::size_t>(got))) {
    const auto event = refused.reader.push(static_cast<unsigned char>(c));
    if (event != PacketReader::Event::Packet || refused.answered) continue;
    refused.answered = true;
    const auto words = Session::refusal(kBusy);
    (void)::send(refused.fd.get(), words.data(), words.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    ::shutdown(refused.fd.get(), SHUT_WR);  // gdb reads the words, then the end
  }
  return true;
}

}  // namespace cowbird::debug
