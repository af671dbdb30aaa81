// The channels none, pts, pty and tty.
#include "unit/channel_support.hpp"

using namespace cowbird;
using namespace cowbird::test;
using Catch::Matchers::Contains;

namespace {

struct Fixture : ChannelFixture {
  // Opens a pts and answers its slave's name.
  std::string open_pts(Channel &channel) {
    open(channel);
    const std::string text = channel.describe();
    REQUIRE(text.find(":/dev/pts/") != std::string::npos);
    return text.substr(text.find(':') + 1);
  }
  UniqueFd open_slave(const std::string &name) {
    UniqueFd fd(::open(name.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    REQUIRE(fd.get() >= 0);
    return fd;
  }
};

std::string last_log(std::size_t back = 0) {
  const auto lines = log_tail(back + 1);
  return lines.size() > back ? lines[lines.size() - 1 - back].text : "";
}

}  // namespace

TEST_CASE_METHOD(Fixture, "none: cannot be opened, without a word in the log") {
  const auto channel = make("none");
  REQUIRE(channel);
  CHECK(channel->describe() == "none");
  const std::string before = last_log();
  CHECK(channel->open([](std::uint32_t) {}).is(Errno::NoDev));
  CHECK_FALSE(channel->is_open());
  CHECK(last_log() == before);
}

TEST_CASE_METHOD(Fixture, "pts: the terminal is there from open to close, and the log names it") {
  const auto channel = make("pts");
  REQUIRE(channel);
  CHECK(channel->describe() == "pts");
  const std::string name = open_pts(*channel);
  CHECK(last_log() == "con1: attached to " + name);
  CHECK(std::filesystem::exists(name));
  {
    const UniqueFd slave = open_slave(name);
    termios modes;
    REQUIRE(tcgetattr(slave.get(), &modes) == 0);
    CHECK((modes.c_lflag & (ICANON | ECHO | ISIG)) == 0);
  }
  channel->close();
  CHECK(channel->describe() == "pts");
  CHECK(::open(name.c_str(), O_RDWR | O_NOCTTY) < 0);
  CHECK(events.watch_count() == 0);
  open(*channel);
  CHECK_THAT(channel->describe(), Contains("pts:/dev/pts/"));
}

TEST_CASE_METHOD(Fixture, "pts: people come, talk and go") {
  const auto channel = make("pts");
  const std::string name = open_pts(*channel);
  CHECK(read_text(*channel) == "EAGAIN");
  events.settle();
  CHECK(seen == 0);

  UniqueFd slave = open_slave(name);
  CHECK(sees(Channel::Connected));
  CHECK(read_text(*channel) == "EAGAIN");
  const std::string binary("a\0\xff\r\n\x03", 6);
  CHECK(write(slave.get(), binary.data(), binary.size()) == 6);
  CHECK(sees_anew(Channel::Readable));
  CHECK(read_text(*channel) == binary);
  CHECK(*write_text(*channel, binary) == 6);
  CHECK(receive_until(*this, slave.get(), binary) == binary);

  // A second one changes nothing, nor does its going.
  seen = 0;
  UniqueFd other = open_slave(name);
  other.reset();
  events.settle();
  CHECK((seen & (Channel::Connected | Channel::HangUp)) == 0);

  CHECK(write(slave.get(), "bye", 3) == 3);
  slave.reset();
  CHECK(read_until(*this, *channel, "bye") == "bye");  // before the end
  CHECK(events.run_until([&] { return read_text(*channel).empty(); }));
  CHECK(sees(Channel::HangUp));

  slave = open_slave(name);
  CHECK(sees_anew(Channel::Connected));
  CHECK(read_text(*channel) == "EAGAIN");
  CHECK(write(slave.get(), "again", 5) == 5);
  CHECK(read_until(*this, *channel, "again") == "again");
}

TEST_CASE_METHOD(Fixture, "pts: what is written by somebody who is gone already is read") {
  const auto channel = make("pts");
  const std::string name = open_pts(*channel);
  CHECK(write(open_slave(name).get(), "hello", 5) == 5);
  CHECK(sees(Channel::Connected));
  CHECK(read_until(*this, *channel, "hello") == "hello");
  CHECK(events.run_until([&] { return read_text(*channel).empty(); }));
  CHECK(sees(Channel::HangUp));
}

TEST_CASE_METHOD(Fixture, "pts: who comes at the moment that another goes stays") {
  const auto channel = make("pts");
  const std::string name = open_pts(*channel);
  UniqueFd slave = open_slave(name);
  CHECK(sees(Channel::Connected));
  CHECK(read_text(*channel) == "EAGAIN");
  slave.reset();
  events.settle();  // the end is seen, and not read yet
  slave = open_slave(name);
  if (GENERATE(false, true)) CHECK(read_text(*channel) == "EAGAIN");
  seen = 0;
  events.skip(std::chrono::seconds(10));
  events.settle();
  CHECK((seen & Channel::HangUp) == 0);
  CHECK(write(slave.get(), "here", 4) == 4);
  CHECK(read_until(*this, *channel, "here") == "here");
  CHECK(*write_text(*channel, "there") == 5);
  CHECK(receive_until(*this, slave.get(), "there") == "there");
  // And goes when it goes.
  slave.reset();
  CHECK(events.run_until([&] { return read_text(*channel).empty(); }));
  CHECK(sees(Channel::HangUp));
}

TEST_CASE_METHOD(Fixture, "pts: it is known what the peer has not read") {
  const auto channel = make("pts");
  CHECK_FALSE(channel->has_unsent());
  const std::string name = open_pts(*channel);
  CHECK(write_text(*channel, "to nobody"));
  CHECK_FALSE(channel->has_unsent());
  UniqueFd slave = open_slave(name);
  CHECK(sees(Channel::Connected));
  CHECK(channel->has_unsent());
  CHECK(receive_until(*this, slave.get(), "nobody") == "to nobody");
  CHECK_FALSE(channel->has_unsent());
  // More than the host's terminal takes at a time.
  const std::string words = pattern(50000, 7);
  const std::size_t taken = send_to(*channel, words);
  CHECK(taken > 0);
  CHECK(channel->has_unsent());
  CHECK(receive_until(*this, slave.get(), words.substr(0, taken)).size() == taken);
  CHECK_FALSE(channel->has_unsent());
  CHECK(write_text(*channel, "to somebody who goes"));
  CHECK(channel->has_unsent());
  slave.reset();
  CHECK_FALSE(channel->has_unsent());
}

TEST_CASE_METHOD(Fixture, "pts: output that nobody takes is no hindrance, and its end is kept") {
  const auto channel = make("pts");
  const std::string name = open_pts(*channel);
  std::string line;
  for (int i = 0; i < 100000; ++i) {
    line = "line " + std::to_string(i) + "\r\n";
    if (*write_text(*channel, line) != line.size()) FAIL("held up at " + line);
  }
  const UniqueFd slave = open_slave(name);
  const std::string got = receive_until(*this, slave.get(), line);
  CHECK(got.substr(0, 5) == "line ");
  CHECK(got.size() > 15000);
  CHECK(got.size() <= 16384);
  CHECK(got.substr(got.size() - line.size()) == line);
}

TEST_CASE_METHOD(Fixture, "pts: the window of the one who sits at it") {
  const auto channel = make("pts");
  const std::string name = open_pts(*channel);
  const UniqueFd slave = open_slave(name);
  CHECK(sees(Channel::Connected));
  winsize size{50, 132, 0, 0};
  ioctl(slave.get(), TIOCSWINSZ, &size);
  CHECK(sees(Channel::Window));
  CHECK(*channel->window_size() == WindowSize{50, 132, 0, 0});
  CHECK(channel->set_window_size({30, 90, 0, 0}));
  ioctl(slave.get(), TIOCGWINSZ, &size);
  CHECK(size.ws_row == 30);
  CHECK(size.ws_col == 90);
  // As stty does: found without a wait for the timer.
  seen = 0;
  {
    const UniqueFd other = open_slave(name);
    size = {51, 133, 0, 0};
    ioctl(other.get(), TIOCSWINSZ, &size);
  }
  CHECK(sees(Channel::Window));
  CHECK(channel->set_raw(false));
  termios modes;
  tcgetattr(slave.get(), &modes);
  CHECK((modes.c_lflag & ICANON) != 0);
}

TEST_CASE_METHOD(Fixture, "pty: without a device it is a pts") {
  const auto channel = make("pty");
  REQUIRE(channel);
  CHECK(channel->describe() == "pty");
  const std::string name = open_pts(*channel);
  const UniqueFd slave = open_slave(name);
  CHECK(sees(Channel::Connected));
  CHECK(write_text(*channel, "hello"));
  CHECK(receive_until(*this, slave.get(), "hello") == "hello");

  CHECK_FALSE(make("pty", {{"device", std::string("/dev/tty1")}}));
  CHECK_THAT(error.message, Contains("such as /dev/ptyp0"));
  const auto bsd = make("pty", {{"device", std::string("/dev/ptyze")}});
  REQUIRE(bsd);
  CHECK(bsd->describe() == "pty:/dev/ptyze");
  if (std::filesystem::exists("/dev/ptyze")) return;
  CHECK_FALSE(bsd->open([](std::uint32_t) {}));
  CHECK_THAT(last_log(), Contains("The host has no /dev/ptyze. Leave \"device\" out"));
}

TEST_CASE_METHOD(Fixture, "tty: a terminal is raw while it is open and as before afterwards") {
  Pty pty;
  const auto before = pty.modes();
  auto channel = make("tty", {{"device", pty.name()}});
  REQUIRE(channel);
  CHECK(channel->describe() == "tty:" + pty.name());
  CHECK_FALSE(pty.raw());
  open(*channel);
  CHECK(pty.raw());
  CHECK(sees(Channel::Connected));
  CHECK(read_text(*channel) == "EAGAIN");
  CHECK(write(pty.master.get(), "\x03q", 2) == 2);
  CHECK(sees_anew(Channel::Readable));
  CHECK(read_text(*channel) == "\x03q");
  CHECK(write_text(*channel, "a\nb"));
  CHECK(receive_until(*this, pty.master.get(), "b") == "a\nb");
  CHECK(channel->set_raw(false));
  CHECK_FALSE(pty.raw());
  CHECK(channel->set_raw(true));
  restore_host_terminals();
  CHECK_FALSE(pty.raw());
  channel->close();
  CHECK(before.c_lflag == pty.modes().c_lflag);
  CHECK(before.c_oflag == pty.modes().c_oflag);
  CHECK(events.watch_count() == 0);
  open(*channel);
  CHECK(pty.raw());
  channel.reset();
  CHECK_FALSE(pty.raw());
}

TEST_CASE_METHOD(Fixture, "tty: window and hang-up") {
  Pty pty;
  const auto channel = make("tty", {{"device", pty.name()}});
  open(*channel);
  CHECK(*channel->window_size() == WindowSize{24, 80, 0, 0});
  winsize size{50, 132, 0, 0};
  ioctl(pty.master.get(), TIOCSWINSZ, &size);
  CHECK(sees(Channel::Window));
  CHECK(*channel->window_size() == WindowSize{50, 132, 0, 0});
  CHECK(read_text(*channel) == "EAGAIN");
  pty.master.reset();
  CHECK(sees_anew(Channel::Readable));
  CHECK(read_text(*channel).empty());
  CHECK(sees(Channel::HangUp));
  CHECK(*write_text(*channel, "into the void") == 13);
}

TEST_CASE_METHOD(Fixture, "tty: hundreds are open at once, and each is put right") {
  std::vector<std::unique_ptr<Channel>> others;
  for (int i = 0; i < 600; ++i) {
    others.push_back(make("null", {}, "con" + std::to_string(i)));
    open(*others.back());
  }
  Pty pty;
  const auto channel = make("tty", {{"device", pty.name()}});
  open(*channel);
  CHECK(pty.raw());
  restore_host_terminals();
  CHECK_FALSE(pty.raw());
}

TEST_CASE_METHOD(Fixture, "tty: what is no terminal is refused with the reason") {
  Scratch scratch;
  const auto cannot = [&](const std::string &device, const char *why) {
    INFO(device);
    const auto channel = make("tty", {{"device", device}});
    REQUIRE(channel);
    CHECK_FALSE(channel->open([](std::uint32_t) {}));
    CHECK_THAT(last_log(), Contains(why));
  };
  cannot((scratch.path / "nothing").string(), "nothing cannot be opened: No such file");
  cannot(scratch.path.string(), "is no terminal. Name a terminal of the host");
  cannot("/dev/null", "/dev/null is no terminal.");
  CHECK_FALSE(make("tty"));
  CHECK_THAT(error.message, Contains("device"));
}

TEST_CASE_METHOD(Fixture, "a serial line: 10 MB pass from pts to tty and back unchanged") {
  const auto pts = make("pts", {}, "ssl0");
  const std::string name = open_pts(*pts);
  const auto tty = make("tty", {{"device", name}}, "ssl1");
  REQUIRE(tty->open([](std::uint32_t) {}));
  CHECK(sees(Channel::Connected));
  constexpr std::size_t kSize = 10'000'000;
  const std::string there = pattern(kSize, 1), back = pattern(kSize, 2);
  CHECK(carry(
            *this, there, [&](auto part) { return send_to(*pts, part); },
            [&] { return receive_from(*tty); }) == there);
  CHECK(carry(
            *this, back, [&](auto part) { return send_to(*tty, part); },
            [&] { return receive_from(*pts); }) == back);
}
