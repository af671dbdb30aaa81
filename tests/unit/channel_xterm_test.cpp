// The channel xterm, with scripts in place of a terminal emulator: util-linux's script(1) runs a
// command on a terminal of its own, which is all that is needed. tests/e2e/consoles.py has the real
// one under Xvfb.
#include <sys/wait.h>

#include <algorithm>
#include <fstream>

#include "unit/channel_support.hpp"

using namespace cowbird;
using namespace cowbird::test;
using Catch::Matchers::Contains;

namespace {

// A program in the place of xterm, and a display that it does not need.
struct Fixture : ChannelFixture {
  Scratch scratch;
  Fixture() {
    setenv("DISPLAY", ":not-there", 1);
    setenv("TMPDIR", scratch.path.c_str(), 1);
  }
  ~Fixture() {
    unsetenv("DISPLAY");
    unsetenv("TMPDIR");
  }
  // The directories of windows that are waited for.
  std::ptrdiff_t waiting() const {
    return std::ranges::count_if(
        std::filesystem::directory_iterator(scratch.path), [](const auto &entry) {
          return entry.path().filename().string().rfind("cowbird-xterm-", 0) == 0;
        });
  }

  std::string emulator(const std::string &script) {
    const auto file = scratch.path / "emulator";
    std::ofstream(file) << "#!/bin/sh\n" << script << "\n";
    std::filesystem::permissions(file, std::filesystem::perms::owner_all);
    return file.string() + ",--title,--run";
  }
  std::unique_ptr<Channel> make_xterm(const std::string &command) {
    return make("xterm", {{"command", command}});
  }
  std::string contents(const char *name) {
    std::ifstream in(scratch.path / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  bool ended(pid_t pid) {
    return events.run_until([&] { return kill(pid, 0) != 0 || zombie(pid); });
  }
  static bool zombie(pid_t pid) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string text;
    std::getline(stat, text);
    return text.find(") Z") != std::string::npos;
  }
};

std::string last_log() { return log_tail(1).at(0).text; }

}  // namespace

TEST_CASE_METHOD(Fixture, "xterm: the window's terminal is the console's") {
  if (system("command -v script >/dev/null") != 0) {
    WARN("skipped: script(1) of util-linux is not installed");
    return;
  }
  // Types and shows what the person would: its input comes from a pipe, its output goes to a file.
  const std::string dir = scratch.path.string();
  REQUIRE(mkfifo((dir + "/keys").c_str(), 0600) == 0);
  const UniqueFd keys(::open((dir + "/keys").c_str(), O_RDWR | O_CLOEXEC));
  const auto channel = make_xterm(emulator("echo \"$1 $2 $3\" > " + dir + "/words; echo $$ > " +
                                           dir + "/pid; exec script -qfc \"$4 $5\" " + dir +
                                           "/screen < " + dir + "/keys"));
  REQUIRE(channel);
  CHECK(channel->describe() == "xterm");
  open(*channel);
  CHECK(write_text(*channel, "before the window "));
  REQUIRE(sees(Channel::Connected));
  CHECK(contents("words") == "--title con1 --run\n");
  CHECK(write_text(*channel, "and after"));
  CHECK(
      events.run_until([&] { return contents("screen").find("and after") != std::string::npos; }));
  CHECK_THAT(contents("screen"), Contains("before the window and after"));
  CHECK(write(keys.get(), "typed\x03\r", 7) == 7);
  CHECK(read_until(*this, *channel, "\r") == "typed\x03\r");
  CHECK(channel->window_size());

  CHECK(waiting() == 0);
  const pid_t pid = std::stoi(contents("pid"));
  CHECK(kill(pid, 0) == 0);
  channel->close();
  CHECK(ended(pid));
  CHECK(events.watch_count() == 0);
  open(*channel);  // a new window
  CHECK(sees_anew(Channel::Connected));
  kill(std::stoi(contents("pid")), SIGTERM);
  CHECK(events.run_until([&] { return read_text(*channel).empty(); }));
  CHECK(sees(Channel::HangUp));
}

TEST_CASE_METHOD(Fixture, "xterm: what goes wrong is said") {
  CHECK_FALSE(make_xterm("xterm"));
  CHECK_THAT(error.message, Contains("such as \"xterm,-T,-e\""));
  CHECK_FALSE(make_xterm("xterm,,-e"));

  const auto missing = make_xterm("no-such-terminal,-T,-e");
  REQUIRE(missing);
  CHECK_FALSE(missing->open([](std::uint32_t) {}));
  CHECK_THAT(last_log(), Contains("\"no-such-terminal\" is not in the PATH. Install it"));

  const auto fails = make_xterm(emulator("echo \"cannot open display $DISPLAY\" >&2; exit 1"));
  open(*fails);
  CHECK(sees(Channel::HangUp));
  CHECK_THAT(last_log(), Contains("con1: The terminal emulator ended before its window was there. "
                                  "It said: cannot open display :not-there"));
  CHECK(read_text(*fails).empty());
  CHECK(write_text(*fails, "x").is(Errno::Pipe));
  fails->close();

  const auto slow = make_xterm(emulator("exec sleep 1000"));
  open(*slow);
  CHECK(waiting() == 1);
  restore_host_terminals();  // what a crash does
  CHECK(waiting() == 0);
  slow->close();

  unsetenv("DISPLAY");
  unsetenv("WAYLAND_DISPLAY");
  CHECK_FALSE(slow->open([](std::uint32_t) {}));
  CHECK_THAT(last_log(), Contains("DISPLAY is not set"));
  CHECK(waiting() == 0);
}
