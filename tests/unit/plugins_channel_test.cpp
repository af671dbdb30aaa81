// Channels that plugins offer: the host's services, old plugins, and our own fd and null.
#include <sys/socket.h>
#include <sys/wait.h>

#include <csignal>

#include "unit/channel_support.hpp"

using namespace cowbird;
using namespace cowbird::test;
using Catch::Matchers::Contains;
using Fixture = test::ChannelFixture;

TEST_CASE_METHOD(Fixture, "a plugin of the oldest ABI still loads and works") {
  const auto channel = make("old");
  INFO(error.message);
  REQUIRE(channel);
  open(*channel);
  CHECK(read_text(*channel, 3) == "ooo");
  CHECK(channel->window_size().is(Errno::NotTty));
  CHECK(channel->set_raw(true));
  CHECK(channel->describe() == "old");
}

TEST_CASE_METHOD(Fixture, "the example of the SDK's README works") {
  const auto channel = make("echo");
  INFO(error.message);
  REQUIRE(channel);
  open(*channel);
  CHECK(read_text(*channel) == "EAGAIN");
  CHECK(*write_text(*channel, "hello") == 5);
  CHECK(seen == 0);  // never from inside a call
  CHECK(sees(Channel::Readable));
  CHECK(read_text(*channel) == "hello");
}

TEST_CASE_METHOD(Fixture, "events come from the event thread only, while the channel is open") {
  const auto channel = make("services");
  REQUIRE(channel);
  CHECK_THAT(log_tail(1)[0].text, Contains("con1: the services device is there"));
  CHECK(write_text(*channel, "n").is(Errno::Io));  // closed
  open(*channel);
  CHECK(channel->open([](std::uint32_t) {}).is(Errno::Busy));
  for (const auto &[order, event] : {std::pair("n", Channel::HangUp),
                                     {"t", Channel::Readable},
                                     {"p", Channel::Connected},
                                     {"w", Channel::Window}}) {
    INFO(order);
    seen = 0;
    CHECK(*write_text(*channel, order) == 1);
    CHECK(seen == 0);
    CHECK(sees(event));
  }
  CHECK(events.watch_count() == 0);
  CHECK(write_text(*channel, "l").is(Errno::Io));  // a count that cannot be

  seen = 0;
  CHECK(write_text(*channel, "n"));
  channel->close();
  events.settle();
  CHECK(seen == 0);
}

TEST_CASE_METHOD(Fixture, "nothing of a device runs after it is gone") {
  auto channel = make("services");
  open(*channel);
  CHECK(write_text(*channel, "p"));
  CHECK(write_text(*channel, "t"));
  channel.reset();
  usleep(2000);
  events.settle();
  CHECK(seen == 0);

  channel = make("services");
  open(*channel);
  CHECK(write_text(*channel, "f"));
  channel.reset();
  CHECK_THAT(log_tail(1)[0].text, Contains("left 0 watches and 1 timers behind"));
}

TEST_CASE_METHOD(Fixture, "a listener may close its channel") {
  const auto channel = make("services");
  REQUIRE(channel->open([&](std::uint32_t e) {
    seen |= e;
    channel->close();
  }));
  CHECK(write_text(*channel, "w"));
  CHECK(sees(Channel::Window));
  CHECK_FALSE(channel->is_open());
}

TEST_CASE_METHOD(Fixture, "null is silent and swallows") {
  const auto channel = make("null");
  REQUIRE(channel);
  open(*channel);
  CHECK(*write_text(*channel, "anything") == 8);
  CHECK(read_text(*channel) == "EAGAIN");
  CHECK(channel->describe() == "null");
  events.settle();
  CHECK(seen == 0);
  CHECK_FALSE(make("null", {{"depth", std::int64_t{1}}}));
  CHECK_THAT(error.message, Contains("It has no keys."));
}

TEST_CASE_METHOD(Fixture, "fd: a pipe is read to its end without being made non-blocking") {
  Pipe in, out;
  const auto channel = make_fd(in.reader.get(), out.writer.get());
  REQUIRE(channel);
  open(*channel);
  CHECK(read_text(*channel) == "EAGAIN");
  CHECK((fcntl(in.reader.get(), F_GETFL) & O_NONBLOCK) == 0);
  CHECK((fcntl(out.writer.get(), F_GETFL) & O_NONBLOCK) == 0);
  const std::string binary("a\0\xff\n", 4);
  CHECK(write(in.writer.get(), binary.data(), 4) == 4);
  CHECK(sees(Channel::Readable));
  CHECK(read_text(*channel) == binary);
  CHECK(read_text(*channel) == "EAGAIN");
  seen = 0;
  in.writer.reset();
  CHECK(sees(Channel::Readable));
  CHECK(read_text(*channel).empty());
  CHECK(read_text(*channel).empty());
  events.settle();
  CHECK((seen & Channel::HangUp) == 0);  // the end of a pipe is no hang-up
}

TEST_CASE_METHOD(Fixture, "fd: says which descriptors it is on") {
  Pipe pipe;
  const std::string in = std::to_string(pipe.reader.get());
  const std::string out = std::to_string(pipe.writer.get());
  CHECK(make_fd(pipe.reader.get(), pipe.writer.get())->describe() == "fd:" + in + ",fd:" + out);
  CHECK(make_fd(-1, pipe.writer.get())->describe() == "none,fd:" + out);
  CHECK(make_fd(pipe.reader.get(), -1)->describe() == "fd:" + in + ",none");
  CHECK(make_fd(-1, -1)->describe() == "none");
}

TEST_CASE_METHOD(Fixture, "fd: a terminal that is stuck holds up nobody and loses nothing") {
  Pty pty;
  const auto channel = make_fd(pty.slave.get(), pty.slave.get());
  open(*channel);
  tcflow(pty.slave.get(), TCOOFF);  // as ^S does
  const std::string data = pattern(300000, 1);
  std::size_t sent = 0;
  while (const std::size_t n = send_to(*channel, std::string_view(data).substr(sent))) sent += n;
  CHECK(write_text(*channel, "x").is(Errno::Again));
  events.settle();
  CHECK((seen & Channel::Writable) == 0);

  tcflow(pty.slave.get(), TCOON);
  CHECK(fcntl(pty.master.get(), F_SETFL, O_NONBLOCK) == 0);
  const std::string got = carry(
      *this, data.substr(sent), [&](std::string_view part) { return send_to(*channel, part); },
      [&] { return receive_from(pty.master.get()); });
  CHECK(data.substr(0, sent) + data.substr(sent) == data.substr(0, sent) + got);
}

TEST_CASE_METHOD(Fixture, "fd: a full pipe takes a part, then says when there is room") {
  Pipe out;
  const auto channel = make_fd(-1, out.writer.get());
  open(*channel);
  const std::string big(1 << 20, 'x');
  const auto first = write_text(*channel, big);
  REQUIRE(first);
  CHECK(*first < big.size());
  CHECK(write_text(*channel, big).is(Errno::Again));
  events.settle();
  CHECK(seen == 0);
  std::vector<char> drained(*first);
  CHECK(read(out.reader.get(), drained.data(), drained.size()) > 0);
  CHECK(sees(Channel::Writable));
  CHECK(write_text(*channel, "y"));
  channel->close();
  open(*channel);
  CHECK(read_text(*channel) == "EAGAIN");  // input -1: silence
  out.reader.reset();
  CHECK(write_text(*channel, "y").is(Errno::Pipe));
}

TEST_CASE_METHOD(Fixture, "fd: sockets, files and devices") {
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  UniqueFd ours(pair[0]), theirs(pair[1]);
  const auto socket = make_fd(theirs.get(), theirs.get());
  open(*socket);
  CHECK(read_text(*socket) == "EAGAIN");
  CHECK(write_text(*socket, "out"));
  CHECK(write(ours.get(), "in", 2) == 2);
  CHECK(sees(Channel::Readable));
  CHECK(read_text(*socket) == "in");
  std::string filler(1 << 20, 'x');
  while (write_text(*socket, filler)) continue;
  CHECK((fcntl(theirs.get(), F_GETFL) & O_NONBLOCK) == 0);
  ours.reset();
  CHECK(write_text(*socket, "y").is(Errno::Pipe));

  UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto device = make_fd(null.get(), null.get());
  open(*device);
  CHECK(read_text(*device).empty());
  CHECK(*write_text(*device, "abc") == 3);

  char name[] = "/tmp/cowbird-fd-XXXXXX";
  UniqueFd file(mkostemp(name, O_CLOEXEC | O_APPEND));
  CHECK(write(file.get(), "before ", 7) == 7);
  const auto log = make_fd(file.get(), file.get());
  open(*log);
  CHECK(*write_text(*log, "after") == 5);  // behind what is there
  lseek(file.get(), 0, SEEK_SET);
  CHECK(read_text(*log) == "before after");
  CHECK(read_text(*log).empty());
  unlink(name);
}

TEST_CASE_METHOD(Fixture, "fd: descriptors that are of no use are refused with the reason") {
  Pipe pipe;
  CHECK_FALSE(make_fd(pipe.writer.get(), 1));
  CHECK_THAT(error.message, Contains("(key \"input\") is not open for reading"));
  CHECK_FALSE(make_fd(0, pipe.reader.get()));
  CHECK_THAT(error.message, Contains("is not open for writing"));
  CHECK_FALSE(make_fd(9999, 1));
  CHECK_THAT(error.message, Contains("con1 (fd): The host file descriptor 9999"));
  CHECK_FALSE(make_fd(-2, 1));
  CHECK_THAT(error.message, Contains("out of range"));
}

TEST_CASE_METHOD(Fixture, "fd: a terminal is raw while it is open and as before afterwards") {
  Pty pty;
  const auto before = pty.modes();
  const int fd = pty.slave.get();
  auto channel = make_fd(fd, fd);
  CHECK_FALSE(pty.raw());
  open(*channel);
  CHECK(pty.raw());
  CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
  CHECK(channel->describe() == "fd:" + std::to_string(fd));
  CHECK(read_text(*channel) == "EAGAIN");
  CHECK(write(pty.master.get(), "\x03q", 2) == 2);
  CHECK(sees(Channel::Readable));
  CHECK(read_text(*channel) == "\x03q");
  CHECK(write_text(*channel, "a\nb"));
  char out[8] = {};
  CHECK(read(pty.master.get(), out, sizeof out) == 3);
  CHECK(std::string(out) == "a\nb");

  CHECK(channel->set_raw(false));
  CHECK_FALSE(pty.raw());
  CHECK(channel->set_raw(true));
  restore_host_terminals();
  restore_host_terminals();
  CHECK_FALSE(pty.raw());
  channel->close();
  CHECK(before.c_lflag == pty.modes().c_lflag);
  CHECK(before.c_oflag == pty.modes().c_oflag);

  open(*channel);
  CHECK(pty.raw());
  channel.reset();
  CHECK_FALSE(pty.raw());
}

TEST_CASE_METHOD(Fixture, "fd: the window's size and its changes come through") {
  Pty pty;
  const auto channel = make_fd(pty.slave.get(), pty.slave.get());
  open(*channel);
  CHECK(*channel->window_size() == WindowSize{24, 80, 0, 0});
  winsize size{50, 132, 0, 0};
  ioctl(pty.master.get(), TIOCSWINSZ, &size);
  raise(SIGWINCH);  // the pty is not this process's controlling terminal
  CHECK(sees(Channel::Window));
  CHECK(*channel->window_size() == WindowSize{50, 132, 0, 0});

  // After a stop the shell has put its own modes; they are ours again when the process goes on.
  // Here the process is not in the terminal's foreground, so they stay.
  seen = 0;
  raise(SIGCONT);
  CHECK(sees(Channel::Window));
  channel->close();
  seen = 0;
  raise(SIGWINCH);
  events.settle();
  CHECK(seen == 0);
  Pipe pipe;
  const auto no_terminal = make_fd(pipe.reader.get(), pipe.writer.get());
  open(*no_terminal);
  CHECK(no_terminal->window_size().is(Errno::NotTty));
}

TEST_CASE_METHOD(Fixture, "fd: a terminal that goes away is a hang-up") {
  Pty pty;
  const auto channel = make_fd(pty.slave.get(), pty.slave.get());
  open(*channel);
  CHECK(read_text(*channel) == "EAGAIN");
  pty.master.reset();
  CHECK(sees(Channel::Readable));
  CHECK(read_text(*channel).empty());
  CHECK(sees(Channel::HangUp));
}

namespace {

// Runs `child` in a process of its own that has opened a channel on the terminal.
template <typename Function>
int in_child(const Pty &pty, Function child) {
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    Fixture fixture;
    auto channel = fixture.make_fd(pty.slave.get(), pty.slave.get());
    if (!channel || !channel->open([](std::uint32_t) {})) _exit(99);
    if (!pty.raw()) _exit(98);
    static_cast<void>(channel.release());
    child();
    _exit(97);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("fd: the terminal is restored when the process exits or crashes") {
  Pty pty;
  SECTION("exit") {
    const int status = in_child(pty, [] { exit(5); });
    CHECK(WEXITSTATUS(status) == 5);
  }
  SECTION("crash") {
    const int status = in_child(pty, [] {
      signal(SIGSEGV, [](int) {
        restore_host_terminals();
        _exit(6);
      });
      raise(SIGSEGV);
    });
    CHECK(WEXITSTATUS(status) == 6);
  }
  CHECK_FALSE(pty.raw());
}

TEST_CASE("fd: where opening again is refused, O_NONBLOCK is set and taken back") {
  if (getuid() != 0) {
    WARN("skipped: only root can become somebody whom the host refuses");
    return;
  }
  Pty pty;
  fchmod(pty.slave.get(), 0600);
  const pid_t pid = fork();
  if (pid == 0) {
    Fixture fixture;
    const int fd = pty.slave.get();
    auto channel = fixture.make_fd(fd, fd);  // while the plugin's file can be read
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(1);
    if (!channel || !channel->open([](std::uint32_t) {})) _exit(2);
    if (!(fcntl(fd, F_GETFL) & O_NONBLOCK)) _exit(3);
    if (read_text(*channel) != "EAGAIN") _exit(4);
    channel->close();
    if (fcntl(fd, F_GETFL) & O_NONBLOCK) _exit(5);
    if (!channel->open([](std::uint32_t) {})) _exit(6);
    static_cast<void>(channel.release());
    exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  CHECK(WEXITSTATUS(status) == 0);
  CHECK((fcntl(pty.slave.get(), F_GETFL) & O_NONBLOCK) == 0);
}
