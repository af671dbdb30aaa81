// The channel file.
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "unit/channel_support.hpp"

using namespace cowbird;
using namespace cowbird::test;
using Catch::Matchers::Contains;

namespace {

struct Fixture : ChannelFixture {
  Scratch scratch;
  const std::string path = (scratch.path / "con.log").string();

  void write_all(Channel &channel, std::string_view text) {
    while (!text.empty()) {
      const auto n = write_text(channel, text);
      REQUIRE(n);
      text.remove_prefix(*n);
    }
  }
  std::string contents(const std::string &suffix = "") {
    std::ifstream in(path + suffix, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

std::string last_log() { return log_tail(1).at(0).text; }

}  // namespace

TEST_CASE_METHOD(Fixture, "file: output is appended, and there is no input") {
  std::ofstream(path) << "before ";
  const auto channel = make("file", {{"path", path}});
  REQUIRE(channel);
  CHECK(channel->describe() == "file:" + path);
  open(*channel);
  CHECK(read_text(*channel) == "EAGAIN");
  write_all(*channel, "and ");
  channel->close();
  open(*channel);
  write_all(*channel, "after");
  CHECK(contents() == "before and after");
  events.settle();
  CHECK(seen == 0);

  const auto fresh = make("file", {{"path", path + ".new"}});
  open(*fresh);
  struct stat status;
  REQUIRE(stat((path + ".new").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE_METHOD(Fixture, "file: rotation loses nothing but what is too old") {
  const auto channel =
      make("file", {{"path", path}, {"max_size", std::string("1K")}, {"keep", std::int64_t{2}}});
  open(*channel);
  const std::string all = pattern(5000, 7);
  for (std::size_t at = 0; at < all.size(); at += 300) write_all(*channel, all.substr(at, 300));
  CHECK(contents(".2") + contents(".1") + contents() == all.substr(2048));
  CHECK(contents(".1").size() == 1024);
  CHECK_FALSE(std::filesystem::exists(path + ".3"));
  channel->close();
  open(*channel);  // goes on with what is there
  write_all(*channel, std::string(200, 'x'));
  CHECK(contents(".2") == all.substr(3072, 1024));

  const auto anew = make(
      "file", {{"path", path + "0"}, {"max_size", std::string("10")}, {"keep", std::int64_t{0}}});
  open(*anew);
  write_all(*anew, "0123456789abc");
  CHECK(contents("0") == "abc");
  CHECK_FALSE(std::filesystem::exists(path + "0.1"));
}

TEST_CASE_METHOD(Fixture, "file: consoles share a log, and its rotation") {
  const ConfigTable config{
      {"path", path}, {"max_size", std::string("1K")}, {"keep", std::int64_t{9}}};
  const auto one = make("file", config, "con1"), two = make("file", config, "con2");
  open(*one);
  open(*two);
  const std::string all = pattern(5000, 8);
  for (std::size_t at = 0; at < all.size(); at += 100) {
    write_all(at % 300 == 0 ? *one : *two, all.substr(at, 100));
  }
  std::string got;
  for (const char *suffix : {".4", ".3", ".2", ".1", ""}) {
    if (*suffix) CHECK(contents(suffix).size() == 1024);
    got += contents(suffix);
  }
  CHECK(got == all);
  CHECK_FALSE(std::filesystem::exists(path + ".5"));
}

TEST_CASE_METHOD(Fixture, "file: a full disk is said once, and the guest goes on") {
  // A limit of the process is met as a full disk is (EFBIG in place of ENOSPC).
  signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto channel = make("file", {{"path", path}});
  open(*channel);
  const rlimit small{100, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const auto first = write_text(*channel, std::string(100, 'a'));
  const auto dropped = write_text(*channel, std::string(40, 'b'));
  const std::string said = last_log();
  const auto more = write_text(*channel, std::string(2, 'b'));
  const std::string said_again = last_log();
  setrlimit(RLIMIT_FSIZE, &before);
  CHECK(*first == 100);
  CHECK(*dropped == 40);
  CHECK(*more == 2);
  CHECK_THAT(said, Contains("con1: the log " + path + " takes nothing: File too large"));
  CHECK(said == said_again);
  write_all(*channel, "c");
  CHECK_THAT(last_log(), Contains("goes on; 42 bytes of output were dropped"));
  CHECK(contents() == std::string(100, 'a') + "c");
}

TEST_CASE_METHOD(Fixture, "file: what is no file is refused with the reason") {
  const auto cannot = [&](const std::string &name, const char *why) {
    INFO(name);
    const auto channel = make("file", {{"path", name}});
    REQUIRE(channel);
    CHECK_FALSE(channel->open([](std::uint32_t) {}));
    CHECK_THAT(last_log(), Contains(why));
  };
  cannot(scratch.path.string(), "cannot be opened: Is a directory");
  cannot("/dev/null", "/dev/null is no regular file.");
  REQUIRE(mkfifo((path + ".fifo").c_str(), 0600) == 0);
  cannot(path + ".fifo", "cannot be opened: No such device or address");
  cannot((scratch.path / "no" / "where").string(), "No such file or directory");
}
