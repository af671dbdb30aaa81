// The management console's socket, protocol and client, on a kernel without guest programs.
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <thread>

#include "mconsole/client.hpp"
#include "mconsole/protocol.hpp"
#include "mconsole/server.hpp"

using namespace cowbird;
using namespace cowbird::mconsole;
using namespace std::chrono_literals;

namespace {

struct Scratch {
  Scratch() {
    char name[] = "/tmp/cowbird-mconsole-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Scratch() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

// Answers every command with its argument, "big" with a text of many packets.
struct Echo {
  Echo() {
    std::string error;
    server = Server::start(
        scratch.path / "mconsole",
        [this](const CommandLine &line, const Responder &responder) {
          if (line.command == Command::Proc) {
            responder.answer(Answer::done(std::string(100'000, 'x') + "end"), "\n");
          } else if (line.command == Command::Config) {
            responder.answer(Answer::error(line.argument));
          } else if (line.command == Command::Halt) {
            late.push_back(responder);
          } else {
            responder.answer(Answer::done(line.argument));
          }
        },
        error);
    REQUIRE(server);
  }
  ~Echo() { server->stop(2s); }
  Scratch scratch;
  std::vector<Responder> late;
  std::unique_ptr<Server> server;
};

// A client that sends what it likes.
struct Raw {
  explicit Raw(const std::filesystem::path &socket) {
    sockaddr_un own{};
    own.sun_family = AF_UNIX;
    REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr *>(&own), sizeof own.sun_family) == 0);
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::strcpy(to.sun_path, socket.c_str());
    REQUIRE(::connect(fd.get(), reinterpret_cast<sockaddr *>(&to), sizeof to) == 0);
  }
  std::string ask(const std::string &bytes) {
    REQUIRE(::send(fd.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    char buffer[2048];
    const ssize_t got = ::recv(fd.get(), buffer, sizeof buffer, 0);
    REQUIRE(got >= 0);
    return {buffer, static_cast<std::size_t>(got)};
  }
  UniqueFd fd{::socket(AF_UNIX, SOCK_DGRAM, 0)};
};

std::string packet(std::uint32_t magic, std::uint32_t version, std::uint32_t length,
                   const std::string &text) {
  std::string bytes(12, '\0');
  std::memcpy(bytes.data(), &magic, 4);
  std::memcpy(bytes.data() + 4, &version, 4);
  std::memcpy(bytes.data() + 8, &length, 4);
  return bytes + text;
}

// err, more, len and the text with its NUL.
std::string reply_bytes(std::uint32_t err, std::uint32_t more, const std::string &text) {
  return packet(err, more, static_cast<std::uint32_t>(text.size() + 1), text + '\0');
}

}  // namespace

TEST_CASE("packets are UML's, byte by byte") {
  const std::string request = encode_request("version");
  CHECK(request == packet(0xcafebabe, 2, 7, "version") + std::string(505, '\0'));
  CHECK(encode_request(std::string(511, 'x')).size() == 524);
  CHECK(encode_request(std::string(512, 'x')).empty());

  auto packets = encode_answer(Answer::done());
  REQUIRE(packets.size() == 1);
  CHECK(packets[0] == reply_bytes(0, 0, ""));
  packets = encode_answer(Answer::error(std::string(511, 'a') + "b"));
  REQUIRE(packets.size() == 2);
  CHECK(packets[0] == reply_bytes(1, 1, std::string(511, 'a')));
  CHECK(packets[1] == reply_bytes(0, 0, "b"));
  packets = encode_answer(Answer::done("text"), "\n");
  REQUIRE(packets.size() == 2);
  CHECK(packets[0] == reply_bytes(0, 1, "\n"));
  CHECK(packets[1] == reply_bytes(0, 0, "text"));

  NotifyPacket notification;
  CHECK(encode_notify(notification, NotifyKind::User, "hello") == 21);
  CHECK(std::string(reinterpret_cast<const char *>(&notification), 21) ==
        packet(0xcafebabe, 2, 3, std::string("\5\0\0\0", 4) + "hello"));
  CHECK(encode_notify(notification, NotifyKind::Panic, std::string(600, 'x')) == 528);
}

TEST_CASE("wrong packets are answered as UML answers them") {
  Echo echo;
  Raw raw(echo.scratch.path / "mconsole");
  CHECK(raw.ask(packet(0xcafebabe, 2, 9, "log hello")) == reply_bytes(0, 0, "hello"));
  CHECK(raw.ask("version") == "ERR Version 0 mconsole clients are not supported by this driver");
  CHECK(raw.ask(packet(0xbabecafe, 2, 7, "version")).starts_with("ERR Version 0"));
  CHECK(raw.ask("") == "ERR Version 0 mconsole clients are not supported by this driver");
  CHECK(raw.ask(packet(0xcafebabe, 2, 512, std::string(512, 'x'))) ==
        reply_bytes(1, 0, "Request too large"));
  CHECK(raw.ask(packet(0xcafebabe, 2, 0xffffffff, "x")) == reply_bytes(1, 0, "Request too large"));
  CHECK(raw.ask(packet(0xcafebabe, 3, 7, "version")) ==
        reply_bytes(1, 0, "This driver only supports version 2 clients"));
  CHECK(raw.ask(packet(0xcafebabe, 2, 5, "nosuch")) == reply_bytes(1, 0, "Unknown command"));
  CHECK(raw.ask(packet(0xcafebabe, 2, 0, "")) == reply_bytes(1, 0, "Unknown command"));
  CHECK(raw.ask(packet(0xcafebabe, 2, 7, "help")) ==
        reply_bytes(1, 0, "Request shorter than its length says"));
  CHECK(raw.ask(packet(0xcafebabe, 2, 100, "log x") + std::string(2000, '\0')) ==
        reply_bytes(0, 0, "x"));
  // A client that cannot be answered disturbs nobody.
  const UniqueFd nameless(::socket(AF_UNIX, SOCK_DGRAM, 0));
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::strcpy(to.sun_path, (echo.scratch.path / "mconsole").c_str());
  ::sendto(nameless.get(), "x", 1, 0, reinterpret_cast<sockaddr *>(&to), sizeof to);
  CHECK(raw.ask(packet(0xcafebabe, 2, 9, "log again")) == reply_bytes(0, 0, "again"));
  struct stat status {};
  REQUIRE(::stat(to.sun_path, &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
}

TEST_CASE("the client joins long answers, tells errors, and does not mix answers up") {
  Echo echo;
  std::string error;
  const auto socket = echo.scratch.path / "mconsole";
  const auto client = Client::connect(socket, error);
  REQUIRE(client);
  for (int i = 0; i < 20; ++i) {
    const ClientReply big = client->ask("proc anything", 10s);
    REQUIRE(big.outcome == Outcome::Ok);
    REQUIRE(big.text == "\n" + std::string(100'000, 'x') + "end");
  }
  const ClientReply refused = client->ask("config con9=no", 10s);
  CHECK(refused.outcome == Outcome::Error);
  CHECK(refused.text == "con9=no");
  CHECK(client->ask("halt", 50ms).outcome == Outcome::NoAnswer);
  REQUIRE(echo.late.size() == 1);
  echo.late[0].answer(Answer::done("late"));
  while (true) {  // until it is in our queue
    pollfd none{};
    ::poll(&none, 0, 20);
    if (client->ask("log now", 10s).text == "now") break;
  }
  CHECK(client->ask("log then", 10s).text == "then");
  CHECK(client->ask(std::string(600, 'x'), 1s).outcome == Outcome::Error);
  echo.server->stop(1s);
  echo.server.reset();
  CHECK(client->ask("version", 1s).outcome == Outcome::Gone);
  CHECK(!Client::connect(socket, error));
  CHECK(error == fmt::format("No management console listens on {}.", socket.string()));
  std::string again;
  echo.server = Server::start(
      socket, [](const CommandLine &, const Responder &) {}, again);
  REQUIRE(echo.server);
}

TEST_CASE("a client that does not read holds nobody up") {
  Echo echo;
  const auto socket = echo.scratch.path / "mconsole";
  Raw sleepy(socket);
  const std::string request = packet(0xcafebabe, 2, 6, "proc x");
  for (int i = 0; i < 50; ++i) ::send(sleepy.fd.get(), request.data(), request.size(), 0);
  std::string error;
  const auto client = Client::connect(socket, error);
  REQUIRE(client);
  CHECK(client->ask("log here", 10s).text == "here");
}

TEST_CASE("commands are known by their beginning") {
  CHECK(parse_command("version").command == Command::Version);
  CHECK(parse_command("  help ").command == Command::Help);
  CHECK(parse_command("stop").command == Command::Stop);
  CHECK(parse_command("stack 12").command == Command::Stack);
  CHECK(parse_command("stack  12 ").argument == "12");
  CHECK(parse_command("config ubd0=a b").argument == "ubd0=a b");
  CHECK(parse_command("sto").command == Command::Unknown);
  CHECK(parse_command("").command == Command::Unknown);
  CHECK(parse_command("devices").command == Command::Devices);
  CHECK(parse_command("tracer 4711").command == Command::Tracer);
  CHECK(commands().size() == 15);
}

TEST_CASE("relative names of files become absolute") {
  const auto made = [](const char *line) { return with_absolute_names(line, "/srv/g"); };
  CHECK(made("config ubd3=x.img") == "config ubd3=/srv/g/x.img");
  CHECK(made("config ubdb=cow,../back") == "config ubdb=/srv/g/cow,/srv/back");
  CHECK(made("config ubd0r=/a:b") == "config ubd0r=/a:/srv/g/b");
  CHECK(made("config ubda={path=\"x.img\", backing='b', readonly=true}") ==
        "config ubda={path=\"/srv/g/x.img\", backing='/srv/g/b', readonly=true}");
  CHECK(made("config con1=file:con.log") == "config con1=file:/srv/g/con.log");
  CHECK(made("config ssl2=pts,unix:s") == "config ssl2=pts,unix:/srv/g/s");
  CHECK(made("config con1=fd:0,fd:1") == "config con1=fd:0,fd:1");
  CHECK(made("config con1=xterm") == "config con1=xterm");
  CHECK(made("config mem=64M") == "config mem=64M");
  CHECK(made("config ubd0") == "config ubd0");
  CHECK(made("log config ubd0=x") == "log config ubd0=x");
}

TEST_CASE("a file goes to the log in requests that fit") {
  CHECK(log_requests("one\n\ntwo") == std::vector<std::string>{"log one", "log ", "log two"});
  const auto pieces = log_requests(std::string(1200, 'y'));
  REQUIRE(pieces.size() == 3);
  CHECK(pieces[0].size() == 511);
  CHECK(log_requests("").empty());
}
