// What the tests of channel plugins are written with: channels made by the real registry from the
// real plugins, on an event loop that runs when the test says so.
#pragma once

#include <fcntl.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>

#include "base/log.hpp"
#include "plugins/plugin_registry.hpp"
#include "unit/poll_host_events.hpp"

namespace cowbird::test {

struct ChannelFixture {
  PollHostEvents events;
  PluginRegistry registry{{TEST_PLUGIN_DIR, OWN_PLUGIN_DIR}};
  PluginError error;
  std::uint32_t seen = 0;  // by open(channel)

  std::unique_ptr<Channel> make(const std::string &plugin, const ConfigTable &table = {},
                                const std::string &name = "con1") {
    const PluginInfo *info = registry.find(PluginKind::Channel, plugin, error);
    if (!info) return nullptr;
    const auto config = validate_config(*info, table, {},
                                        [&](auto, std::string_view text) { error.message = text; });
    return config ? registry.create_channel(*info, name, *config, events, error) : nullptr;
  }
  // The descriptors become such as a program inherits.
  std::unique_ptr<Channel> make_fd(int input, int output) {
    for (const int fd : {input, output}) {
      if (fd >= 0) fcntl(fd, F_SETFD, 0);
    }
    return make("fd", {{"input", std::int64_t{input}}, {"output", std::int64_t{output}}});
  }
  void open(Channel &channel) {
    REQUIRE(channel.open([this](std::uint32_t e) { seen |= e; }));
  }
  bool sees(std::uint32_t event) {
    return events.run_until([&] { return (seen & event) != 0; });
  }
  // The event comes again, from now on.
  bool sees_anew(std::uint32_t event) {
    seen &= ~event;
    return sees(event);
  }
};

inline Result<std::size_t> write_text(Channel &channel, std::string_view text) {
  return channel.write(std::as_bytes(std::span(text.data(), text.size())));
}
// What is there now, or the error's name.
inline std::string read_text(Channel &channel, std::size_t size = 100) {
  std::string text(size, '\0');
  const auto n = channel.read(std::as_writable_bytes(std::span(text.data(), size)));
  if (!n) return std::string(errno_name(n.error()));
  text.resize(*n);
  return text;
}
// What comes from the channel until `wanted` is among it, at most five seconds.
inline std::string read_until(ChannelFixture &fixture, Channel &channel, std::string_view wanted) {
  std::string text;
  fixture.events.run_until([&] {
    std::string part(1000, '\0');
    const auto n = channel.read(std::as_writable_bytes(std::span(part.data(), part.size())));
    if (n) text.append(part, 0, *n);
    return text.find(wanted) != std::string::npos;
  });
  return text;
}
// The same from a descriptor of the test's, while the channel's events run.
inline std::string receive_until(ChannelFixture &fixture, int fd, std::string_view wanted) {
  std::string text;
  fixture.events.run_until([&] {
    pollfd ready{fd, POLLIN, 0};
    char part[1000];
    while (poll(&ready, 1, 0) > 0) {
      const ssize_t n = ::read(fd, part, sizeof part);
      if (n <= 0) break;
      text.append(part, static_cast<std::size_t>(n));
    }
    return text.find(wanted) != std::string::npos;
  });
  return text;
}

// Bytes of all values, in an order that shows what is missing or twice.
inline std::string pattern(std::size_t size, std::uint32_t seed) {
  std::string text(size, '\0');
  for (char &c : text) {
    seed = seed * 1664525 + 1013904223;
    c = static_cast<char>(seed >> 24);
  }
  return text;
}

// Sends `data` from one side to the other: `send` and `receive` answer how many bytes they moved
// now. What was received.
inline std::string carry(ChannelFixture &fixture, const std::string &data,
                         const std::function<std::size_t(std::string_view)> &send,
                         const std::function<std::string()> &receive) {
  std::string got;
  std::size_t sent = 0;
  int idle = 0;
  while (got.size() < data.size() && idle < 2000) {
    std::size_t moved = 0;
    if (sent < data.size()) {
      const std::size_t n = send(std::string_view(data).substr(sent, 60000));
      sent += n;
      moved += n;
    }
    const std::string part = receive();
    got += part;
    moved += part.size();
    idle = moved == 0 ? idle + 1 : 0;
    fixture.events.run_once(moved == 0 ? 5 : 0);
  }
  return got;
}
inline std::size_t send_to(Channel &channel, std::string_view data) {
  const auto n = write_text(channel, data);
  return n ? *n : 0;
}
inline std::string receive_from(Channel &channel) {
  std::string text(1 << 16, '\0');
  const auto n = channel.read(std::as_writable_bytes(std::span(text.data(), text.size())));
  text.resize(n ? *n : 0);
  return text;
}
// The same for a descriptor that does not block.
inline std::size_t send_to(int fd, std::string_view data) {
  const ssize_t n = ::write(fd, data.data(), data.size());
  return n > 0 ? static_cast<std::size_t>(n) : 0;
}
inline std::string receive_from(int fd) {
  std::string text(1 << 16, '\0');
  const ssize_t n = ::read(fd, text.data(), text.size());
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return text;
}

struct Pipe {
  Pipe() {
    int fds[2];
    REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
    reader = UniqueFd(fds[0]);
    writer = UniqueFd(fds[1]);
  }
  UniqueFd reader, writer;
};

struct Pty {
  Pty() {
    winsize size{24, 80, 0, 0};
    int m, s;
    REQUIRE(openpty(&m, &s, nullptr, nullptr, &size) == 0);
    master = UniqueFd(m);
    slave = UniqueFd(s);
  }
  termios modes() const {
    termios t;
    REQUIRE(tcgetattr(slave.get(), &t) == 0);
    return t;
  }
  bool raw() const { return (modes().c_lflag & (ICANON | ECHO | ISIG)) == 0; }
  std::string name() const {
    char text[64];
    REQUIRE(ptsname_r(master.get(), text, sizeof text) == 0);
    return text;
  }
  UniqueFd master, slave;
};

// A directory that goes with the test.
struct Scratch {
  Scratch() {
    char name[] = "/tmp/cowbird-channel-XXXXXX";
    REQUIRE(mkdtemp(name));
    path = name;
  }
  ~Scratch() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

}  // namespace cowbird::test
