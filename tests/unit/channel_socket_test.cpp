// The channels unix and port, with clients made of bare sockets. tests/e2e/consoles.py has the real
// telnet and nc.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "unit/channel_support.hpp"

using namespace cowbird;
using namespace cowbird::test;
using Catch::Matchers::Contains;

namespace {

using Fixture = ChannelFixture;

std::string last_log() { return log_tail(1).at(0).text; }

UniqueFd unix_client(const std::string &path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (connect(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof address) != 0) return {};
  return fd;
}

UniqueFd tcp_client(int port, int family = AF_INET) {
  UniqueFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(static_cast<std::uint16_t>(port));
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = v4.sin_port;
  v6.sin6_addr = in6addr_loopback;
  const int status = family == AF_INET
                         ? connect(fd.get(), reinterpret_cast<sockaddr *>(&v4), sizeof v4)
                         : connect(fd.get(), reinterpret_cast<sockaddr *>(&v6), sizeof v6);
  if (status != 0) return {};
  fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  return fd;
}

// A port that nobody has: the host is asked for one.
int free_port() {
  UniqueFd fd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_any;
  socklen_t size = sizeof address;
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr *>(&address), size) == 0);
  REQUIRE(getsockname(fd.get(), reinterpret_cast<sockaddr *>(&address), &size) == 0);
  return ntohs(address.sin6_port);
}

bool closed(ChannelFixture &fixture, int fd) {
  return fixture.events.run_until([&] {
    char byte;
    const ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
  });
}

const std::string kGreeting =
    "\xff\xfb\x01\xff\xfb\x03\xff\xfd\x03\xff\xfd\x1f\xff\xfb" + std::string("\0\xff\xfd\0", 4);

}  // namespace

TEST_CASE_METHOD(Fixture, "unix: one client at a time, the others wait") {
  Scratch scratch;
  const std::string path = (scratch.path / "con.sock").string();
  const auto channel = make("unix", {{"path", path}});
  REQUIRE(channel);
  CHECK(channel->describe() == "unix:" + path);
  CHECK_FALSE(std::filesystem::exists(path));
  open(*channel);
  struct stat status;
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  CHECK(read_text(*channel) == "EAGAIN");
  CHECK(write_text(*channel, "login: "));

  UniqueFd first = unix_client(path);
  REQUIRE(first.get() >= 0);
  UniqueFd second = unix_client(path);
  REQUIRE(second.get() >= 0);
  CHECK(sees(Channel::Connected));
  CHECK(receive_until(*this, first.get(), "login: ") == "login: ");
  CHECK(write(second.get(), "two", 3) == 3);
  CHECK(write(first.get(), "one", 3) == 3);
  CHECK(read_until(*this, *channel, "one") == "one");
  CHECK(read_text(*channel) == "EAGAIN");

  seen = 0;
  first.reset();
  CHECK(sees(Channel::Readable));
  CHECK(read_text(*channel).empty());
  CHECK(sees(Channel::HangUp));
  CHECK(sees(Channel::Connected));
  CHECK(read_until(*this, *channel, "two") == "two");
  CHECK(*write_text(*channel, "answer") == 6);
  CHECK(receive_until(*this, second.get(), "answer") == "answer");

  channel->close();
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK(closed(*this, second.get()));
  CHECK(events.watch_count() == 0);
}

TEST_CASE_METHOD(Fixture, "unix: a stale socket is replaced, others are left alone") {
  Scratch scratch;
  const std::string path = (scratch.path / "con.sock").string();
  const auto channel = make("unix", {{"path", path}});
  const auto other = make("unix", {{"path", path}}, "con2");
  open(*channel);
  CHECK_FALSE(other->open([](std::uint32_t) {}));
  CHECK_THAT(last_log(), Contains("con2: cannot be opened: Somebody listens at " + path));
  CHECK(std::filesystem::exists(path));
  restore_host_terminals();  // what a crash does
  CHECK_FALSE(std::filesystem::exists(path));
  channel->close();

  {
    // A socket whose listener went without a word.
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof address) == 0);
  }
  open(*channel);
  CHECK(unix_client(path).get() >= 0);
  channel->close();

  const UniqueFd file(::open(path.c_str(), O_CREAT | O_WRONLY, 0600));
  CHECK_FALSE(channel->open([](std::uint32_t) {}));
  CHECK_THAT(last_log(), Contains("is there already and is no socket"));
  CHECK(std::filesystem::exists(path));
  CHECK_FALSE(make("unix", {{"path", "/" + std::string(200, 'x')}}));
  CHECK_THAT(error.message, Contains("is too long for a socket: at most 107 bytes"));
}

TEST_CASE_METHOD(Fixture, "unix: two guests find each other, whoever is first") {
  Scratch scratch;
  const std::string path = (scratch.path / "line.sock").string();
  const auto far = make("unix", {{"path", path}, {"mode", std::string("connect")}});
  REQUIRE(far);
  open(*far);
  events.settle();
  CHECK(seen == 0);
  CHECK(write_text(*far, "early"));
  const auto near = make("unix", {{"path", path}}, "ssl1");
  std::uint32_t near_seen = 0;
  REQUIRE(near->open([&](std::uint32_t e) { near_seen |= e; }));
  CHECK(sees(Channel::Connected));
  CHECK(read_until(*this, *near, "early") == "early");

  const std::string there = pattern(3'000'000, 1), back = pattern(3'000'000, 2);
  CHECK(carry(
            *this, there, [&](auto part) { return send_to(*near, part); },
            [&] { return receive_from(*far); }) == there);
  CHECK(carry(
            *this, back, [&](auto part) { return send_to(*far, part); },
            [&] { return receive_from(*near); }) == back);
  seen = 0;
  near->close();
  CHECK(events.run_until([&] { return read_text(*far).empty(); }));
  CHECK(sees(Channel::HangUp));
  REQUIRE(near->open([](std::uint32_t) {}));
  CHECK(sees(Channel::Connected));
}

TEST_CASE_METHOD(Fixture, "port: refused until it is opened, then a telnet server") {
  const int port = free_port();
  const auto channel = make("port", {{"port", std::int64_t{port}}});
  REQUIRE(channel);
  CHECK(channel->describe() == "port:" + std::to_string(port));
  CHECK(tcp_client(port).get() < 0);
  open(*channel);
  CHECK(write_text(*channel, "login: "));
  UniqueFd client = tcp_client(port);
  REQUIRE(client.get() >= 0);
  CHECK(sees(Channel::Connected));
  CHECK(receive_until(*this, client.get(), "login: ") == kGreeting + "login: ");

  // Window size, line ends, an escaped 255, a command.
  const std::string typed("\xff\xfa\x1f\0\x84\0\x32\xff\xf0ls\r\0x\r\ny\xff\xffz\xff\xf4", 22);
  CHECK(write(client.get(), typed.data(), typed.size()) == static_cast<ssize_t>(typed.size()));
  CHECK(read_until(*this, *channel, "\x03") == "ls\rx\ry\xffz\x03");
  CHECK(sees(Channel::Window));
  CHECK(*channel->window_size() == WindowSize{50, 132, 0, 0});
  CHECK(*write_text(*channel, "a\xff\r\nb\rc") == 7);
  CHECK(receive_until(*this, client.get(), "c") == std::string("a\xff\xff\r\nb\r\0c", 9));

  // Binary, from both sides.
  CHECK(write(client.get(), "\xff\xfd\0\xff\xfb\0\r\0", 8) == 8);
  CHECK(read_until(*this, *channel, std::string(1, '\0')) == std::string("\r\0", 2));
  CHECK(*write_text(*channel, "b\rc") == 3);
  CHECK(receive_until(*this, client.get(), "c") == "b\rc");

  client.reset();
  CHECK(events.run_until([&] { return read_text(*channel).empty(); }));
  CHECK(sees(Channel::HangUp));
  channel->close();
  CHECK(tcp_client(port).get() < 0);
  CHECK(events.watch_count() == 0);
}

TEST_CASE_METHOD(Fixture, "port: consoles share one, and clients wait in line") {
  const int port = free_port();
  const auto one = make("port", {{"port", std::int64_t{port}}}, "con1");
  const auto two = make("port", {{"port", std::int64_t{port}}}, "ssl0");
  open(*one);
  std::uint32_t two_seen = 0;
  REQUIRE(two->open([&](std::uint32_t e) { two_seen |= e; }));
  UniqueFd a = tcp_client(port);
  UniqueFd b = tcp_client(port, AF_INET6);
  REQUIRE(a.get() >= 0);
  if (b.get() < 0) {
    WARN("the host has no IPv6: IPv4 for both");
    b = tcp_client(port);
  }
  CHECK(events.run_until([&] { return (seen & two_seen & Channel::Connected) != 0; }));
  CHECK(write_text(*one, "I am one"));
  CHECK(write_text(*two, "I am two"));
  const std::string to_a = receive_until(*this, a.get(), "I am");
  CHECK_THAT(to_a + receive_until(*this, b.get(), "I am"),
             Contains("I am one") && Contains("I am two"));

  UniqueFd impatient = tcp_client(port);
  CHECK_THAT(receive_until(*this, impatient.get(), "in line"), Contains("You are number 1 in"));
  UniqueFd third = tcp_client(port);
  CHECK_THAT(receive_until(*this, third.get(), "in line"), Contains("You are number 2 in"));
  impatient.reset();
  UniqueFd fourth = tcp_client(port);
  CHECK_THAT(receive_until(*this, fourth.get(), "in line"), Contains("You are number 2 in"));

  // The first console's client goes: the one who has waited for longest gets it.
  const bool a_on_one = to_a.find("one") != std::string::npos;
  (a_on_one ? a : b).reset();
  CHECK(events.run_until([&] { return read_text(*one).empty(); }));
  CHECK(sees_anew(Channel::Connected));
  CHECK(write_text(*one, "welcome"));
  CHECK_THAT(receive_until(*this, third.get(), "welcome"), Contains("welcome"));
  CHECK(receive_from(fourth.get()).empty());

  // A console that is closed leaves its place in the line to nobody, but others go on.
  two->close();
  CHECK(closed(*this, (a_on_one ? b : a).get()));
  REQUIRE(two->open([&](std::uint32_t e) { two_seen |= e; }));
  CHECK(write_text(*two, "for the fourth"));
  CHECK_THAT(receive_until(*this, fourth.get(), "fourth"), Contains("for the fourth"));
  one->close();
  two->close();
  CHECK(tcp_client(port).get() < 0);
}

TEST_CASE_METHOD(Fixture, "port: a line is not without end") {
  const int port = free_port();
  const auto channel = make("port", {{"port", std::int64_t{port}}});
  open(*channel);
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 33; ++i) {
    clients.push_back(tcp_client(port));
    REQUIRE(clients.back().get() >= 0);
    events.run_once(20);
  }
  CHECK_THAT(receive_until(*this, clients[32].get(), "in line"), Contains("You are number 32 in"));
  const UniqueFd last = tcp_client(port);
  CHECK_THAT(receive_until(*this, last.get(), "already"), Contains("too many wait already"));
  CHECK(closed(*this, last.get()));
}

TEST_CASE_METHOD(Fixture, "port: raw carries all bytes; a client that does not read waits") {
  const int port = free_port();
  const auto channel =
      make("port", {{"port", std::int64_t{port}}, {"protocol", std::string("raw")}});
  open(*channel);
  const UniqueFd client = tcp_client(port);
  CHECK(sees(Channel::Connected));
  const std::string data = pattern(10'000'000, 3);
  CHECK(carry(
            *this, data, [&](auto part) { return send_to(client.get(), part); },
            [&] { return receive_from(*channel); }) == data);
  std::size_t sent = 0;
  while (const std::size_t n = send_to(*channel, std::string_view(data).substr(sent))) sent += n;
  CHECK(sent < data.size());  // it is held up
  CHECK(data.substr(0, sent) + carry(
                                   *this, data.substr(sent),
                                   [&](auto part) { return send_to(*channel, part); },
                                   [&, rest = sent]() mutable {
                                     std::string got = receive_from(client.get());
                                     const std::size_t early = std::min(rest, got.size());
                                     rest -= early;
                                     return got.substr(early);
                                   }) ==
        data);
}

TEST_CASE_METHOD(Fixture, "port: it is known what waits for a client that does not read") {
  const int port = free_port();
  const auto channel = make("port", {{"port", std::int64_t{port}}});
  open(*channel);
  CHECK_FALSE(channel->has_unsent());
  UniqueFd client = tcp_client(port);
  CHECK(sees(Channel::Connected));
  const std::string line(1000, 'x');
  std::size_t sent = 0;
  while (const std::size_t n = send_to(*channel, line)) sent += n;
  CHECK(channel->has_unsent());
  std::string got;
  CHECK(events.run_until([&] {
    got += receive_from(client.get());
    return got.size() >= sent;
  }));
  CHECK_FALSE(channel->has_unsent());
  while (send_to(*channel, line)) continue;
  CHECK(channel->has_unsent());
  client.reset();
  CHECK(events.run_until([&] { return read_text(*channel).empty(); }));
  CHECK_FALSE(channel->has_unsent());
}

TEST_CASE_METHOD(Fixture, "port: a client that asks and takes no answers fills no memory") {
  const int port = free_port();
  const auto channel = make("port", {{"port", std::int64_t{port}}});
  open(*channel);
  const UniqueFd client = tcp_client(port);
  CHECK(sees(Channel::Connected));
  std::string questions;
  for (int i = 0; i < 10000; ++i) questions += "\xff\xf6";  // are you there?
  std::size_t sent = 0;
  for (int quiet = 0; quiet < 50; ++quiet) {
    const std::size_t n = send_to(client.get(), questions);
    CHECK(read_text(*channel) == "EAGAIN");
    events.run_once(1);
    if (n) quiet = 0;
    sent += n;
    if (sent > 100'000'000) break;
  }
  CHECK(sent < 100'000'000);  // it is not listened to any more
  CHECK_THAT(receive_until(*this, client.get(), "[here]"), Contains("[here]"));
}

TEST_CASE_METHOD(Fixture,
                 "unix, port: a host without descriptors makes clients wait, and nobody spin") {
  Scratch scratch;
  const std::string path = (scratch.path / "con.sock").string();
  const int port = free_port();
  const bool tcp = GENERATE(false, true);
  const auto channel =
      tcp ? make("port", {{"port", std::int64_t{port}}}) : make("unix", {{"path", path}});
  open(*channel);
  events.settle();
  const UniqueFd client = tcp ? tcp_client(port) : unix_client(path);
  REQUIRE(client.valid());
  rlimit before;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  {
    const UniqueFd next(dup(0));
    const rlimit none{static_cast<rlim_t>(next.get()), before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  }
  for (int i = 0; i < 100; ++i) events.run_once(0);
  const std::size_t reports = events.report_count();
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(reports < 20);
  CHECK((seen & Channel::Connected) == 0);
  events.skip(std::chrono::seconds(1));
  CHECK(sees(Channel::Connected));
}

TEST_CASE_METHOD(Fixture, "port: addresses that cannot be had are refused with the reason") {
  const int port = free_port();
  const auto cannot = [&](const std::string &bind, const char *why) {
    INFO(bind);
    const auto channel = make("port", {{"port", std::int64_t{port}}, {"bind", bind}});
    REQUIRE(channel);
    CHECK_FALSE(channel->open([](std::uint32_t) {}));
    CHECK_THAT(last_log(), Contains(why));
  };
  cannot("localhost", "is no address. Give \"loopback\", \"any\", or an IPv4");
  cannot("192.0.2.1", "Nobody can connect to 192.0.2.1 port");
  const auto channel =
      make("port", {{"port", std::int64_t{port}}, {"bind", std::string("127.0.0.1")}});
  open(*channel);
  cannot("loopback", "is in use by somebody else. Name another port.");
  const auto any =
      make("port", {{"port", std::int64_t{free_port()}}, {"bind", std::string("any")}});
  open(*any);
  CHECK_FALSE(make("port", {{"port", std::int64_t{65536}}}));
  CHECK_FALSE(make("port"));
}
